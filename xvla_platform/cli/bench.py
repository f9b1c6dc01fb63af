"""`xvla bench`: what steps, chunks and batches cost on this machine, the arithmetic beside every time."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xvla_platform.cli.numbers import NumberRange
from xvla_platform.cli.output import common_options, done, say, table

if TYPE_CHECKING:
    from xvla_platform.bench.cells import Cell

WHAT = ("steps", "inference", "pipeline", "end-to-end", "all")


@click.command("bench", short_help="Measure steps, chunks and batches on this machine.")
@click.argument("what", nargs=-1, type=click.Choice(WHAT))
@click.option(
    "--size",
    default="tiny",
    show_default=True,
    metavar="tiny|mid|0.9B|BASE",
    help="The model: a named size with random weights (0.9B has the released dimensions and needs 18 GB for the public "
    "recipe's step), or a base.",
)
@click.option(
    "--views",
    type=click.Choice(["2", "3"]),
    multiple=True,
    help="Image slots of the model; may be repeated. The first is measured in full, others in the prompt-only step. "
    "Default: 2.",
)
@click.option(
    "--peer-python",
    metavar="PYTHON",
    help="A Python in which 'lerobot[xvla,peft,dataset]' is installed: measures LeRobot too, and the public recipe on "
    "its classes. Without it the public recipe is taken on our own model.",
)
@click.option(
    "--plugin",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Robot whose video the input pipeline reads; by default the worked example.",
)
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where to compute."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of every process.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Measured rounds of a cell.")
@click.option(
    "--limit",
    "limit_s",
    type=NumberRange(0),
    default=600.0,
    show_default=True,
    help="Seconds after which a cell ends that has three rounds.",
)
@click.option(
    "--only", multiple=True, metavar="CELL", help="Measure this kind of cell or sampler only; may be repeated."
)
@click.option("--whole", is_flag=True, help="Take all 1,000 steps end to end, instead of extrapolating from a few.")
@click.option("--peak", "peak_tflops", type=NumberRange(0, min_open=True), help="The GPU's peak in TFLOP/s, for MFU.")
@click.option(
    "--scratch",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where the random base lies while the run lasts (3.5 GB at 0.9B); by default the temporary folder.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="The results; what is there is not repeated."
)
@common_options
def bench(
    what: tuple[str, ...],
    size: str,
    views: tuple[str, ...],
    peer_python: str | None,
    plugin: Path | None,
    device: str,
    threads: int,
    rounds: int,
    limit_s: float,
    only: tuple[str, ...],
    whole: bool,
    peak_tflops: float | None,
    scratch: Path | None,
    out: Path | None,
    workspace: Path | None,
) -> None:
    """Measure WHAT (all unless given): training steps, action chunks, the input pipeline, a whole prompt-only run.

    Every cell runs in a process of its own, one after the other. Times are CPU seconds, as the median of the rounds; on
    a GPU they are wall clock. Each ratio stands beside the ratio of the operations, which is what it could be.
    """
    from xvla_platform.bench.run import Settings, require_groups, run
    from xvla_platform.errors import XvlaError
    from xvla_platform.platform.workspace import Workspace, examples_folder

    place = Workspace.find(workspace)
    groups = require_groups(what)
    settings = Settings(
        command=shlex.join(["xvla", *sys.argv[1:]]),
        groups=groups if peer_python or len(groups) == 1 else tuple(group for group in groups if group != "pipeline"),
        size=size,
        views=tuple(int(count) for count in views) or (2,),
        peer_python=peer_python,
        plugin=plugin or examples_folder(),
        device=device,
        threads=threads,
        rounds=rounds,
        limit_s=limit_s,
        only=only,
        whole=whole,
        scratch=scratch,
        peak_tflops=peak_tflops,
    )
    if len(set(settings.views)) < len(settings.views):
        raise XvlaError("is given twice", field="--views", found=", ".join(views))
    target = out or place.runs / "bench" / f"{Path(size).name}-{device}.json"
    report = run(settings, target, _tell)
    found = report["report"]
    _show_cells(found["cells"])
    say()
    _show_ratios(found["ratios"])
    if found["chunk_difference"] is not None:
        say(f"\nour exact chunk differs from LeRobot's by at most {found['chunk_difference']:.1e} in model units")
    shown = place.shown(target) if out is None else target
    done(wrote=shown, next_command="xvla adapt --help", data={"out": str(shown), **found})


def _tell(cell: "Cell", figures: dict[str, Any] | None) -> None:
    """A line before a cell, as it may take minutes, and one with its median behind it."""
    if figures is None:
        say(f"{cell.about} …")
    else:
        say(f"  {figures['cpu_s']['median']:.4g} CPU s, {figures['memory_bytes'] / 2**30:.2f} GiB")


def _show_cells(cells: dict[str, dict[str, Any]]) -> None:
    rows = []
    for cell in cells.values():
        cpu, wall = cell["cpu_s"], cell.get("wall_s")
        note = f"extrapolated from {cell['steps_taken']} steps" if cell.get("extrapolated") else ""
        note = f"MFU {cell['mfu']:.0%}" if "mfu" in cell else note
        rows.append(
            (
                cell["about"],
                cpu["median"],
                f"{cpu['min']:.4g} - {cpu['max']:.4g}",
                wall and wall["median"],
                f"{cell['memory_bytes'] / 2**30:.2f}",
                cell["flops"] and f"{cell['flops'] / 1e9:.4g}",
                note,
            )
        )
    table(("what", "CPU s", "least - most", "wall s", "GiB", "GFLOP", ""), rows)


def _show_ratios(rows: list[dict[str, Any]]) -> None:
    shown = []
    for row in rows:
        limit = f"{row['flop_ratio']:.2f}" if "flop_ratio" in row else None
        share = f"{row['of_limit']:.0%}" if "of_limit" in row else None
        floor = None if row["floor"] is None else f"{row['floor']:.2f} {'held' if row['holds'] else 'MISSED'}"
        name = row["name"] + (" (extrapolated)" if row.get("extrapolated") else "")
        shown.append((name, f"{row['ratio']:.2f}", limit, share, floor))
    if shown:
        table(("ratio", "measured", "by arithmetic", "of it", "floor"), shown)
