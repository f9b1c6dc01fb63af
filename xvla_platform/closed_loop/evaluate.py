"""`evaluate_closed_loop`: many episodes, here or in worker processes, counted the same either way.

In: a policy and an environment, or what makes them. Out: a `ClosedLoopResult`, and in a folder `settings.json`,
`episodes.jsonl` (a line as each episode ends), films, `contact-sheet.png` and `results.json`. Episode i of a task is
reset with seed + i, for every policy and condition, so that they can be compared pair by pair. An evaluation that was
interrupted goes on with the episodes that are missing.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from filelock import FileLock, Timeout

from xvla_platform.closed_loop.conditions import OWN, Condition, Material, exchanged
from xvla_platform.closed_loop.contract import CheckedEnvironment
from xvla_platform.closed_loop.episode import Actor, Episode, run_episode
from xvla_platform.closed_loop.execution import Execution, execution_of
from xvla_platform.closed_loop.film import Film, contact_sheet
from xvla_platform.closed_loop.results import ClosedLoopResult
from xvla_platform.closed_loop.workers import Pool
from xvla_platform.closed_loop.wrong_words import wrong_words
from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import os_errors, read_json, write_json, write_text
from xvla_platform.specs.base import require_seed

SETTINGS, EPISODES, RESULTS, FILMS, SHEET = (
    "settings.json",
    "episodes.jsonl",
    "results.json",
    "films",
    "contact-sheet.png",
)
Observer = Callable[[Episode, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode to run."""

    condition: Condition
    task: str
    index: int
    seed: int
    film: Path | None

    @property
    def key(self) -> tuple[str, str, int]:
        return self.condition.name, self.task, self.index


@dataclass(frozen=True, kw_only=True)
class Way:
    """How every episode of an evaluation is run."""

    execution: Execution
    time_limit_s: float
    material: Material


def evaluate_closed_loop(
    policy: Actor | Callable[[], Actor],
    env: Any,
    *,
    folder: Path | None = None,
    tasks: Sequence[str] | None = None,
    episodes: int = 50,
    seed: int = 0,
    execution: Execution | None = None,
    time_limit_s: float | None = None,
    conditions: Sequence[Condition] = (OWN,),
    material: Material | None = None,
    films: int = 0,
    workers: int = 1,
    identity: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
) -> ClosedLoopResult:
    """Run `episodes` of each task under each condition and count.

    Args:
        policy: A policy, or what makes one; several workers need the latter, picklable.
        env: A `gymnasium.Env` as `contract.py` has it, or what makes one, likewise.
        folder: Where results go, and where an interrupted evaluation is found again; None keeps nothing.
        tasks: Of the environment's; all by default.
        execution: How chunks are carried out; the whole of each by default.
        time_limit_s: Of an episode; the environment's by default.
        films: How many episodes of each task are filmed (in `folder`, without changed inputs).
        identity: What else decides the outcome, kept with the settings: a folder with other ones is refused.
        observer: Called with each finished episode, how many are done, and of how many; also for those found again.
    """
    _positive("episodes", episodes)
    _positive("workers", workers)
    require_seed(seed)
    if films < 0:
        raise XvlaError("is not negative", field="films", found=films)
    makes = None if hasattr(policy, "act") else cast(Callable[[], Actor], policy)
    if workers > 1 and (makes is None or not callable(env)):
        raise XvlaError("several workers need what makes policy and environment", field="workers", found=workers)
    acting = makes() if makes is not None else cast(Actor, policy)
    checked = CheckedEnvironment(env() if callable(env) else env, acting.record.spec)
    try:
        chosen = _tasks(checked, tasks)
        way = Way(
            execution=execution or execution_of(checked.spec),
            time_limit_s=_limit(time_limit_s, checked),
            material=material or Material(),
        )
        settings = {
            **(identity or {}),
            "tasks": list(chosen),
            "episodes": episodes,
            "seed": seed,
            "execution": asdict(way.execution),
            "time_limit_s": way.time_limit_s,
            "conditions": [condition.name for condition in conditions],
        }
        _refuse_wordless(checked, chosen, seed, conditions, way.material)
        jobs = _jobs(conditions, chosen, episodes, seed, None if folder is None else folder / FILMS, films)
        with _kept(folder, settings) as (found, keep):
            done = {key: episode for key, episode in found.items() if key in {job.key for job in jobs}}
            for count, episode in enumerate(done.values(), start=1):
                if observer is not None:
                    observer(episode, count, len(jobs))
            left = [job for job in jobs if job.key not in done]
            if workers > 1 and makes is not None and len(left) > 1:
                checked.close()
                results = Pool(makes, env, way, min(workers, len(left))).run(left)
            else:
                results = _here(acting, checked, way, left)
            for episode in results:
                keep(episode)
                done[episode.condition, episode.task, episode.index] = episode
                if observer is not None:
                    observer(episode, len(done), len(jobs))
            result = ClosedLoopResult(settings=settings, episodes=tuple(done[job.key] for job in jobs))
            if folder is not None:
                _finish(folder, result, [job.film for job in jobs if job.film is not None])
        return result
    finally:
        checked.close()


def run_job(policy: Actor, env: CheckedEnvironment, way: Way, job: Job) -> Episode:
    """Run one episode on one thread, so that its numbers do not depend on how many run beside it."""
    film = None if job.film is None else Film(job.film, env.spec, f"{job.task} {job.index}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with exchanged(policy, job.condition):
            return run_episode(
                policy,
                env,
                task=job.task,
                index=job.index,
                seed=job.seed,
                execution=way.execution,
                time_limit_s=way.time_limit_s,
                condition=job.condition,
                material=way.material,
                film=film,
            )
    finally:
        torch.set_num_threads(threads)


def _here(policy: Actor, env: CheckedEnvironment, way: Way, jobs: Sequence[Job]) -> Iterator[Episode]:
    for job in jobs:
        yield run_job(policy, env, way, job)


def _jobs(
    conditions: Sequence[Condition], tasks: Sequence[str], episodes: int, seed: int, films: Path | None, filmed: int
) -> list[Job]:
    return [
        Job(
            condition=condition,
            task=task,
            index=index,
            seed=seed + index,
            film=films / f"{task}-{index:03d}.mp4"
            if films is not None and index < filmed and condition.input is None
            else None,
        )
        for condition in conditions
        for task in tasks
        for index in range(episodes)
    ]


@contextmanager
def _kept(
    folder: Path | None, settings: Mapping[str, Any]
) -> Iterator[tuple[dict[tuple[str, str, int], Episode], Callable[[Episode], None]]]:
    """The episodes that the folder already has, and where further ones go; nobody else writes there meanwhile."""
    if folder is None:
        yield {}, lambda episode: None
        return
    with os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise XvlaError("another evaluation is writing here", file=folder) from None
    try:
        plain = json.loads(json.dumps(settings))
        if (folder / SETTINGS).is_file():
            before = read_json(folder / SETTINGS)
            other = [name for name in {**plain, **before} if plain.get(name) != before.get(name)]
            if other:
                raise XvlaError(
                    "the folder holds an evaluation with other settings",
                    file=folder,
                    field=other[0],
                    found=before.get(other[0]),
                    allowed=str(plain.get(other[0])),
                )
        else:
            write_json(folder / SETTINGS, plain)
        found = read_episodes(folder)
        # Without the half line that a killed process may have left, which the next one would be glued to.
        write_text(folder / EPISODES, "".join(map(_line, found)))
        with (folder / EPISODES).open("a", encoding="utf-8") as file:

            def keep(episode: Episode) -> None:
                with os_errors(folder):
                    file.write(_line(episode))
                    file.flush()
                    os.fsync(file.fileno())

            yield {(e.condition, e.task, e.index): e for e in found}, keep
    finally:
        lock.release()


def read_episodes(folder: Path) -> list[Episode]:
    """Every whole line of `episodes.jsonl`, in the order in which the episodes ended."""
    path = folder / EPISODES
    out = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            out.append(Episode(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return out


def _finish(folder: Path, result: ClosedLoopResult, films: Sequence[Path]) -> None:
    strips = [path.with_suffix(".png") for path in films if path.with_suffix(".png").is_file()]
    if strips:
        with os_errors(folder):
            contact_sheet(folder / SHEET, strips)
    write_text(folder / EPISODES, "".join(map(_line, result.episodes)))
    write_json(folder / RESULTS, result.as_dict())


def _line(episode: Episode) -> str:
    return json.dumps(asdict(episode), ensure_ascii=False) + "\n"


def _tasks(env: CheckedEnvironment, wanted: Sequence[str] | None) -> tuple[str, ...]:
    unknown = [task for task in wanted or () if task not in env.tasks]
    if unknown:
        raise XvlaError("the environment has no such task", field="tasks", found=unknown[0], allowed=env.tasks)
    return tuple(dict.fromkeys(wanted)) if wanted else env.tasks


def _refuse_wordless(
    env: CheckedEnvironment, tasks: Sequence[str], seed: int, conditions: Sequence[Condition], material: Material
) -> None:
    """Refuse wrong words before the first episode where nobody gives any."""
    if any((condition.input, condition.kind) == ("language", "wrong") for condition in conditions):
        for task in tasks:
            begin = env.reset(seed, task)
            wrong_words(begin.instruction, begin.other_instruction, material.instructions)


def _limit(seconds: float | None, env: CheckedEnvironment) -> float:
    if seconds is None:
        return env.time_limit_s
    if not 0 < seconds < 24 * 3600:
        raise XvlaError("is not a time of an episode", field="time_limit_s", found=seconds)
    if env.longest_s is not None and seconds > env.longest_s:
        raise XvlaError(
            "the environment ends its episodes before",
            field="time_limit_s",
            found=seconds,
            allowed=f"{env.longest_s:g}",
        )
    return float(seconds)


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise XvlaError("must be at least 1", field=name, found=value)
