"""Reading `metrics.json` of an adaptation for listings.

In: the adaptation's folder. Out: rows for a table, or the headline: the adaptation's own error per field.
"""

from pathlib import Path
from typing import Any


def read_results(folder: Path) -> dict[str, Any]:
    """`metrics.json`, or an empty mapping where the adaptation carries none."""
    from xvla_platform.platform.files import read_json

    path = folder / "metrics.json"
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def results_table(results: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Headers with units and one row a policy."""
    rows = [row for row in results.get("table", []) if isinstance(row, dict)]
    units = results.get("units", {})
    fields = list(dict.fromkeys(field for row in rows for field in row.get("errors", {})))
    headers = ["policy", *(f"{field} [{units[field]}]" if field in units else field for field in fields)]
    return headers, [[row.get("policy"), *(row.get("errors", {}).get(f) for f in fields)] for row in rows]


def headline(folder: Path) -> str:
    """The adaptation's own errors, the table's last row, on one line."""
    results = read_results(folder)
    rows = [row for row in results.get("table", []) if isinstance(row, dict) and row.get("errors")]
    if not rows:
        return "not measured"
    units = results.get("units", {})
    parts = (f"{field} {value:.3g} {units.get(field, '')}".strip() for field, value in rows[-1]["errors"].items())
    return ", ".join(parts)
