"""`xvla list`: the robots of this workspace and their adaptations."""

from pathlib import Path
from typing import Any

import click

from xvla_platform.cli.output import common_options, done, say, size_text, table
from xvla_platform.cli.results import headline


@click.command("list", short_help="List the workspace's robots and adaptations.")
@common_options
def list_all(workspace: Path | None) -> None:
    """List registered robots with their slots, and adaptations with size, held-out errors and pushes."""
    from xvla_platform.platform.records import registered
    from xvla_platform.platform.registry import list_adaptations
    from xvla_platform.platform.workspace import Workspace

    place = Workspace.find(workspace)
    records = registered(place)
    adaptations = list_adaptations(place)
    say(f"workspace {place.root}")
    say()
    if records:
        table(
            ("robot", "slot", "base", "episodes", "plugin"),
            [(r.spec.name, r.slot.domain_id, r.base.id, r.data.episodes, r.plugin) for r in records],
        )
    else:
        say("no robot is registered")
    say()
    if adaptations:
        table(
            ("adaptation", "tuning", "size", "held-out error", "shared"),
            [
                (a.label, a.manifest.tuning, size_text(a.size), headline(a.folder), _shared(a.pushes))
                for a in adaptations
            ],
        )
    else:
        say("no adaptation yet")
    say()
    done(
        next_command=_next([r.spec.name for r in records], [a.label for a in adaptations]),
        data={
            "workspace": str(place.root),
            "embodiments": [record.model_dump(mode="json") for record in records],
            "adaptations": [
                {
                    "adaptation": a.label,
                    "tuning": a.manifest.tuning,
                    "bytes": a.size,
                    "created": a.manifest.created,
                    "error": headline(a.folder),
                    "pushes": a.pushes,
                }
                for a in adaptations
            ],
        },
    )


def _shared(pushes: list[dict[str, Any]]) -> str:
    if not pushes:
        return "no"
    last = pushes[-1]
    return f"from {last['to']}" if last["how"] == "pulled" else str(last["to"])


def _next(robots: list[str], adaptations: list[str]) -> str:
    if adaptations:
        return f"xvla show {adaptations[-1]}"
    return f"xvla adapt --embodiment {robots[0]}" if robots else "xvla add-embodiment plugins/my_arm"
