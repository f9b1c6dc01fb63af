"""Adds ``xvla record`` and the simulated robots' environment. Imports nothing heavy until they are used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from xvla_platform.errors import XvlaError
from xvla_platform.hooks import hookimpl
from xvla_platform.platform.hookspecs import Environment


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add the command to the ``xvla`` group."""
    cli.add_command(record)


@hookimpl
def register_environments() -> Iterable[Environment]:
    """The table of every robot that has a ``sim.yaml`` beside its ``plugin.yaml``."""
    return [
        Environment(
            name="robosuite",
            make="xvla_platform.sim.gym_env:make",
            summary="the simulated robot at its table (extra: sim)",
            fits=lambda _spec, folder: (folder / "sim.yaml").is_file(),
        )
    ]


@click.command(short_help="Record demonstrations of a simulated robot (extra: sim).")
@click.argument("plugin", type=click.Path())
@click.option(
    "--task",
    type=click.Choice(["pick", "place", "stack", "all"]),
    default="pick",
    show_default=True,
    help="What is asked; all: the tasks take turns in the same scenes.",
)
@click.option("--episodes", type=int, default=60, show_default=True, help="How many demonstrations.")
@click.option(
    "--per-scene", type=int, default=3, show_default=True, help="Instructions played in one scene, one a cube."
)
@click.option(
    "--slips",
    type=float,
    default=0.0,
    show_default=True,
    help="Share of scenes that begin as after a slip: closed on nothing, or the cube beside its place.",
)
@click.option("--still-scenes", type=int, default=None, help="Record this many motionless scenes instead (grounding).")
@click.option(
    "--rig",
    type=int,
    default=0,
    show_default=True,
    help="Draw other camera poses from this number; the dataset lies below rigs/. 0: as in sim.yaml.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Scene i is drawn from seed + i.")
@click.option("--workers", type=int, default=1, show_default=True, help="Processes; the result is the same.")
@click.option("--overwrite", is_flag=True, help="Replace an existing dataset.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def record(context: click.Context, plugin: str, **options: Any) -> None:
    """Record a scripted expert on the simulated robot of PLUGIN (a folder with plugin.yaml and sim.yaml).

    Writes a LeRobotDataset v3.0 where plugin.yaml's dataset.path says, in the robot's own units and frames.
    """
    if options["still_scenes"] is not None:
        for name in ("episodes", "per_scene", "slips"):
            if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
                raise XvlaError(
                    "says how demonstrations are recorded, and still scenes have none",
                    field=f"--{name.replace('_', '-')}",
                    found=options[name],
                    hint="leave it out, or leave out --still-scenes",
                )
    from xvla_platform.sim.command import run

    run(plugin, **options)
