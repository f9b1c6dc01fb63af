"""Running a study: each step a process of its own, its answer kept, and a second start goes on with what is missing.

Below the study's folder, `steps/<id>.json` is the answer of a finished step (what the command prints with `--json`)
and `steps/<id>.log` what it said. A step that fails stops the study after the steps beside it. An answer counts as long
as the study would still ask for it in the same words.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import atomic_folder, os_errors, read_json, write_json, write_text
from xvla_platform.platform.workspace import CONFIG_NAME, CONFIG_TEXT
from xvla_platform.sim.folders import DEMONSTRATIONS, RIGS, STILL_SCENES
from xvla_platform.study.spec import StudySpec
from xvla_platform.study.steps import LABEL, PRETRAIN, Step

POLL_S = 0.5
# How a command is started that may have been begun before, and what it need not compute again.
CONTINUED = {"pretrain": ("--resume-if-begun",), "adapt": ("--resume-if-begun", "--reuse")}
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
        own = any(part.plugin == robot for part in study.recordings)
        if not target.exists():
            ignore = shutil.ignore_patterns(DEMONSTRATIONS, STILL_SCENES, RIGS, ".*") if own else None
            with atomic_folder(target) as building:
                shutil.copytree(source, building, ignore=ignore, dirs_exist_ok=True)
    for place in (folder, *(folder / "workspaces" / base for base in study.bases)):
        if not (place / CONFIG_NAME).is_file():
            with os_errors(place):
                place.mkdir(parents=True, exist_ok=True)
            write_text(place / CONFIG_NAME, CONFIG_TEXT)


def answer_of(folder: Path, step: Step) -> dict[str, Any] | None:
    """What a finished step answered; an answer to other words than the step's is refused."""
    path = folder / "steps" / f"{step.id}.json"
    if not path.is_file():
        return None
    answer = dict(read_json(path))
    was, now = _settings(answer["step"]["words"]), _settings(step.words)
    if was != now:
        first = next((i for i, pair in enumerate(zip(was, now, strict=False)) if pair[0] != pair[1]), -1)
        near = slice(first - 1, first + 1) if first > 0 else slice(-2, None)  # an option and its value
        raise XvlaError(
            "was run with other settings than the study has now",
            file=path,
            found=" ".join(was[near]),
            allowed=" ".join(now[near]),
            hint="remove that file, and those of the steps that built on it, to run them again; or give another --out",
        )
    return answer


def _settings(words: Sequence[str]) -> list[str]:
    """A step's words without the places of files, which may have been moved."""
    return [Path(word).name if Path(word).is_absolute() else word for word in words]


def run_steps(steps: Sequence[Step], folder: Path, *, workers: int, progress: Progress, lock: int) -> None:
    """Run what is not done yet, `workers` steps at a time.

    Args:
        lock: What `held(folder)` gave; a step that outlives its study keeps others out by it.
    """
    for step in steps:
        _keep_outlived(folder, step)
    finished = {step.id for step in steps if answer_of(folder, step) is not None}
    by_id = {step.id: step for step in steps}
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
                    chosen = next(free, None)
                    # Pretraining has a process for every worker: nothing else runs beside it.
                    if chosen is None or (running and (chosen.together or PRETRAIN in busy)):
                        break
                    waiting.remove(chosen)
                    running[chosen.id] = (chosen, _start(chosen, by_id, folder, workers, lock), time.monotonic())
                    progress.started(chosen)
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
            f"a step failed: xvla {' '.join(_words(failed, by_id, folder))}",
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


def _words(step: Step, by_id: Mapping[str, Step], folder: Path) -> list[str]:
    """The step's words, with the version that it is about, and going on where it was interrupted."""
    words = list(step.words)
    if LABEL in words:
        answer = answer_of(folder, by_id[step.needs[0]])
        assert answer is not None
        words[words.index(LABEL)] = str(answer["adaptation"])
    return [*words, *CONTINUED.get(words[0], ())]


def _start(step: Step, by_id: Mapping[str, Step], folder: Path, workers: int, lock: int) -> "subprocess.Popen[bytes]":
    (folder / "steps").mkdir(exist_ok=True)
    words = _words(step, by_id, folder)
    write_json(_begun(folder, step), list(step.words))
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


def _begun(folder: Path, step: Step) -> Path:
    """The words that the step was last started with."""
    return folder / "steps" / f"{step.id}.begun"


def _keep_outlived(folder: Path, step: Step) -> None:
    """Keep what a step answered that ended after its study was killed."""
    part, begun = _part(folder, step), _begun(folder, step)
    if part.is_file() and begun.is_file() and read_json(begun) == list(step.words):
        try:
            answer = json.loads(part.read_text(encoding="utf-8"))
        except ValueError:
            return  # it was killed too
        if "error" not in answer:
            _keep(folder, step)


def _keep(folder: Path, step: Step) -> None:
    """Keep the answer of a step that ended well."""
    part = _part(folder, step)
    answer = read_json(part)
    write_json(folder / "steps" / f"{step.id}.json", {**answer, "step": {"words": list(step.words), **step.about}})
    part.unlink()
    _begun(folder, step).unlink(missing_ok=True)


def _last_line(folder: Path, step: Step) -> str:
    """The end of what it said; with `--json` an error is its answer."""
    part = _part(folder, step)
    text = part.read_text(encoding="utf-8", errors="replace") if part.is_file() else ""
    log = (folder / "steps" / f"{step.id}.log").read_text(encoding="utf-8", errors="replace")
    lines = (text + log).strip().splitlines()
    return " ".join(line.strip() for line in lines[-12:])[-600:]
