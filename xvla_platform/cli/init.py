"""`xvla init [FOLDER]`: a workspace with the worked example in it."""

from pathlib import Path

import click

from xvla_platform.cli.output import common_options, done


@click.command(short_help="Make a folder a workspace, with the worked example.")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@common_options
def init(folder: Path | None, workspace: Path | None) -> None:
    """Make FOLDER (or the current one) a workspace: xvla.yaml, plugins/, embodiments/, registry/.

    What exists already is kept as it is.
    """
    from xvla_platform.platform.workspace import CONFIG_NAME
    from xvla_platform.platform.workspace import init as make_workspace

    target = folder or workspace or Path.cwd()
    made = make_workspace(target)
    inside = made.root == Path.cwd().resolve()
    command = "xvla add-embodiment plugins/my_arm"
    done(
        wrote=made.root / CONFIG_NAME,
        next_command=command if inside else f"cd {made.root} && {command}",
        data={"workspace": str(made.root)},
    )
