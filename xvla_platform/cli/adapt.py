"""`xvla adapt`: from a registered robot to a registered adaptation."""

import os
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from xvla_platform.cli.output import common_options, done, say, table
from xvla_platform.cli.results import results_table
from xvla_platform.errors import XvlaError

# What a run keeps from its start: --resume takes none of it from the command line.
OF_THE_RUN = {
    "base_name": "--base",
    "revision": "--revision",
    "then": "--then",
    "plan_file": "--plan",
    "steps": "--steps",
    "batch_size": "--batch-size",
    "seed": "--seed",
}


@click.command(short_help="Teach the base a registered robot.")
@click.option("--embodiment", required=True, help="A robot that `xvla add-embodiment` registered.")
@click.option("--base", "base_name", help="Another base than the robot is registered on: registers it there first.")
@click.option("--revision", help="Commit, tag or branch of a base on the Hub.")
@click.option(
    "--then",
    type=click.Choice(["lora", "full", "none"]),
    default="lora",
    show_default=True,
    help="What follows the prompt-only stage.",
)
@click.option("--plan", "plan_file", type=click.Path(path_type=Path, dir_okay=False), help="A plan of your own (YAML).")
@click.option("--steps", type=click.IntRange(min=1), help="Steps of every stage.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples a step, over all processes.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the run.")
@click.option("--resume", is_flag=True, help="Go on with the newest interrupted run, with its own plan.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
@common_options
def adapt(
    embodiment: str,
    base_name: str | None,
    revision: str | None,
    then: Any,
    plan_file: Path | None,
    steps: int | None,
    batch_size: int | None,
    seed: int | None,
    resume: bool,
    dry_run: bool,
    workspace: Path | None,
) -> None:
    """Adapt the base to a robot: a prompt-only stage, then LoRA, full tuning or nothing.

    Ends with a version in registry/<robot>/: a PEFT adapter with its contract, its measured errors on held-out
    episodes and its pictures. Interrupted at any moment, it goes on with --resume.
    """
    from xvla_platform.adapt.engine import check_start
    from xvla_platform.adapt.plans import choose_plan
    from xvla_platform.adapt.prepare import open_base, open_demonstrations, statistics_of
    from xvla_platform.adapt.run import find_unfinished, newest_unfinished, start_run
    from xvla_platform.platform.records import load_embodiment
    from xvla_platform.platform.workspace import Workspace

    _refuse_contradictions(resume, plan_file)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise XvlaError(
            "`xvla adapt` runs in one process", field="WORLD_SIZE", found=os.environ["WORLD_SIZE"], allowed="1"
        )
    place = Workspace.find(workspace)
    record = load_embodiment(place, embodiment)
    record = _on_base(place, record, base_name, revision, dry_run)
    root = place.runs / embodiment
    run = None
    if resume:
        run = newest_unfinished(root)
        plan, source = run.plan, f"the interrupted run {place.shown(run.folder)}"
        if run.record != record:
            say("note      the robot was registered again since; the run keeps what it started with")
        record = run.record
    base = open_base(record, place)
    if run is None:
        plan, source = choose_plan(
            base.folder, then=then, file=plan_file, steps=steps, batch_size=batch_size, seed=seed
        )
    reader = open_demonstrations(place, record)
    check_start(record, base, plan, reader)
    _announce(record, base, plan, source)
    unfinished = None if resume else find_unfinished(root)
    if unfinished is not None:
        say(
            f"note      {place.shown(unfinished.folder)} was not finished;"
            f" `xvla adapt --embodiment {embodiment} --resume` goes on with it"
        )
    if dry_run:
        done(next_command=f"xvla adapt --embodiment {embodiment}", data={"plan": plan.model_dump(mode="json")})
        return
    run = run or start_run(root, record, plan, statistics_of(place, embodiment))
    adaptation = _run(place, record, base, reader, run, resume)
    from xvla_platform.platform.files import read_json

    results = read_json(adaptation.folder / "metrics.json")
    table(*results_table(results))
    say(f"measured on {results['test_frames']} frames of {results['test_episodes']} held-out episodes")
    shown = place.shown(adaptation.folder)
    done(
        wrote=[shown, f"{shown}/trajectories.png", place.shown(run.folder)],
        next_command="xvla push",
        data={"adaptation": adaptation.label, "results": results},
    )


def _refuse_contradictions(resume: bool, plan_file: Path | None) -> None:
    context = click.get_current_context()
    given = [
        flag
        for name, flag in OF_THE_RUN.items()
        if context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)
    ]
    if resume and given:
        raise XvlaError(
            "--resume goes on with the interrupted run's own base and plan",
            field=given[0],
            hint=f"leave {given[0]} out",
        )
    if plan_file is not None and "--then" in given:
        raise XvlaError("--plan names every stage itself", field="--then", hint="leave --plan or --then out")


def _on_base(place: Any, record: Any, name: str | None, revision: str | None, dry_run: bool) -> Any:
    """The record on the base asked for: registered there first, or with a dry run only as it would be."""
    from xvla_platform.adapt.prepare import statistics_of
    from xvla_platform.data.binding import Binding
    from xvla_platform.platform.bases import resolve_base
    from xvla_platform.platform.embodiments import add_embodiment, base_ref, base_space
    from xvla_platform.platform.plugins import load_plugin
    from xvla_platform.platform.records import plugin_folder
    from xvla_platform.platform.slots import allocate_slot

    if revision is None and name in (None, record.base.id):
        return record
    base = resolve_base(name or record.base.id, revision, place.root)
    ref = base_ref(place, base)
    if (ref.id, ref.revision) == (record.base.id, record.base.revision):
        return record
    at = f" at {base.revision[:12]}" if base.revision else ""
    if not dry_run:
        say(f"base      {base.id}{at}: registering {record.spec.name} on it")
        return add_embodiment(place, load_plugin(plugin_folder(place, record)), base=base)
    say(f"base      {base.id}{at}: {record.spec.name} would be registered on it")
    space = base_space(base)
    statistics = statistics_of(place, record.spec.name)
    folder = place.embodiments / record.spec.name
    Binding(record.spec, space, base.rotation_layout, statistics, folder=folder)
    slot = allocate_slot(base, place, record.spec.name)
    changes = {"base": ref, "slot": slot, "action_space": space.name, "rotation_layout": base.rotation_layout}
    return record.model_copy(update=changes)


def _announce(record: Any, base: Any, plan: Any, source: str) -> None:
    """Every inherited or defaulted choice, with its source, before compute is spent."""
    from xvla_platform.adapt.engine import stages_in_loop

    in_loop = stages_in_loop(plan, base)
    say(f"robot     {record.spec.name}: {record.data.episodes} episodes, {record.data.frames} frames")
    say(f"base      {base.id}, weights {base.fingerprint[:12]}; slot {record.slot.domain_id}")
    say(f"plan      {plan.name} (from {source}), seed {plan.seed}")
    for stage in plan.stages:
        rates = ", ".join(f"{group} {rate:g}" for group, rate in stage.lr.items())
        where = "encoder in the loop" if stage.name in in_loop else "cached features"
        say(f"          {stage.name}: {stage.steps} steps of {stage.batch_size}, {where}; lr {rates}")


def _run(place: Any, record: Any, base: Any, reader: Any, run: Any, resume: bool) -> Any:
    from xvla_platform.adapt.engine import Setting
    from xvla_platform.adapt.engine import adapt as run_adaptation
    from xvla_platform.adapt.launch import make_accelerator
    from xvla_platform.adapt.loop import Observers
    from xvla_platform.adapt.run import RunLog
    from xvla_platform.cli.progress import Bars
    from xvla_platform.platform.plugins import build_manager
    from xvla_platform.platform.records import plugin_folder

    folder = plugin_folder(place, record)
    manager = build_manager(folder if folder.is_dir() else None)
    accelerator = make_accelerator()
    log = RunLog(run.folder, [stage.name for stage in run.plan.stages])
    try:
        with Bars() as bars:
            setting = Setting(
                workspace=place,
                record=record,
                base=base,
                reader=reader,
                statistics=run.statistics,
                run=run,
                accelerator=accelerator,
                observer=Observers(bars, log, HookObserver(manager, run.folder)),
                progress=bars.task,
                note=lambda line: say(f"          {line}"),
                started=lambda: manager.hook.adaptation_started(record=record, run_folder=run.folder),
            )
            adaptation = run_adaptation(setting, resume=resume)
    finally:
        log.close()
    manager.hook.adaptation_finished(manifest=adaptation.manifest, folder=adaptation.folder)
    return adaptation


class HookObserver:
    """Passes the loop's events on to plugins."""

    def __init__(self, manager: Any, run_folder: Path) -> None:
        self._hook = manager.hook
        self._folder = run_folder

    def stage_started(self, stage: Any, index: int, start: int, trained: Any) -> None:
        """To `stage_started` of every plugin."""
        self._hook.stage_started(stage=stage, run_folder=self._folder)

    def step_finished(self, stage: Any, step: int, metrics: Any) -> None:
        """To `step_finished` of every plugin."""
        self._hook.step_finished(stage=stage, step=step, metrics=dict(metrics))
