"""Body of ``xvla record``: progress bar, summary, next command."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

from xvla_platform.sim.backend import require_simulator


def run(
    plugin: str,
    *,
    task: str,
    episodes: int,
    per_scene: int,
    slips: float,
    still_scenes: int | None,
    rig: int,
    seed: int,
    workers: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Record, then print what was written."""
    require_simulator()
    from xvla_platform.sim.recording import record_demonstrations, record_still_scenes

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        Remaining(),
    )
    # The bar goes to stderr, so that stdout holds the result alone.
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=as_json or not console.is_terminal) as bar:
        row = bar.add_task("episodes", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(row, completed=done, total=total)

        if still_scenes is None:
            summary = record_demonstrations(
                plugin,
                task=task,
                episodes=episodes,
                per_scene=per_scene,
                slips=slips,
                rig=rig,
                seed=seed,
                workers=workers,
                overwrite=overwrite,
                progress=advance,
            )
        else:
            summary = record_still_scenes(
                plugin,
                task=task,
                layouts=still_scenes,
                rig=rig,
                seed=seed,
                workers=workers,
                overwrite=overwrite,
                progress=advance,
            )
    following = f"xvla add-embodiment {plugin}"
    if rig or still_scenes is not None:
        following = "xvla pretrain RECIPE, with the dataset's folder as data of one of the recipe's domains"
    if as_json:
        click.echo(json.dumps({**summary.as_dict(), "next": following}, indent=2, sort_keys=True))
        return
    click.echo(f"wrote {summary.dataset}")
    click.echo(f"wrote {summary.contact_sheet}")
    click.echo(
        f"{summary.episodes} episodes, {summary.frames} frames from {summary.layouts} scenes, "
        f"{summary.bytes / 1e6:.1f} MB, {summary.seconds:.0f} s"
    )
    if still_scenes is None:
        rates = ", ".join(f"{name} {100 * rate:.0f} %" for name, rate in summary.success_rate.items())
        click.echo(f"the expert succeeded in {rates} of its attempts; {summary.dropped_layouts} scenes dropped")
    click.echo(f"next: {following}")
