"""The tables of `docs/performance.md`, from the JSON that `xvla bench --out` wrote: no number is typed by hand.

    python benchmarks/performance.py benchmarks/results/*.json

Each file becomes a section of its name between the page's two marks: the machine, the command, every cell, every ratio
beside its arithmetic. `--check` exits with 1 where the page is behind the files.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- measured -->", "<!-- measured to here -->"
SIDES = {"ours": "ours", "public": "public recipe", "lerobot": "LeRobot"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="JSON of `xvla bench --out`, in the order of the page")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where the page is behind")
    options = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    sections = "\n\n".join(section(path) for path in options.results)
    new = f"{head}{BEGIN}\n\n{sections}\n\n{END}{tail}"
    if options.check:
        return int(new != text)
    PAGE.write_text(new, encoding="utf-8")
    return 0


def section(path: Path) -> str:
    """One run: where and how it was taken, what each cell spent, and the ratios."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if "report" not in data:
        sys.exit(f"error: {path}: holds an interrupted bench; give the same `xvla bench` command again")
    report, machine = data["report"], data["machine"]
    parts = [f"### {path.stem}, {data['device']}", where(data, machine, report["cells"]), command(data)]
    parts.append(
        lines(("what", "whose", "CPU s", "least to most", "memory, GiB", "GFLOP", "GFLOP/s", ""), cells(report))
    )
    if report["ratios"]:
        parts.append(lines(("ratio", "measured", "by arithmetic", "of it", "floor"), map(ratio, report["ratios"])))
    if report["chunk_difference"] is not None:
        parts.append(
            f"Largest difference of our exact chunk to LeRobot's: {report['chunk_difference']:.1e} model units."
        )
    return "\n\n".join(parts)


def where(data: dict[str, Any], machine: dict[str, Any], cells: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "torch", "transformers", "peft"))
    peers = [cell["versions"] for cell in cells.values() if "versions" in cell]
    gpu = next((f", {cell['gpu']}" for cell in cells.values() if "gpu" in cell), "")
    told = "".join(
        f"; LeRobot {v['lerobot']} on torch {v['torch']}, transformers {v['transformers']}" for v in peers[:1]
    )
    threads = f"{data['threads']} thread{'s' if data['threads'] > 1 else ''} a process"
    return f"{machine['processor']}, {machine['cores']} cores{gpu}, {threads}; {versions}{told}."


def command(data: dict[str, Any]) -> str:
    return f"```bash\n{data['command']}\n```"


def cells(report: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for cell in (report["cells"][key] for key in report["order"]):
        cpu = cell["cpu_s"]
        notes = [f"MFU {cell['mfu']:.1%}"] if "mfu" in cell else []
        notes += [f"extrapolated from {cell['steps_taken']} steps"] if cell.get("extrapolated") else []
        rows.append(
            (
                cell["about"],
                SIDES[cell["side"]],
                number(cpu["median"]),
                "" if cell.get("extrapolated") else f"{number(cpu['min'])} to {number(cpu['max'])}",
                f"{cell['memory_bytes'] / 2**30:.2f}",
                number(cell["flops"] / 1e9) if cell["flops"] else "",
                number(cell["gflops_per_s"]) if cell["flops"] else "",
                ", ".join(notes),
            )
        )
    return rows


def ratio(row: dict[str, Any]) -> tuple[str, ...]:
    floor = "" if row["floor"] is None else f"{row['floor']:.2f}, {'held' if row['holds'] else 'missed'}"
    return (
        row["name"] + (" (extrapolated)" if row.get("extrapolated") else ""),
        f"{row['ratio']:.2f}",
        f"{row['flop_ratio']:.2f}" if "flop_ratio" in row else "",
        f"{row['of_limit']:.0%}" if "of_limit" in row else "",
        floor,
    )


def lines(headers: tuple[str, ...], rows: Any) -> str:
    table = [headers, tuple("---" for _ in headers), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
