"""`xvla push [NAME]`: share an adaptation."""

from pathlib import Path

import click

from xvla_platform.cli.output import common_options, done, say, size_text


@click.command(short_help="Share an adaptation on the Hub or in a folder.")
@click.argument("name", required=False)
@click.option("--to", metavar="USER/NAME | dir:FOLDER", help="Where to; else <you>/xvla-<robot> on the Hub.")
@click.option("--public", is_flag=True, help="Let everyone see it; a new repository is private otherwise.")
@common_options
def push(name: str | None, to: str | None, public: bool, workspace: Path | None) -> None:
    """Share NAME (`my_arm` or `my_arm/v2`); without it, the newest adaptation that was never pushed.

    The folder is verified first, and what was shared is recorded beside it.
    """
    from xvla_platform.platform.sharing import push as share
    from xvla_platform.platform.workspace import Workspace

    place = Workspace.find(workspace)
    adaptation, receipt = share(place, name, to, public)
    is_folder = receipt.location.startswith("dir:")
    seen = "in that folder" if is_folder else "public" if public else "private"
    verb = "was there already" if receipt.already_there else "pushed"
    say(f"{adaptation.label} ({size_text(adaptation.size)}) {verb}: {receipt.location}, {seen}")
    say(f"revision  {receipt.revision}")
    source = receipt.location if is_folder else f"{receipt.location}@{receipt.revision}"
    done(
        wrote=place.shown(adaptation.folder.with_name(f"v{adaptation.version}.pushes.json")),
        next_command=f"xvla pull {source}   (in another workspace)",
        data={
            "adaptation": adaptation.label,
            "to": receipt.location,
            "revision": receipt.revision,
            "already_there": receipt.already_there,
        },
    )
