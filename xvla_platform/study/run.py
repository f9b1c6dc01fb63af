"""Running a study: each step a process of its own, its answer kept, and a second start goes on with what is missing.

Below the study's folder, `steps/<id>.json` is the answer of a finished step (what the command prints with `--json`)
and `steps/<id>.log` what it said. A step that fails stops the study after the steps beside it.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xvla_platform.adapt.holding import held
from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import os_errors, read_json, write_json, write_text
from xvla_platform.platform.workspace import CONFIG_NAME, CONFIG_TEXT
from xvla_platform.sim.folders import DEMONSTRATIONS, RIGS, STILL_SCENES
from xvla_platform.study.spec import StudySpec
from xvla_platform.study.steps import LABEL, PRETRAIN, Step

POLL_S = 0.5
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What is told of a study while it runs."""

    started: Callable[[Step], None]
    finished: Callable[[Step, float, int, int], None]


def prepare(study: StudySpec, file: Path, folder: Path) -> None:
    """Lay out the study's folder: the robots' plugins (without recordings), and a workspace for every base."""
    robots = {part.plugin for part in study.recordings} | set(study.held_out)
    if study.forgetting is not None:
        robots |= set(study.forgetting.robots)
    plugins = (file.parent / study.plugins).resolve()
    for robot in sorted(robots):
        source, target = plugins / robot, folder / "plugins" / robot
        if not (source / "plugin.yaml").is_file():
            raise XvlaError("no such plugin", file=file, field="plugins", found=str(source))
        own = any(part.plugin == robot for part in study.recordings)
        if not target.exists():
            with os_errors(target):
                ignore = shutil.ignore_patterns(DEMONSTRATIONS, STILL_SCENES, RIGS) if own else None
                shutil.copytree(source, target, ignore=ignore)
    for place in (folder, *(folder / "workspaces" / base for base in study.bases)):
        if not (place / CONFIG_NAME).is_file():
            with os_errors(place):
                place.mkdir(parents=True, exist_ok=True)
            write_text(place / CONFIG_NAME, CONFIG_TEXT)


def answer_of(folder: Path, step: str) -> dict[str, Any] | None:
    """What a finished step answered."""
    path = folder / "steps" / f"{step}.json"
    return dict(read_json(path)) if path.is_file() else None


def run_steps(steps: Sequence[Step], folder: Path, *, workers: int, progress: Progress) -> None:
    """Run what is not done yet, `workers` steps at a time; a step that outlives its study keeps others out."""
    with held(folder) as lock:
        _run(steps, folder, workers, progress, lock)


def _run(steps: Sequence[Step], folder: Path, workers: int, progress: Progress, lock: int) -> None:
    finished = {step.id for step in steps if answer_of(folder, step.id) is not None}
    waiting = [step for step in steps if step.id not in finished]
    running: dict[str, tuple[Step, subprocess.Popen[bytes], float]] = {}
    failed: Step | None = None
    with _told_to_stop() as stop_if_told:
        try:
            while running or (waiting and failed is None):
                stop_if_told()
                while failed is None and len(running) < workers:
                    busy = {step.lane for step, _, _ in running.values()}
                    free = (s for s in waiting if s.lane not in busy and finished.issuperset(s.needs))
                    step = next(free, None)
                    # Pretraining has a process for every worker: nothing else runs beside it.
                    if step is None or (running and (step.together or PRETRAIN in busy)):
                        break
                    waiting.remove(step)
                    running[step.id] = (step, _start(step, folder, workers, lock), time.monotonic())
                    progress.started(step)
                for name, (step, process, began) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[name]
                    if process.returncode == 0:
                        _keep(folder, step)
                        finished.add(step.id)
                        progress.finished(step, time.monotonic() - began, len(finished), len(steps))
                    else:
                        failed = failed or step
                if running:
                    time.sleep(POLL_S)
            stop_if_told()  # a step that ended by the same Ctrl-C has not failed
        finally:
            for _, process, _ in running.values():
                process.terminate()
            for _, process, _ in running.values():
                process.wait()
    if failed is not None:
        raise XvlaError(
            f"a step failed: xvla {' '.join(_words(failed, folder))}",
            file=folder / "steps" / f"{failed.id}.log",
            found=_last_line(folder, failed),
            hint="mend it and start the study again: what is done stays done",
        )


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], None]]:
    """Ctrl-C and SIGTERM are kept until the yielded function is called.

    Met while a process is being started, they would leave it behind, at work and holding the study's folder.
    """
    met: list[int] = []
    before = {number: signal.signal(number, lambda n, _: met.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop_if_told() -> None:
        if signal.SIGINT in met:
            raise KeyboardInterrupt
        if met:
            sys.exit(128 + met[0])

    try:
        yield stop_if_told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _words(step: Step, folder: Path) -> list[str]:
    """The step's words, with the version that it is about, and going on where it was interrupted."""
    words = list(step.words)
    if LABEL in words:
        answer = answer_of(folder, step.needs[0])
        assert answer is not None
        words[words.index(LABEL)] = str(answer["adaptation"])
    begun = (folder / "steps" / f"{step.id}.log").is_file()
    if begun and step.words[0] == "pretrain":
        words.append("--resume")
    if begun and step.words[0] == "adapt":
        from xvla_platform.adapt.run import find_unfinished

        place = Path(step.words[step.words.index("--workspace") + 1])
        robot = step.words[step.words.index("--embodiment") + 1]
        if find_unfinished(place / "runs" / robot) is not None:
            return ["adapt", "--embodiment", robot, "--workspace", str(place), "--resume"]
    return words


def _start(step: Step, folder: Path, workers: int, lock: int) -> "subprocess.Popen[bytes]":
    (folder / "steps").mkdir(exist_ok=True)
    words = _words(step, folder)
    environment = dict(os.environ)
    if workers > 1:
        # Two processes of one thread each do more than one of two: small matrices leave threads waiting.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    with (folder / "steps" / f"{step.id}.log").open("ab") as errors, _part(folder, step).open("wb") as answer:
        launcher = (*LAUNCHER, str(workers)) if step.together and workers > 1 else ()
        command = [sys.executable, *launcher, "-m", "xvla_platform", *words, "--json"]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=answer, stderr=errors, env=environment, pass_fds=(lock,)
        )


def _part(folder: Path, step: Step) -> Path:
    return folder / "steps" / f"{step.id}.part"


def _keep(folder: Path, step: Step) -> None:
    """Keep the answer of a step that ended well."""
    part = _part(folder, step)
    answer = read_json(part)
    write_json(folder / "steps" / f"{step.id}.json", {**answer, "step": {"words": list(step.words), **step.about}})
    part.unlink()


def _last_line(folder: Path, step: Step) -> str:
    """The end of what it said; with `--json` an error is its answer."""
    part = _part(folder, step)
    text = part.read_text(encoding="utf-8", errors="replace") if part.is_file() else ""
    log = (folder / "steps" / f"{step.id}.log").read_text(encoding="utf-8", errors="replace")
    lines = (text + log).strip().splitlines()
    return " ".join(line.strip() for line in lines[-12:])[-600:]
