"""Record a dataset of one simulated robot, in parallel, with results that do not depend on the worker count."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xvla_platform.data.lerobot_meta import CameraColumn, VectorColumn
from xvla_platform.data.lerobot_writer import LeRobotWriter
from xvla_platform.data.vectors import split_vector
from xvla_platform.errors import XvlaError
from xvla_platform.platform.workers import follow_parent
from xvla_platform.sim.backend import require_simulator
from xvla_platform.sim.contact_sheet import ContactSheet
from xvla_platform.sim.environment import TableEnvironment
from xvla_platform.sim.episodes import (
    LAYOUTS_PER_ARM_POSE,
    OBJECT_PIXEL,
    PLACE_PIXEL,
    Episode,
    LayoutResult,
    record_layout,
    still_layouts,
)
from xvla_platform.sim.folders import STILL_SCENES, dataset_folder
from xvla_platform.sim.rigs import with_rig
from xvla_platform.sim.scene import CUBES
from xvla_platform.sim.setup import SimSetup, load_setup
from xvla_platform.sim.tasks import chosen
from xvla_platform.sim.vectors import dimension_names
from xvla_platform.specs.base import require_seed

log = logging.getLogger(__name__)

CONTACT_SHEET = "contact_sheet.png"
LEAST_SUCCESS = 0.25  # below this share of usable layouts the expert does not fit the robot
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Job:
    """What to do with a scene's seed."""

    still: bool
    per_scene: int
    task: str
    rig: int = 0
    slips: float = 0.0


@dataclass(frozen=True)
class RecordingSummary:
    """What a recording wrote; ``success_rate`` is the expert's over all attempts, by task (none for still scenes)."""

    robot: str
    dataset: str
    episodes: int
    frames: int
    layouts: int
    dropped_layouts: int
    success_rate: dict[str, float]
    seconds: float
    bytes: int
    contact_sheet: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return asdict(self)


def record_demonstrations(
    plugin: str | Path,
    *,
    episodes: int,
    task: str = "pick",
    per_scene: int = CUBES,
    slips: float = 0.0,
    rig: int = 0,
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RecordingSummary:
    """Record ``episodes`` expert demonstrations into the plugin's ``dataset.path``, or below ``rigs/`` for a drawn rig.

    Scene i is drawn from ``seed + i`` and gives one episode for each of ``per_scene`` of its three cubes, in
    consecutive episode indices: three teach that the words decide, one is what a person would record. ``task`` is a
    task's name, or ``all``: then the tasks take turns, within a scene and from scene to scene. ``rig`` draws other
    places for the cameras (`sim/rigs.py`); 0 leaves them where ``sim.yaml`` has them. A share of ``slips`` of the
    scenes begins as after a slip, which the expert then makes good (`sim/slips.py`).
    """
    if not 0.0 <= slips <= 1.0:
        raise XvlaError("out of range", field="slips", found=slips, allowed="0 to 1")
    if not 1 <= per_scene <= CUBES:
        raise XvlaError("out of range", field="per-scene", found=per_scene, allowed=f"1 to {CUBES}")
    setup = load_setup(plugin)
    if setup.spec.dataset.path is None:
        raise XvlaError("the plugin's dataset is not a folder", file=setup.folder, field="dataset.path")
    return _record(
        setup,
        _folder(setup, setup.spec.dataset.path, rig),
        job=_Job(still=False, per_scene=per_scene, task=task, rig=rig, slips=slips),
        episodes=_positive("episodes", episodes),
        seed=seed,
        workers=_positive("workers", workers),
        overwrite=overwrite,
        progress=progress,
    )


def record_still_scenes(
    plugin: str | Path,
    *,
    layouts: int,
    task: str = "pick",
    rig: int = 0,
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RecordingSummary:
    """Record ``layouts`` scenes without motion into ``still_scenes``: one one-frame episode for each cube.

    Columns of their own tell where the named object and the named place are seen in the main view
    (``grounding.uv``, ``grounding.place_uv``).
    """
    setup = load_setup(plugin)
    return _record(
        setup,
        _folder(setup, STILL_SCENES, rig),
        job=_Job(still=True, per_scene=CUBES, task=task, rig=rig),
        episodes=CUBES * _positive("still-scenes", layouts),
        seed=seed,
        workers=_positive("workers", workers),
        overwrite=overwrite,
        progress=progress,
    )


def _folder(setup: SimSetup, name: str, rig: int) -> Path:
    if rig < 0:
        raise XvlaError("a rig is not negative", field="rig", found=rig, allowed="0 (the plugin's own) or more")
    return setup.folder / dataset_folder(name, rig)


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise XvlaError("must be at least 1", field=name, found=value)
    return value


def _record(
    setup: SimSetup,
    root: Path,
    *,
    job: _Job,
    episodes: int,
    seed: int,
    workers: int,
    overwrite: bool,
    progress: Progress | None,
) -> RecordingSummary:
    require_seed(seed)
    chosen(job.task)
    require_simulator()
    setup = with_rig(setup, job.rig)
    spec = setup.spec
    writer = LeRobotWriter(
        root,
        fps=spec.control_hz,
        vectors=[
            VectorColumn(key, tuple(dimension_names(fields)))
            for vector in (spec.proprio, spec.action)
            for key, fields in vector.columns().items()
        ]
        + [VectorColumn(key, ("u", "v")) for key in (OBJECT_PIXEL, PLACE_PIXEL) if job.still],
        cameras=[CameraColumn(c.key, c.resolution[0], c.resolution[1]) for c in spec.cameras],
        robot_type=spec.name,
        overwrite=overwrite,
    )
    jobs = -(-episodes // (CUBES * LAYOUTS_PER_ARM_POSE if job.still else job.per_scene))
    sheet = ContactSheet(spec)
    begun = time.monotonic()
    attempts: dict[str, list[bool]] = {}
    layouts = dropped = 0
    with writer, _results(setup, job, seed, workers) as results:
        for done, result in enumerate(results):
            for name, success in result.attempts:
                attempts.setdefault(name, []).append(success)
            dropped += not result.episodes
            taken = result.episodes[: episodes - writer.total_episodes]
            layouts += -(-len(taken) // job.per_scene)
            for episode in taken:
                _add(writer, setup, episode)
                sheet.add(episode)
            if progress is not None:
                progress(writer.total_episodes, episodes)
            if writer.total_episodes >= episodes:
                break
            if done + 1 >= 2 * jobs + 8 and (done + 1 - dropped) < LEAST_SUCCESS * (done + 1):
                raise XvlaError(
                    f"the expert did what was asked in {done + 1 - dropped} of {done + 1} scenes only",
                    file=setup.folder / "sim.yaml",
                    field="expert",
                    hint="look at cameras and grasp_height, or lower the speed",
                )
        png = io.BytesIO()
        sheet.image().save(png, format="PNG", optimize=True)
        writer.add_file(CONTACT_SHEET, png.getvalue())
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    return RecordingSummary(
        robot=spec.name,
        dataset=str(root),
        episodes=writer.total_episodes,
        frames=writer.total_frames,
        layouts=layouts,
        dropped_layouts=dropped,
        success_rate={name: sum(outcomes) / len(outcomes) for name, outcomes in attempts.items()},
        seconds=time.monotonic() - begun,
        bytes=size,
        contact_sheet=str(root / CONTACT_SHEET),
    )


def _add(writer: LeRobotWriter, setup: SimSetup, episode: Episode) -> None:
    spec = setup.spec
    writer.add_episode(
        episode.instruction,
        {
            **split_vector(spec.proprio, episode.states),
            **split_vector(spec.action, episode.actions),
            **episode.extra,
        },
        {camera.key: episode.images[camera.name] for camera in spec.cameras},
    )


# One environment a process: building one takes seconds, and its OpenGL context cannot be shared.
_known: tuple[str, int] | None = None
_environment: TableEnvironment | None = None


def _start_worker(folder: str, rig: int) -> None:
    global _known
    follow_parent()
    _known = (folder, rig)


def _run(seed: int, job: _Job) -> LayoutResult:
    global _environment
    if _environment is None:  # here rather than in `_start_worker`, whose errors a pool does not pass on
        assert _known is not None
        _environment = TableEnvironment(with_rig(load_setup(_known[0]), _known[1]))
    return _one(_environment, seed, job)


def _one(env: TableEnvironment, seed: int, job: _Job) -> LayoutResult:
    if job.still:
        return still_layouts(env, seed, job.task)
    return record_layout(env, seed, job.per_scene, job.task, job.slips)


@contextmanager
def _results(setup: SimSetup, job: _Job, seed: int, workers: int) -> Iterator[Iterator[LayoutResult]]:
    """An endless stream of results in seed order, whoever computed them."""
    if workers == 1:
        env = TableEnvironment(setup)
        try:
            yield (_one(env, s, job) for s in _count(seed))
        finally:
            env.close()
        return
    # A library that starts its own threads in every worker would only fight the others for the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    known = (str(setup.folder), job.rig)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=known)
    try:
        yield _ordered(pool, job, seed, workers)
    except BrokenProcessPool:
        raise XvlaError(
            "a worker process died", field="workers", found=workers, hint="take fewer where memory was short"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ordered(pool: ProcessPoolExecutor, job: _Job, seed: int, workers: int) -> Iterator[LayoutResult]:
    # A window bounds the memory: a finished scene holds tens of megabytes of images.
    waiting: deque[Future[LayoutResult]] = deque()
    for s in _count(seed):
        waiting.append(pool.submit(_run, s, job))
        if len(waiting) > 3 * workers:
            yield waiting.popleft().result()


def _count(seed: int) -> Iterator[int]:
    while True:
        yield seed
        seed += 1
