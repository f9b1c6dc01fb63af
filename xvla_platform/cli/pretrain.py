"""`xvla pretrain RECIPE`: a base from several robots' demonstrations."""

from contextlib import nullcontext
from pathlib import Path

import click

from xvla_platform.cli.output import common_options, done, say
from xvla_platform.errors import XvlaError


@click.command(short_help="Pretrain a small base on several robots' demonstrations.")
@click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Model folder; else bases/<name>.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of this recipe's run.")
@click.option(
    "--resume-if-begun",
    is_flag=True,
    help="Go on from this recipe's last checkpoint, if there is one, else start: for jobs that are requeued.",
)
@click.option(
    "--untrained", is_flag=True, help="Write the base with random weights: the start of training from scratch."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change a value of RECIPE, as model.strategy=action_heads or phases[1].stage.steps=2000; may be repeated.",
)
@common_options
def pretrain(
    recipe: Path,
    out: Path | None,
    resume: bool,
    resume_if_begun: bool,
    untrained: bool,
    changes: tuple[str, ...],
    workspace: Path | None,
) -> None:
    """Pretrain the base that RECIPE describes: its dimensions, robots, rows and mixture phases.

    The demonstrations are those of the recipe's plugins (`xvla record` makes them). Their last scenes are held out, and
    what the base does on them is printed, written beside the weights and drawn in the run's `curves.png`. Under
    `torchrun` or `accelerate launch` all processes share each batch.
    """
    from xvla_platform.adapt.base_folder import HELD_OUT
    from xvla_platform.adapt.holding import held
    from xvla_platform.adapt.launch import make_accelerator
    from xvla_platform.adapt.loop import Observers
    from xvla_platform.adapt.pretrain import CURVES, begun
    from xvla_platform.adapt.pretrain import pretrain as run_pretraining
    from xvla_platform.adapt.run import RunLog
    from xvla_platform.cli.progress import Bars
    from xvla_platform.platform.files import os_errors, read_json
    from xvla_platform.platform.workspace import Workspace
    from xvla_platform.specs.recipe import load_recipe

    place = Workspace.find(workspace)
    if untrained and resume:
        raise XvlaError(
            "--untrained trains nothing that could be resumed", field="--resume", hint="leave one of both out"
        )
    loaded, text = load_recipe(recipe, changes)
    folder = place.runs / "pretrain" / (f"{loaded.name}-untrained" if untrained else loaded.name)
    target = out or place.root / "bases" / loaded.name
    accelerator = make_accelerator(together=True)
    main = accelerator.is_main_process
    if main:
        with os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    log = RunLog(folder, [phase.stage.name for phase in loaded.phases]) if main and not untrained else None
    try:
        with held(folder) if main else nullcontext(), Bars(enabled=main) as bars:
            if main:
                say(f"base      {loaded.name}: {loaded.description}")
                say(f"robots    {', '.join(domain.name for domain in loaded.domains)}")
            run_pretraining(
                place,
                loaded,
                text,
                recipe,
                target,
                run=folder,
                observer=Observers(bars, log) if log is not None else bars,
                accelerator=accelerator,
                progress=bars.task if main else None,
                resume=resume or (resume_if_begun and begun(folder, target, text)),
                untrained=untrained,
            )
    finally:
        if log is not None:
            log.close()
    if main:
        measured = read_json(target / HELD_OUT) if (target / HELD_OUT).is_file() else {}
        for name, value in measured.items():
            say(f"held out  {name.removeprefix('held_out/'):<24} {value:.3f}")
        if not untrained:
            say(f"curves    {place.shown(folder / CURVES)}")
        done(
            wrote=place.shown(target),
            next_command=f"xvla add-embodiment plugins/my_arm --base {place.shown(target)}",
            data={"base": str(target), "held_out": measured},
        )
