"""The model card: what the Hub and a reader learn about an adaptation before they open it.

In: the manifest, the contract and the measured errors. Out: the text of `README.md`, with front matter that
the Hub understands (huggingface.co/docs/hub/model-cards).
"""

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from xvla_platform.specs.records import BaseRef, EmbodimentRecord, Manifest

TUNING = {
    "prompt": "The soft prompt and the action rows of one slot were trained; everything else is the base's.",
    "lora": "The slot's rows and low-rank adapters on the policy transformer were trained.",
    "full": "The base's own weights were tuned too: `model.safetensors` holds them, and what it does not hold is the "
    "base's.",
}


def model_card(manifest: Manifest, record: EmbodimentRecord, metrics: dict[str, Any]) -> str:
    """`metrics` is `metrics.json`: `table` (`policy`, `errors` by field), `units`, `test_episodes`,
    `test_frames`.
    """
    spec = record.spec
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(manifest, record), sort_keys=False)}---\n",
        f"# X-VLA for {spec.name}\n",
        f"{spec.description}\n",
        f"{TUNING[manifest.tuning]} Prompt slot: domain id {manifest.slot.domain_id}.\n",
        "## Results\n",
        _results(metrics),
        "## Robot\n",
        _timing(record),
        _markdown(
            ("camera", "role", "mount", "height x width"),
            [(c.name, c.role, c.mount, f"{c.resolution[0]} x {c.resolution[1]}") for c in spec.ordered_cameras],
        ),
        _markdown(
            ("vector", "field", "kind", "size", "unit", "frame", "format", "reference"),
            [
                *(("proprio", *_field(f), "") for f in spec.proprio.fields),
                *(("action", *_field(f), f.reference) for f in spec.action.fields),
            ],
        ),
        "## Use\n",
        _usage(manifest),
        "## Provenance\n",
        _provenance(manifest),
    ]
    return "\n".join(parts)


def _timing(record: EmbodimentRecord) -> str:
    return (
        f"Control rate {record.spec.control_hz:g} Hz, one action chunk covers {record.spec.horizon_s:g} s, "
        f"action space `{record.action_space}`.\n"
    )


def _front_matter(manifest: Manifest, record: EmbodimentRecord) -> dict[str, Any]:
    tags = ["robotics", "xvla", "vla", "soft-prompt"]
    if manifest.tuning == "lora":
        tags.append("lora")
    front: dict[str, Any] = {"library_name": "peft"}
    # A base in a local folder has no name that means anything to others.
    if not manifest.base.id.startswith(("/", ".")):
        front["base_model"] = manifest.base.id
        front["base_model_relation"] = "finetune" if manifest.tuning == "full" else "adapter"
    front["pipeline_tag"] = "robotics"
    front["tags"] = [*tags, f"embodiment:{record.spec.name}"]
    if manifest.data.repo:
        front["datasets"] = [manifest.data.repo]
    return front


def _results(metrics: dict[str, Any]) -> str:
    rows = metrics.get("table") or []
    if not rows:
        return "Not measured.\n"
    units = metrics.get("units", {})
    fields = list(dict.fromkeys(field for row in rows for field in row["errors"]))
    headers = ["policy", *(f"{field} [{units[field]}]" if field in units else field for field in fields)]
    body = [[row["policy"], *(_number(row["errors"].get(field)) for field in fields)] for row in rows]
    episodes, frames = metrics.get("test_episodes"), metrics.get("test_frames")
    return (
        f"Mean action error on {episodes} held-out episodes ({frames} frames), in physical units; lower is better.\n\n"
        + _markdown(headers, body)
    )


def _usage(manifest: Manifest) -> str:
    base = " --base FOLDER" if manifest.base.id.startswith(("/", ".")) else ""
    return (
        "```bash\npip install xvla-platform\nxvla init robots && cd robots\n"
        "xvla pull <this repository>@<commit>\n"
        f"xvla eval {manifest.embodiment}{base}\n```\n\n"
        "`embodiment.yaml` is the exact contract: cameras, units, frames, rates and the prompt slot. "
        "The folder holds plain data only; nothing in it is executed.\n"
    )


def _provenance(manifest: Manifest) -> str:
    base, data = manifest.base, manifest.data
    rows = [
        ("base", _base(base)),
        ("base weights", f"sha256 {base.fingerprint}"),
        ("data", f"{data.episodes} episodes, {data.frames} frames at {data.fps:g} Hz ({data.format})"),
        ("data fingerprint", f"sha256 {data.fingerprint}"),
        ("made", f"{manifest.created}, seed {manifest.seed}"),
        ("continues", manifest.parent or ""),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))),
    ]
    return _markdown(("what", "value"), [row for row in rows if row[1]])


def _base(base: BaseRef) -> str:
    """A local folder by its name alone: whoever reads the card has another disk."""
    if base.id.startswith(("/", ".")):
        return f"the folder `{PurePath(base.id).name}`"
    return base.id + (f" at {base.revision}" if base.revision else "")


def _field(field: Any) -> tuple[object, ...]:
    return field.name, field.kind, field.size, field.unit or "", field.frame or "", field.format or ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _markdown(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(headers), line("---" for _ in headers), *map(line, rows)]) + "\n"
