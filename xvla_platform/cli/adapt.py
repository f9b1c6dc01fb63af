"""`xvla adapt`: from a registered robot to a registered adaptation."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from xvla_platform.cli.output import common_options, done, same_command, say, table
from xvla_platform.cli.plan_options import plan_options
from xvla_platform.cli.results import results_table
from xvla_platform.errors import XvlaError

# What a run keeps from its start: --resume takes none of it from the command line.
OF_THE_RUN = {
    "base_name": "--base",
    "revision": "--revision",
    "then": "--then",
    "plan": "--plan",
    "steps": "--steps",
    "batch_size": "--batch-size",
    "seed": "--seed",
    "start": "--init",
    "demonstrations": "--demonstrations",
    "reuse": "--reuse",
    "resume_if_begun": "--resume-if-begun",
}


@click.command(short_help="Teach the base a registered robot.")
@click.option(
    "--embodiment",
    "embodiments",
    required=True,
    multiple=True,
    help="A robot that `xvla add-embodiment` registered; several, each with this option, are adapted in one run.",
)
@click.option("--base", "base_name", help="Another base than the robot is registered on: registers it there first.")
@click.option("--revision", help="Commit, tag or branch of a base on the Hub.")
@plan_options
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the run.")
@click.option(
    "--init",
    "start",
    metavar="START",
    help="How the slot starts: nearest, mean, random, mixture or copy:ID; else as the plugin says.",
)
@click.option(
    "--demonstrations", type=click.IntRange(min=1), help="Learn from so many of the training episodes; else from all."
)
@click.option(
    "--reuse", is_flag=True, help="Take prompt-only stages that an earlier run of the robot finished alike, if any."
)
@click.option("--resume", is_flag=True, help="Go on with the newest interrupted run, with its own plan.")
@click.option(
    "--resume-if-begun",
    is_flag=True,
    help="Go on with an interrupted run of this very plan, if there is one, else start: for jobs that are requeued.",
)
@click.option(
    "--features",
    type=click.Choice(["auto", "cache", "on-the-fly"]),
    default="auto",
    show_default=True,
    help="Keep the frozen encoder's output, or compute it at every step; auto takes what costs less.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
@common_options
def adapt(
    embodiments: tuple[str, ...],
    base_name: str | None,
    revision: str | None,
    then: Any,
    plan: Path | None,
    steps: int | None,
    batch_size: int | None,
    seed: int | None,
    start: str | None,
    demonstrations: int | None,
    reuse: bool,
    resume: bool,
    resume_if_begun: bool,
    features: Any,
    feature_budget: float,
    dry_run: bool,
    workspace: Path | None,
) -> None:
    """Adapt the base to a robot: a prompt-only stage, then LoRA, full tuning or nothing.

    Ends with a version in registry/<robot>/: a PEFT adapter with its contract, its measured errors on held-out
    episodes and its pictures. Interrupted at any moment, it goes on with --resume. Under `torchrun` or
    `accelerate launch` all processes share each batch, and the result is that of one process but for rounding.

    Several robots take their steps together, each on its own batch and its own slot, and each gets a version of its
    own: after a prompt-only stage the one it would have got alone; LoRA and full tuning they share.
    """
    from xvla_platform.adapt.launch import machine_of, make_accelerator, on_first
    from xvla_platform.adapt.prepare import statistics_of
    from xvla_platform.adapt.run import runs_of, start_run
    from xvla_platform.adapt.stage_store import robots_store
    from xvla_platform.cli.adapt_run import run_adaptation
    from xvla_platform.platform.workspace import Workspace

    _refuse_contradictions(resume, plan)
    place = Workspace.find(workspace)
    names = sorted(set(embodiments))
    accelerator = make_accelerator(together=True)
    choices = {
        "then": then,
        "plan": plan,
        "steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "start": start,
        "demonstrations": demonstrations,
    }

    def prepare() -> Any:
        """Everything that can be refused, on the first process; then the run's folder."""
        records = [_on_base(place, name, base_name, revision, dry_run) for name in names]
        run, planned, records, estimate = _plan(place, records, choices, resume, resume_if_begun, accelerator)
        begun = run is not None
        root = runs_of(place, names)
        statistics = {name: statistics_of(place, name) for name in names} if run is None else run.statistics
        store = robots_store(root, records, statistics, machine_of(accelerator))
        known = [] if begun else store.known(planned)
        if known and not reuse:
            say(f"note      an earlier run finished stage {', '.join(known)} alike; --reuse takes it from there")
        if not dry_run and run is None:
            run = start_run(root, records, planned, statistics)
            if known and reuse:
                store.lend(run)
                say(f"reuse     stage {', '.join(known)} of an earlier run with the same robot, data, base and plan")
        return run, begun, planned, estimate, store

    run, begun, planned, estimate, store = on_first(accelerator, prepare)
    if dry_run:
        if accelerator.is_main_process:
            data = {"plan": planned.model_dump(mode="json"), "estimate": estimate}
            done(next_command=same_command(without="--dry-run"), data=data)
        return
    adaptations = run_adaptation(
        place,
        run,
        accelerator,
        resume=begun,
        features=features,
        budget_gb=feature_budget,
        stage_finished=lambda index: store.keep(run, index),
    )
    if accelerator.is_main_process:
        _show(place, run, adaptations)


def _show(place: Any, run: Any, adaptations: Any) -> None:
    """The table of every robot, where all of it lies, and what comes next."""
    from xvla_platform.cli.results import read_results

    wrote: list[str] = []
    every: list[dict[str, Any]] = []
    for adaptation in adaptations:
        results = read_results(adaptation.folder)
        if len(adaptations) > 1:
            say(f"robot     {adaptation.name}")
        table(*results_table(results))
        say(f"measured on {results['test_frames']} frames of {results['test_episodes']} held-out episodes")
        shown = place.shown(adaptation.folder)
        wrote += [shown, f"{shown}/trajectories.png"]
        every.append({"adaptation": adaptation.label, "results": results})
    done(
        wrote=[*wrote, place.shown(run.folder)],
        next_command="xvla push",
        data=every[0] if len(every) == 1 else {"adaptations": every},
    )


def _plan(
    place: Any, records: list[Any], choices: dict[str, Any], resume: bool, if_begun: bool, accelerator: Any
) -> tuple[Any, Any, list[Any], dict[str, Any]]:
    """The interrupted run to go on with, if that is asked for, the plan, the records it holds for, and its estimate.

    Announced, and refused if it cannot be.
    """
    from xvla_platform.adapt.plans import choose_plan
    from xvla_platform.adapt.prepare import open_base, open_demonstrations
    from xvla_platform.adapt.run import find_unfinished, newest_unfinished, runs_of
    from xvla_platform.adapt.start import check_start, one_group
    from xvla_platform.cli.adapt_estimate import show_estimate
    from xvla_platform.platform.records import plugin_folder

    records, run = one_group(records), None
    root = runs_of(place, [record.spec.name for record in records])
    if resume:
        run = newest_unfinished(root)
        plan, source = run.plan, f"the interrupted run {place.shown(run.folder)}"
        if list(run.records) != records:
            say("note      the robot was registered again since; the run keeps what it started with")
        records = list(run.records)
    base = open_base(records[0], place)
    if run is None:
        folder = plugin_folder(place, records[0])
        plan, source = choose_plan(base.folder, plugin=folder if folder.is_dir() else None, **choices)
        run = find_unfinished(root, plan, records) if if_begun else None
        if run is not None:
            say(f"resume    {place.shown(run.folder)}, an interrupted run of this plan")
    for record in records:
        check_start(record, base, plan, open_demonstrations(place, record), accelerator.num_processes)
    announce(records, base, plan, source, accelerator.num_processes)
    estimate = show_estimate(records, base, plan, accelerator)
    unfinished = None if run is not None else find_unfinished(root)
    if unfinished is not None:
        again = " ".join(f"--embodiment {record.spec.name}" for record in records)
        say(
            f"note      {place.shown(unfinished.folder)} was not finished;"
            f" `xvla adapt {again} --resume` goes on with it"
        )
    return run, plan, records, estimate


def _refuse_contradictions(resume: bool, plan: Path | None) -> None:
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
    if plan is not None and "--then" in given:
        raise XvlaError("--plan names every stage itself", field="--then", hint="leave --plan or --then out")


def _on_base(place: Any, embodiment: str, name: str | None, revision: str | None, dry_run: bool) -> Any:
    """The record on the base asked for: registered there first, or with a dry run only as it would be."""
    from xvla_platform.adapt.prepare import statistics_of
    from xvla_platform.data.binding import Binding
    from xvla_platform.platform.bases import resolve_base
    from xvla_platform.platform.embodiments import add_embodiment, base_ref, base_space
    from xvla_platform.platform.plugins import load_plugin
    from xvla_platform.platform.records import load_embodiment, plugin_folder
    from xvla_platform.platform.slots import allocate_slot

    record = load_embodiment(place, embodiment)
    if revision is None and name in (None, record.base.id):
        return record
    base = resolve_base(record.base.id if name is None else name, revision, place.root)
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


def announce(records: list[Any], base: Any, plan: Any, source: str, processes: int) -> None:
    """Every inherited or defaulted choice, with its source, before compute is spent."""
    from xvla_platform.adapt.start import stages_in_loop

    in_loop = stages_in_loop(plan, base)
    for record in records:
        name, data = record.spec.name, record.data
        say(f"robot     {name}: {data.episodes} episodes, {data.frames} frames; slot {record.slot.domain_id}")
    say(f"base      {base.id}, weights {base.fingerprint[:12]}")
    say(f"plan      {plan.name} (from {source}), seed {plan.seed}")
    if plan.start is None:
        starts = {record.spec.name: record.spec.prompt.init for record in records}
        each = ", ".join(f"{init} ({name}'s plugin)" for name, init in starts.items())
        say(f"start     {each}")
    else:
        say(f"start     {plan.start.init} (from the plan)")
    if processes > 1:
        say(f"processes {processes}, which share every batch")
    several = len(records) > 1
    for stage in plan.stages:
        rates = ", ".join(f"{group} {rate:g}" for group, rate in stage.lr.items())
        where = "encoder in the loop" if stage.name in in_loop else "cached features"
        each = " for each robot" if several else ""
        say(f"          {stage.name}: {stage.steps} steps of {stage.batch_size}{each}, {where}; lr {rates}")
        if several:
            say(f"          {stage.name}: {_shared(stage)}")


def _shared(stage: Any) -> str:
    """What robots in one run have in common in a stage."""
    if stage.lora is not None:
        return "one LoRA adapter for all of them; each version carries it"
    if {"transformer_core", "vlm"} & set(stage.lr):
        return "one set of base weights for all of them; each version carries it"
    return "slots apart; each robot gets what it would have got alone"
