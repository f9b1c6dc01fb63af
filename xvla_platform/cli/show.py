"""`xvla show NAME`: one robot and its adaptations in full."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from xvla_platform.cli.output import common_options, done, say, size_text, table
from xvla_platform.cli.results import read_results, results_table

if TYPE_CHECKING:
    from xvla_platform.platform.registry import Adaptation
    from xvla_platform.specs.records import EmbodimentRecord


@click.command(short_help="Show one robot and its adaptations in full.")
@click.argument("name")
@common_options
def show(name: str, workspace: Path | None) -> None:
    """Show robot NAME (`my_arm`), or one adaptation of it (`my_arm/v2`): contract, provenance, results, pushes."""
    from xvla_platform.platform.artifact import load_record
    from xvla_platform.platform.records import find_embodiment
    from xvla_platform.platform.registry import find, list_adaptations
    from xvla_platform.platform.workspace import Workspace

    place = Workspace.find(workspace)
    robot = name.split("/")[0]
    versions = list_adaptations(place, robot)
    newest = find(place, name) if versions or "/" in name else None
    record = load_record(newest.folder) if newest else find_embodiment(place, robot)
    _show_record(record)
    if newest:
        _show_adaptation(newest)
    say()
    done(
        next_command=f"xvla eval {newest.label}" if newest else f"xvla adapt --embodiment {robot}",
        data={
            "embodiment": record.model_dump(mode="json"),
            "versions": [adaptation.label for adaptation in versions],
            "adaptation": newest.label if newest else None,
            "manifest": newest.manifest.model_dump(mode="json") if newest else None,
            "metrics": read_results(newest.folder) if newest else None,
            "pushes": newest.pushes if newest else None,
        },
    )


def _show_record(record: "EmbodimentRecord") -> None:
    spec, data = record.spec, record.data
    say(f"{spec.name}: {spec.description}")
    say(f"base      {_base(record)}")
    say(f"slot      domain id {record.slot.domain_id} of {record.slot.num_domains}")
    say(f"space     {record.action_space}, rotations {record.rotation_layout}")
    say(f"time      {spec.control_hz:g} Hz, chunk of {spec.horizon_s:g} s")
    say(f"data      {data.episodes} episodes, {data.frames} frames at {data.fps:g} Hz ({data.repo or data.path})")
    say(f"plugin    {record.plugin}")
    for finding in record.accepted:
        say(f"accepted  {finding.code} {finding.field or 'dataset'}: {finding.measured}")
    say()
    table(
        ("camera", "role", "mount", "height", "width", "key"),
        [(c.name, c.role, c.mount, *c.resolution, c.key) for c in spec.ordered_cameras],
    )
    say()
    rows: list[tuple[object, ...]] = [
        ("proprio", f.name, f.kind, f.size, f.unit, f.frame, f.format, None, f.normalization)
        for f in spec.proprio.fields
    ]
    rows += [
        ("action", f.name, f.kind, f.size, f.unit, f.frame, f.format, f.reference, f.normalization)
        for f in spec.action.fields
    ]
    table(("vector", "field", "kind", "size", "unit", "frame", "format", "reference", "normalized"), rows)


def _base(record: "EmbodimentRecord") -> str:
    at = f"@{record.base.revision[:12]}" if record.base.revision else ""
    return f"{record.base.id}{at} (weights {record.base.fingerprint[:12]})"


def _show_adaptation(adaptation: "Adaptation") -> None:
    manifest = adaptation.manifest
    say()
    say(f"{adaptation.label}: {manifest.tuning}, {size_text(adaptation.size)}, made {manifest.created}")
    say(f"folder    {adaptation.folder}")
    say(f"seed      {manifest.seed}" + (f", continues {manifest.parent}" if manifest.parent else ""))
    say("versions  " + ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items())))
    for push in adaptation.pushes:
        say(f"{push['how']:<9} {push['to']} at {push['revision']}, {push['at']}")
    headers, rows = results_table(read_results(adaptation.folder))
    if rows:
        say()
        table(headers, rows)
