"""Episodes in worker processes: each has a policy and an environment of its own and runs on one thread."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from xvla_platform.errors import XvlaError
from xvla_platform.platform.workers import follow_parent

if TYPE_CHECKING:
    from xvla_platform.closed_loop.contract import CheckedEnvironment
    from xvla_platform.closed_loop.episode import Actor, Episode
    from xvla_platform.closed_loop.evaluate import Job, Way


class Pool:
    """Worker processes for one evaluation; `policy` and `env` are what makes them, and are pickled."""

    def __init__(self, policy: Callable[[], Actor], env: Callable[[], Any], way: Way, workers: int) -> None:
        self._arguments = (policy, env, way)
        self._workers = workers

    def run(self, jobs: Sequence[Job]) -> Iterator[Episode]:
        """The jobs' episodes, each as soon as it is over."""
        # A fresh interpreter each: what a forked OpenGL context or thread pool does is anyone's guess.
        pool = ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=self._arguments,
        )
        try:
            for future in as_completed([pool.submit(_run, job) for job in jobs]):
                yield future.result()
        except BrokenProcessPool:
            raise XvlaError(
                "a worker process died; the episodes that were over are kept",
                field="workers",
                found=self._workers,
                hint="repeat the command to go on; take fewer workers where memory was short",
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_making: tuple[Callable[[], Any], Callable[[], Any], Any] | None = None
_made: tuple[Actor, CheckedEnvironment, Way] | None = None


def _start(policy: Callable[[], Actor], env: Callable[[], Any], way: Way) -> None:
    global _making
    follow_parent()
    _making = (policy, env, way)


def _run(job: Job) -> Episode:
    from xvla_platform.closed_loop.contract import CheckedEnvironment
    from xvla_platform.closed_loop.evaluate import run_job

    global _made
    if _made is None:  # here rather than in `_start`, whose errors a pool does not pass on
        assert _making is not None
        policy = _making[0]()
        _made = (policy, CheckedEnvironment(_making[1](), policy.record.spec), _making[2])
    return run_job(*_made, job)
