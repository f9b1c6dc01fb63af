"""`xvla eval --closed-loop`: a policy acts in an environment; what is counted, shown and written."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xvla_platform.cli.output import Function, done, say, table

if TYPE_CHECKING:
    from xvla_platform.closed_loop.conditions import Condition, Material
    from xvla_platform.closed_loop.results import ClosedLoopResult
    from xvla_platform.closed_loop.sources import EnvironmentSource, PolicySource
    from xvla_platform.platform.workspace import Workspace

OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--closed-loop", is_flag=True, help="Let the policy act in an environment, and count successes."),
    click.option("--env", "env_name", metavar="NAME", help="The environment, where several have the robot."),
    click.option(
        "--env-option",
        "env_options",
        metavar="KEY=VALUE",
        multiple=True,
        help="An option of the environment; may be repeated.",
    ),
    click.option("--tasks", metavar="A,B", help="Tasks of the environment; all by default."),
    click.option(
        "--episodes", type=click.IntRange(min=1), default=50, show_default=True, help="Episodes of each task."
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Episode i is reset with seed + i."
    ),
    click.option(
        "--execute-s",
        type=float,
        help="Seconds of each chunk to carry out; by default all of it, half where chunks are blended.",
    ),
    click.option("--execute-steps", type=int, help="The same in control ticks."),
    click.option(
        "--blend",
        type=click.Choice(["none", "linear", "exponential"]),
        default="none",
        show_default=True,
        help="How a new chunk takes over from those before it.",
    ),
    click.option(
        "--latency-ms",
        type=float,
        default=0.0,
        show_default=True,
        help="Age of the observation when its chunk is ready; the chunk before it goes on meanwhile.",
    ),
    click.option("--time-limit", type=float, help="Seconds an episode may last; the environment's by default."),
    click.option(
        "--films", type=click.IntRange(min=0), default=3, show_default=True, help="Episodes of each task to film."
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Processes; the outcome is the same.",
    ),
    click.option(
        "--init",
        metavar="ROWS",
        help="For ROBOT/base: nearest, mean, random, or a pretrained robot, whose rows the slot has.",
    ),
    click.option("--robot", metavar="NAME", help="Drive this registered robot instead, from its own pretrained rows."),
    click.option(
        "--ablate",
        metavar="INPUTS",
        help="Change one input at a time: prompt,vision,language, or one kind as prompt:zero.",
    ),
]


OF_BOTH = ("ablate", "robot", "init")  # what also says whom to measure on recorded frames


def closed_loop_options(function: Function) -> Function:
    """The options of `xvla eval` that concern acting and ablations."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def refuse_alone(options: dict[str, Any]) -> None:
    """Refuse options of acting where the policy is to be measured on recorded frames only."""
    from click.core import ParameterSource

    from xvla_platform.errors import XvlaError

    context = click.get_current_context()
    given = [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        option = "--" + given[0].replace("_", "-").replace("env-name", "env").replace("env-options", "env-option")
        where = "--closed-loop or --ablate" if given[0] in OF_BOTH else "--closed-loop"
        raise XvlaError(f"{option} belongs to {where}", hint="add --closed-loop")


def source_asked_for(
    place: "Workspace", target: str, *, data: Path | None, base: str | None, sampler: str, options: dict[str, Any]
) -> "PolicySource":
    """The policy that the command's options name, on this machine's device."""
    from xvla_platform.adapt.launch import make_accelerator
    from xvla_platform.closed_loop.sources import policy_source

    return policy_source(
        place,
        target,
        base=base,
        robot=options["robot"],
        init=options["init"],
        data=data,
        device=str(make_accelerator().device),
        sampler=sampler,
    )


def run_closed_loop(
    place: "Workspace", target: str, *, data: Path | None, base: str | None, sampler: str = "exact", **options: Any
) -> None:
    """Run the episodes that the options ask for, then print and write what came of them."""
    from xvla_platform.closed_loop.conditions import OWN, Material
    from xvla_platform.closed_loop.sources import environment_source
    from xvla_platform.platform.records import plugin_folder

    source = source_asked_for(place, target, data=data, base=base, sampler=sampler, options=options)
    record = source.record()
    env = environment_source(
        record.spec,
        plugin_folder(place, record),
        name=options["env_name"],
        options=key_values(options["env_options"]),
    )
    say(f"policy    {source.label}")
    conditions, material = [OWN], Material()
    if options["ablate"]:
        from xvla_platform.cli.ablate import choose

        conditions, material = choose(place, source, options["ablate"], data=data)
    result, folder = _evaluate(place, source, env, conditions, material, options)
    summary_table(result)
    say(
        "cost      "
        + ", ".join(f"{label} {seconds:.2f}" for label, seconds in result.cost.items())
        + " CPU s an episode"
    )
    report = result.as_dict()
    if options["ablate"]:
        from xvla_platform.cli.ablate import report_effects
        from xvla_platform.closed_loop.effects import closed_loop_effects

        effects = closed_loop_effects(result, conditions)
        report["ablation"] = report_effects(folder, effects, f"{source.label}: success lost")
    sheet = folder / "contact-sheet.png"
    wrote = [place.shown(folder), *([place.shown(sheet)] if sheet.is_file() else [])]
    name = record.spec.name
    following = f"xvla adapt --embodiment {name}" if source.adaptation is None else f"xvla show {name}"
    done(wrote=wrote, next_command=following, data={"target": source.label, **report})


def _evaluate(
    place: "Workspace",
    source: "PolicySource",
    env: "EnvironmentSource",
    conditions: "list[Condition]",
    material: "Material",
    options: dict[str, Any],
) -> "tuple[ClosedLoopResult, Path]":
    from dataclasses import asdict

    from xvla_platform.cli.progress import Bars
    from xvla_platform.closed_loop.evaluate import evaluate_closed_loop
    from xvla_platform.closed_loop.execution import execution_of

    spec = env.spec
    execution = execution_of(
        spec,
        execute_s=options["execute_s"],
        execute_steps=options["execute_steps"],
        latency_ms=options["latency_ms"],
        blend=options["blend"],
    )
    tasks = names(options["tasks"])
    identity = {
        **source.identity(),
        **env.identity(),
        "films": options["films"],
    }
    wanted = {
        **identity,
        "tasks": tasks,
        "episodes": options["episodes"],
        "seed": options["seed"],
        "execution": asdict(execution),
        "time_limit_s": options["time_limit"],
        "conditions": [condition.name for condition in conditions],
    }
    folder = run_folder(place.runs / "eval" / spec.name / source.version, wanted)
    ticks = f"{execution.execute} of {round(spec.horizon_s * spec.control_hz)} ticks"
    say(f"chunks    {ticks}, blending {execution.blend}, latency {execution.latency} ticks at {spec.control_hz:g} Hz")
    with Bars() as bars:
        running = Running(bars)
        result = evaluate_closed_loop(
            source,
            env,
            folder=folder,
            tasks=tasks,
            episodes=options["episodes"],
            seed=options["seed"],
            execution=execution,
            time_limit_s=options["time_limit"],
            conditions=conditions,
            material=material,
            films=options["films"],
            workers=options["workers"],
            identity={**identity, "asked": wanted},
            observer=running,
        )
    return result, folder


class Running:
    """The bar of an evaluation, with the success rate so far of the policy as it is."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._advance: Callable[..., None] | None = None
        self._successes = self._own = 0

    def __call__(self, episode: Any, count: int, total: int) -> None:
        """Take a finished episode."""
        if self._advance is None:
            self._advance = self._bars.task("episodes", total)
        if episode.condition == "own":
            self._own += 1
            self._successes += episode.success
        self._advance(1, f"success {self._successes}/{self._own}")


def summary_table(result: "ClosedLoopResult") -> None:
    """One row a condition and task."""
    from xvla_platform.closed_loop.results import OVERALL

    rows: list[tuple[object, ...]] = []
    for condition in result.conditions:
        tasks = [*result.tasks, OVERALL] if len(result.tasks) > 1 else result.tasks
        for task in tasks:
            summary = result.summary(condition, None if task == OVERALL else task)
            seconds = None if summary.median_s is None else f"{summary.median_s:.1f} s"
            rows.append((condition, task, summary.success.text(), summary.approached.text(), seconds))
    headers = ("condition", "task", "completed (95 %)", "approached the named object (95 %)", "median time")
    table(headers, rows)


def run_folder(parent: Path, wanted: dict[str, Any]) -> Path:
    """The newest unfinished evaluation of `parent` with these settings, else a new folder `closed-loop-<n>`."""
    import json

    from xvla_platform.closed_loop.evaluate import RESULTS, SETTINGS
    from xvla_platform.platform.files import read_json

    before = {
        int(path.name.rsplit("-", 1)[1]): path
        for path in parent.glob("closed-loop-*")
        if path.name.rsplit("-", 1)[1].isdecimal()
    }
    for _, path in sorted(before.items(), reverse=True):
        if (path / RESULTS).is_file() or not (path / SETTINGS).is_file():
            continue
        if read_json(path / SETTINGS).get("asked") == json.loads(json.dumps(wanted)):
            say(f"resuming  {path.name}")
            return path
    return parent / f"closed-loop-{max(before, default=0) + 1}"


def key_values(words: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` words as a mapping."""
    from xvla_platform.errors import XvlaError

    out: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key or key in out:
            raise XvlaError("is not KEY=VALUE, each key once", field="env-option", found=word)
        out[key] = value
    return out


def names(text: str | None) -> list[str] | None:
    """`a,b` as a list; None where nothing was given."""
    from xvla_platform.errors import XvlaError

    if text is None:
        return None
    out = [part.strip() for part in text.split(",")]
    if not all(out):
        raise XvlaError("is no list of tasks", field="--tasks", found=text, allowed="names with commas between them")
    return out
