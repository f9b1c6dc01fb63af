"""What a process spends: CPU seconds of all its threads, wall clock, and its largest memory.

CPU seconds do not count other people's work on the same machine, which wall clock does; both are kept.
"""

import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENOUGH = 3  # rounds after which the time limit of a cell may end it


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def peak_bytes() -> int:
    """The largest resident memory of this process since it began, or since `forget_peak`."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def forget_peak() -> None:
    """Let the next `peak_bytes` count from now, where the system allows it: loading is not the step."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


class Meter:
    """What each round spends, from `begin` on; `round_over` says when there were enough.

    The first `warmup` rounds are not kept. It is enough after `rounds`, or when `limit_s` of wall clock are over and at
    least three rounds are there.
    """

    def __init__(self, *, rounds: int, warmup: int, limit_s: float, device: str) -> None:
        self._rounds, self._warmup, self._limit_s, self._cuda = rounds, warmup, limit_s, device == "cuda"
        self._cpu: list[float] = []
        self._wall: list[float] = []

    def begin(self) -> None:
        """Start the clock; memory is counted from here, too."""
        self._loaded = peak_bytes()
        forget_peak()
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        self._skipped, self._began = 0, time.perf_counter()
        self._mark()

    def round_over(self) -> bool:
        """End a round and begin the next; True when there were enough."""
        if self._cuda:
            import torch

            torch.cuda.synchronize()
        if self._skipped < self._warmup:
            self._skipped += 1
            self._began = time.perf_counter()
        else:
            self._cpu.append(cpu_seconds() - self._cpu_before)
            self._wall.append(time.perf_counter() - self._wall_before)
        late = time.perf_counter() - self._began > self._limit_s and len(self._cpu) >= ENOUGH
        self._mark()
        return late or len(self._cpu) >= self._rounds

    def found(self) -> dict[str, Any]:
        """`cpu_s` and `wall_s` of every kept round, `peak_bytes` of the rounds and `process_peak_bytes` of all."""
        peak = peak_bytes()
        out: dict[str, Any] = {"cpu_s": self._cpu, "wall_s": self._wall, "peak_bytes": peak}
        out["process_peak_bytes"] = max(peak, self._loaded)
        if self._cuda:
            import torch

            out |= {"cuda_peak_bytes": torch.cuda.max_memory_allocated(), "gpu": torch.cuda.get_device_name()}
        return out

    def _mark(self) -> None:
        self._cpu_before, self._wall_before = cpu_seconds(), time.perf_counter()


def measure(work: Callable[[int], Any], meter: Meter) -> dict[str, Any]:
    """Call `work` with 0, 1, … until the meter has seen enough."""
    meter.begin()
    done = 0
    work(done)
    while not meter.round_over():
        done += 1
        work(done)
    return meter.found()


def summary(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
