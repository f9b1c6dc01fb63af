"""When frames were taken: the rate, how even it is, frames that are missing and frames that were taken twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xvla_platform.data.reader import FloatArray
from xvla_platform.measure.guess import Guess

SHAKY = 0.12  # of a period: steps that usually miss a whole number of periods by more come from an uneven clock


@dataclass(frozen=True, kw_only=True)
class Clock:
    """One episode's time stamps against an even clock.

    Attributes:
        period_s: Median step.
        jitter: 95th percentile of the steps' deviation from the median, as a share of it.
        gaps: Frames after which at least one frame is missing.
        repeats: Frames whose time stamp does not advance.
    """

    period_s: float
    jitter: float
    gaps: tuple[int, ...]
    repeats: tuple[int, ...]


def rate(timestamps: Sequence[FloatArray]) -> Guess:
    """Frames per second by the time stamps [L] of episodes."""
    steps = np.concatenate([np.diff(times) for times in timestamps if len(times) > 1] or [np.zeros(0)])
    every = steps[np.isfinite(steps)]
    steps = every[every > 0]
    if len(steps) < 2:
        return Guess(value=None, confidence=0.0, evidence="too few time stamps")
    period = float(np.median(steps))
    if float(np.median(np.abs(steps / period - np.round(steps / period)))) > SHAKY:
        period = max(float(np.mean(every)), 1e-9)
    spread = float(np.percentile(np.abs(steps - period), 95) / period)
    hz = 1 / period
    hz = float(round(hz)) if abs(hz - round(hz)) < 0.01 * hz and round(hz) > 0 else round(hz, 3)
    return Guess(
        value=hz,
        confidence=float(np.clip(0.99 - spread, 0.3, 0.99)),
        evidence=f"the median step between frames is {period * 1000:.1f} ms, 95 % within {spread:.1%} of it",
        numbers={"period_s": period, "jitter": spread},
    )


def clock(times: FloatArray, period_s: float | None = None) -> Clock:
    """How even one episode's time stamps [L] are; `period_s` is the expected step, else the median.

    Of stamps that are not recorded (NaN) nothing is said.
    """
    steps = np.diff(times)
    known = np.isfinite(steps)
    if not known.any():
        return Clock(period_s=0.0, jitter=0.0, gaps=(), repeats=())
    forward = steps[known & (steps > 0)]
    if not len(forward):
        return Clock(period_s=0.0, jitter=0.0, gaps=(), repeats=tuple(range(1, len(steps) + 1)))
    period = period_s or float(np.median(forward))
    steps = np.where(known, steps, period)
    # Where steps are whole multiples of the period frames are missing; where they are anything the clock is shaky.
    shaky = float(np.median(np.abs(steps / period - np.round(steps / period)))) > SHAKY
    if shaky:
        mean = float(np.mean(steps))
        jitter = float(np.percentile(np.abs(steps - mean), 95) / period)
        return Clock(period_s=mean, jitter=jitter, gaps=(), repeats=())
    median = float(np.median(forward))
    # A stamp that is late or early is made up for by the next one; a missing or repeated frame is not.
    padded = np.concatenate([[period], steps, [period]])
    around = padded[:-2] + padded[1:-1] + padded[2:]
    gaps = np.flatnonzero((steps > 1.6 * period) & (around > 3.5 * period))
    repeats = np.flatnonzero((steps <= 0.05 * period) & (around < 2.5 * period))
    even = steps[(steps <= 1.6 * period) & (steps > 0.05 * period)]
    return Clock(
        period_s=median,
        jitter=float(np.percentile(np.abs(even - median), 95) / period) if len(even) else 0.0,
        gaps=tuple(int(index) for index in gaps),
        repeats=tuple(int(index) + 1 for index in repeats),
    )


def repeated_rows(states: FloatArray) -> tuple[int, int]:
    """(frames whose state [L, P] equals the one before amid motion, frames in motion) of one episode.

    Amid motion means that the state changes again within three frames on either side.
    """
    if len(states) < 8:
        return 0, 0
    moved = (np.diff(states, axis=0) != 0).any(axis=1)  # what is no number repeats nothing
    index = np.arange(len(moved))
    total = np.concatenate([[0], np.cumsum(moved)])
    before = total[index] - total[np.maximum(0, index - 3)] > 0
    after = total[np.minimum(len(moved), index + 4)] - total[index + 1] > 0
    amid = before & after
    return int((~moved & amid).sum()), int((moved | amid).sum())


def leaps(positions: FloatArray, *, factor: float = 1.75, far: float = 4.0) -> list[int]:
    """Frames [of L] before which at least one frame is missing, by the motion [L, n]: the frames after the leap.

    A dropped frame makes one step as long as two, in the direction of its neighbours, which are alike. Many dropped
    frames make a step `far` longer than all around it, in whatever direction, from which the motion does not return.
    """
    if len(positions) < 6:
        return []
    steps = np.diff(positions, axis=0)
    sizes = np.linalg.norm(steps, axis=1)
    known = np.isfinite(sizes)
    if not known.any():
        return []
    floor, fast = 0.15 * float(np.percentile(sizes[known], 90)), float(np.percentile(sizes[known], 95))
    found = []
    for i in range(2, len(sizes) - 2):
        if not known[i - 2 : i + 3].all():  # beside a hole nobody knows how long a step was
            continue
        around = sizes[[i - 2, i - 1, i + 1, i + 2]]
        usual = float(around.mean())
        if sizes[i] > far * max(float(around.max()), 0.5 * fast):
            found.append(i + 1)
            continue
        if usual < floor or usual <= 0 or around.min() < 0.6 * usual or sizes[i] < factor * around.max():
            continue
        cosines = [float(steps[i] @ steps[j]) / (sizes[i] * sizes[j]) for j in (i - 1, i + 1)]
        if min(cosines) > 0.9:
            found.append(i + 1)
    return found
