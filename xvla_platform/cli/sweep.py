"""`xvla sweep`: many adaptations of one robot over one cache, and which of them is best."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from xvla_platform.cli.output import common_options, done, same_command, say, table
from xvla_platform.cli.plan_options import plan_options
from xvla_platform.errors import XvlaError


@click.command(short_help="Adapt to a robot in many ways, and compare them.")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--embodiment", required=True, help="A robot that `xvla add-embodiment` registered.")
@click.option(
    "--grid",
    "grids",
    multiple=True,
    metavar="NAME=VALUE,VALUE",
    help="A setting and its values: then, init, seed, steps, batch_size, rank, alpha, targets (policy, everywhere), or"
    " a stage's own, such as prompt.lr.soft_prompts or lora.lr.lora. With several, every combination is a cell.",
)
@plan_options
@click.option("--name", help="Name of the sweep, which its versions carry; else sweep-NNN.")
@click.option("--resume", is_flag=True, help="Go on with the newest interrupted sweep of the robot.")
@click.option(
    "--features",
    type=click.Choice(["cache", "on-the-fly"]),
    default="cache",
    show_default=True,
    help="Keep the frozen encoder's output for all cells, or compute it at every step.",
)
@click.option("--dry-run", is_flag=True, help="Show the cells and what they cost, and stop.")
@common_options
def sweep(
    file: Path | None,
    embodiment: str,
    grids: tuple[str, ...],
    then: Any,
    plan: Path | None,
    steps: int | None,
    batch_size: int | None,
    name: str | None,
    resume: bool,
    features: Any,
    feature_budget: float,
    dry_run: bool,
    workspace: Path | None,
) -> None:
    """Adapt a robot once for every combination of a grid's values, from --grid or a FILE (sweep.yaml).

    Every cell becomes a version in registry/<robot>/ that says which sweep and cell it is. Stages that cells have in
    common are computed once. The best is the one of lowest error on the validation episodes; its error on the test
    episodes, which no choice has seen, stands beside it. Interrupted at any moment, it goes on with --resume.
    """
    from xvla_platform.adapt.launch import machine_of, make_accelerator, on_first
    from xvla_platform.adapt.sweep import start_sweep, unfinished_sweep
    from xvla_platform.platform.records import load_embodiment
    from xvla_platform.platform.workspace import Workspace

    _refuse_contradictions(resume, file, grids, plan)
    place = Workspace.find(workspace)
    accelerator = make_accelerator(together=True)
    machine = machine_of(accelerator)
    choices = {"then": then, "plan": plan, "steps": steps, "batch_size": batch_size}

    def prepare() -> Any:
        """Everything that can be refused, on the first process; then the sweep's folder."""
        record = load_embodiment(place, embodiment)
        if resume:
            found = unfinished_sweep(place, record)
            _announce(place, record, list(found.cells), machine, accelerator)
            return record, found, list(found.cells)
        label, cells = _cells(place, record, file, grids, name, choices, accelerator.num_processes)
        _announce(place, record, cells, machine, accelerator)
        return record, None if dry_run else start_sweep(place, record, label, cells, features), cells

    record, found, cells = on_first(accelerator, prepare)
    if not dry_run:
        results = _run_cells(place, record, found, accelerator, machine, feature_budget)
    if not accelerator.is_main_process:
        return
    if dry_run:
        data = {"cells": [{"values": cell.values, "plan": cell.plan.model_dump(mode="json")} for cell in cells]}
        done(next_command=same_command(without="--dry-run"), data=data)
        return
    _show(place, found, results)


def _refuse_contradictions(resume: bool, file: Path | None, grids: tuple[str, ...], plan: Path | None) -> None:
    context = click.get_current_context()
    own = {"file": "FILE", "grids": "--grid", "then": "--then", "plan": "--plan", "steps": "--steps"}
    own |= {"batch_size": "--batch-size", "name": "--name", "features": "--features"}
    given = [
        flag for name, flag in own.items() if context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)
    ]
    if resume and given:
        raise XvlaError(
            "--resume goes on with the interrupted sweep's own cells", field=given[0], hint=f"leave {given[0]} out"
        )
    if not resume and bool(file) == bool(grids):
        raise XvlaError(
            "a sweep takes its grid from a file or from --grid",
            field="--grid",
            found="both" if file else "neither",
            hint="for example --grid rank=4,8 --grid init=nearest,mixture",
        )
    if plan is not None and "--then" in given:
        raise XvlaError("--plan names every stage itself", field="--then", hint="leave --plan or --then out")


def _cells(
    place: Any,
    record: Any,
    file: Path | None,
    grids: tuple[str, ...],
    name: str | None,
    choices: dict[str, Any],
    processes: int,
) -> tuple[str | None, list[Any]]:
    """The sweep's name and its cells, every one of them refused now if it could not run."""
    from xvla_platform.adapt.grid import parse_grid, plan_cells
    from xvla_platform.adapt.prepare import open_base, open_demonstrations
    from xvla_platform.adapt.start import check_start
    from xvla_platform.platform.records import plugin_folder
    from xvla_platform.specs.base import load_model, validate_model
    from xvla_platform.specs.sweep import SweepSpec

    if file is not None:
        spec = load_model(SweepSpec, file)
    else:
        spec = validate_model(SweepSpec, {"grid": parse_grid(grids)}, "--grid")
    spec = validate_model(SweepSpec, {**spec.model_dump(), "name": name or spec.name}, "--name")
    source = click.get_current_context().get_parameter_source("then")
    if "then" in spec.grid and source is not ParameterSource.DEFAULT:
        raise XvlaError("is in the grid and an option as well", field="then", hint="leave one of them out")
    base = open_base(record, place)
    folder = plugin_folder(place, record)
    cells = plan_cells(base.folder, spec.grid, {**choices, "plugin": folder if folder.is_dir() else None})
    reader = open_demonstrations(place, record)
    for cell in cells:
        check_start(record, base, cell.plan, reader, processes)
    return spec.name, cells


def _announce(place: Any, record: Any, cells: list[Any], machine: str, accelerator: Any) -> None:
    """The cells and what each adds, before compute is spent."""
    from xvla_platform.adapt.estimate import flops_per_second
    from xvla_platform.adapt.prepare import open_base
    from xvla_platform.adapt.stage_store import stage_key
    from xvla_platform.adapt.start import stages_in_loop
    from xvla_platform.adapt.sweep import new_work
    from xvla_platform.modelling.config import XVLAConfig
    from xvla_platform.modelling.flops import count_flops
    from xvla_platform.modelling.processor import Processor

    base = open_base(record, place)
    config = XVLAConfig.from_folder(base.folder)
    flops = count_flops(config, Processor.from_folder(base.folder, config).size)
    keys = [[stage_key(cell.plan, i, machine) for i in range(len(cell.plan.stages))] for cell in cells]
    work = new_work(cells, flops, [stages_in_loop(cell.plan, base) for cell in cells], keys)
    speed = flops_per_second(config, accelerator.device) * accelerator.num_processes
    say(f"robot     {record.spec.name}: {record.data.episodes} episodes; slot {record.slot.domain_id} of {base.id}")
    rows = [
        (i, cell.label, sum(stage.steps for stage in cell.plan.stages), own / 1e12, own / speed / 60)
        for i, (cell, own) in enumerate(zip(cells, work, strict=True), start=1)
    ]
    table(("cell", "values", "steps", "new TFLOP", "about min"), rows)
    shared = sum(map(len, keys)) - len({key for own in keys for key in own})
    say(
        f"total     {len(cells)} cells, {sum(work) / 1e12:.3g} TFLOP,"
        f" about {sum(work) / speed / 60:.3g} min of training;"
        f" {shared} stages are those of another cell and not computed again"
    )


def _run_cells(place: Any, record: Any, found: Any, accelerator: Any, machine: str, budget_gb: float) -> list[Any]:
    """Every cell's result, in the cells' order; what is finished already is not run again."""
    from xvla_platform.adapt.launch import on_first
    from xvla_platform.adapt.prepare import statistics_of
    from xvla_platform.adapt.stage_store import StageStore
    from xvla_platform.adapt.sweep import result_of
    from xvla_platform.cli.adapt_run import run_adaptation

    store = StageStore(folder=found.folder / "stages", machine=machine)
    results = []
    for number, cell in enumerate(found.cells, start=1):

        def open_run(cell: Any = cell) -> Any:
            run = found.run_of(cell)
            begun = run is not None
            if run is None:
                run = found.begin(cell, record, statistics_of(place, record.spec.name))
            finished = run.state.get("adaptations")
            if run.state["status"] == "running":
                for index in range(len(run.finished_stages)):
                    if run.has_stage(index):
                        store.keep(run, index)  # killed between the two
                store.lend(run)
                finished = None
            return run, begun, finished

        run, begun, finished = on_first(accelerator, open_run)
        if accelerator.is_main_process:
            say(f"cell      {number} of {len(found.cells)}: {cell.label}")
        if finished is None:
            (adaptation,) = run_adaptation(
                place,
                run,
                accelerator,
                resume=begun,
                features=found.features,
                budget_gb=budget_gb,
                stage_finished=lambda index, run=run: store.keep(run, index),  # type: ignore[misc]
            )
            finished = [adaptation.label]
        if accelerator.is_main_process:
            results.append(result_of(place, cell, finished[0]))
            say(f"          {finished[0]}: validation error {results[-1].validation_error:.4f}")
    return results


def _show(place: Any, found: Any, results: list[Any]) -> None:
    """The table and the picture, best first."""
    import shutil

    from xvla_platform.evaluation.sweep_plot import plot_sweep

    ranked = sorted(results, key=lambda result: result.validation_error)
    units = ranked[0].units
    headers = ["cell", "version", "validation", "test", *(f"{field} [{unit}]" for field, unit in units.items())]
    table(
        headers,
        [
            [r.cell.label, r.adaptation, r.validation_error, r.test_error, *(r.errors[field] for field in units)]
            for r in ranked
        ],
    )
    best = ranked[0]
    say("errors    relative to the mean action's; fields: on the test episodes")
    say(f"best      {best.adaptation} ({best.cell.label}), by its validation error")
    picture = found.folder / "errors.png"
    plot_sweep(
        picture,
        [result.cell.label for result in ranked],
        [result.validation_error for result in ranked],
        [result.test_error for result in ranked],
        title=f"{best.adaptation.partition('/')[0]}: {found.name}",
    )
    found.update(status="finished", best=best.adaptation, results=[result.as_dict() for result in ranked])
    shutil.rmtree(found.folder / "stages", ignore_errors=True)
    done(
        wrote=[place.shown(picture), place.shown(found.folder / "sweep.json")],
        next_command=f"xvla show {best.adaptation}",
        data={"sweep": found.name, "best": best.adaptation, "cells": [result.as_dict() for result in ranked]},
    )
