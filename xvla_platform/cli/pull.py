"""`xvla pull SOURCE`: bring a shared adaptation into this workspace."""

from pathlib import Path

import click

from xvla_platform.cli.output import common_options, done, say, size_text


@click.command(short_help="Bring a shared adaptation into this workspace.")
@click.argument("source", metavar="USER/NAME[@REVISION] | dir:FOLDER[@vN]")
@common_options
def pull(source: str, workspace: Path | None) -> None:
    """Download an adaptation, verify every file, and only then place it in registry/.

    Nothing that was downloaded is executed: an adaptation is plain data.
    """
    from xvla_platform.platform.sharing import pull as fetch
    from xvla_platform.platform.workspace import Workspace

    place = Workspace.find(workspace)
    result = fetch(place, source)
    adaptation = result.adaptation
    state = "is here already, byte for byte" if result.already_here else "verified and placed"
    say(f"{adaptation.label} ({size_text(adaptation.size)}) {state}")
    if result.slot_holder:
        say(
            f"note: its prompt slot belongs to '{result.slot_holder}' here, so the robot was not registered; "
            "`xvla add-embodiment` gives it a slot of its own"
        )
    folder = place.shown(adaptation.folder)
    wrote = [] if result.already_here else [folder]
    if result.record_written:
        wrote.append(place.shown(place.embodiments / adaptation.name))
    done(
        wrote=wrote,
        next_command=f"xvla eval {adaptation.label}",
        data={
            "adaptation": adaptation.label,
            "revision": result.revision,
            "already_here": result.already_here,
            "folder": folder,
        },
    )
