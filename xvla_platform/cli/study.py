"""`xvla study`: recordings, bases, adaptations and closed-loop evaluations of a study, and its tables."""

from pathlib import Path

import click

from xvla_platform.cli.output import common_options, done, same_command, say, table


@click.command(short_help="Run a study: record, pretrain, adapt, evaluate, and tabulate.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Its folder; else runs/studies/<name>.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Steps at a time.")
@click.option("--only", metavar="PATTERN", help="Steps of this name (a shell pattern) and those they need.")
@click.option("--report", is_flag=True, help="Run nothing; write the tables of what is finished.")
@click.option("--dry-run", is_flag=True, help="List the steps, and stop.")
@common_options
def study(
    file: Path,
    out: Path | None,
    workers: int,
    only: str | None,
    report: bool,
    dry_run: bool,
    workspace: Path | None,
) -> None:
    """Run the study that FILE (study.yaml) describes, one `xvla` command a step, and tabulate what came out.

    Every step is a process of its own whose answer is kept. Interrupted at any moment, the same command goes on: what
    is finished stays finished, and an interrupted training continues from its last checkpoint.
    """
    from xvla_platform.adapt.holding import held
    from xvla_platform.platform.files import os_errors, write_json, write_text
    from xvla_platform.platform.workspace import Workspace
    from xvla_platform.study.checks import check_study
    from xvla_platform.study.results import collect, plot_success, tables
    from xvla_platform.study.run import Progress, answer_of, prepare, run_steps
    from xvla_platform.study.spec import load_study
    from xvla_platform.study.steps import Step, chosen, steps_of

    loaded = load_study(file)
    if not report:
        check_study(loaded, file.absolute())
    place = Workspace.find(workspace)
    folder = (out or place.runs / "studies" / loaded.name).absolute()
    steps = steps_of(loaded, file.absolute(), folder)
    wanted = chosen(steps, only)
    if dry_run:
        states = [(step.id, "done" if answer_of(folder, step) is not None else "to do") for step in wanted]
        table(("step", "state"), states)
        words = {step.id: list(step.words) for step in wanted}
        done(next_command=same_command(without="--dry-run"), data={"steps": words})
        return
    if not report:

        def started(step: Step) -> None:
            say(f"{step.id}: xvla {' '.join(step.words)}")

        def finished(step: Step, seconds: float, count: int, total: int) -> None:
            say(f"{step.id}: {seconds:.0f} s, {count} of {total} steps")

        with os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with held(folder) as lock:
            prepare(loaded, file, folder)
            progress = Progress(started=started, finished=finished)
            run_steps(wanted, folder, workers=workers, progress=progress, lock=lock)
    rows = collect(steps, folder)
    write_json(folder / "results.json", {"schema_version": 1, "study": loaded.model_dump(mode="json"), **rows})
    write_text(folder / "results.md", tables(loaded, rows))
    plot_success(loaded, rows["success"], folder / "success.png")
    wrote = [place.shown(folder / name) for name in ("results.md", "results.json", "success.png")]
    done(wrote=wrote, next_command=None, data=dict(rows))
