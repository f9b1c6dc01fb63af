"""Episodes against each other: how much of them is idle, and which are copies.

In: an episode's states [L, P]. Out: shares, and pairs of episodes that are the same demonstration.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xvla_platform.data.reader import FloatArray

POINTS = 24  # of each trajectory that are compared
ALIKE = 0.02  # of the usual distance between two demonstrations: nobody repeats a motion this closely


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Two episodes that are one demonstration; `distance` is a share of the usual distance between episodes."""

    first: int
    second: int
    distance: float


def idle_frames(states: FloatArray, limits: FloatArray) -> np.ndarray:
    """Which frames [L] of an episode change no number by more than its limit until the next frame."""
    if len(states) < 2:
        return np.ones(len(states), dtype=bool)
    still: np.ndarray = np.asarray((np.abs(np.diff(states, axis=0)) <= limits).all(axis=1))
    return np.append(still, still[-1])


def longest_run(flags: np.ndarray) -> int:
    """Length of the longest run of True."""
    best = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        best = max(best, run)
    return best


def outline(states: FloatArray) -> FloatArray:
    """An episode's states at `POINTS` first frames, taken every few frames: [POINTS, P].

    Counted from the start, so that a copy that was cut short still shows; a shorter episode repeats its end.
    """
    index = np.minimum(np.arange(POINTS), max(0, len(states) - 1))
    return states[index]


def whole(states: FloatArray) -> FloatArray:
    """An episode's states at `POINTS` moments spread evenly over it: [POINTS, P]."""
    return states[np.round(np.linspace(0, len(states) - 1, POINTS)).astype(int)]


def twins(outlines: Sequence[FloatArray], scale: FloatArray) -> list[Twins]:
    """Pairs of episodes whose outlines [POINTS, P] lie together; `scale` [P] makes the numbers comparable.

    The limit is a share of the median distance from an episode to its nearest other one, so a task that is alike in
    every episode is not mistaken for a copy.
    """
    count = len(outlines)
    if count < 3:
        return []
    flat = np.stack(outlines) / np.where(scale > 0, scale, 1.0)
    flat = flat.reshape(count, -1)
    squares = (flat**2).sum(axis=1)
    nearest = np.full(count, np.inf)
    pairs: list[tuple[int, int, float]] = []
    block = 256
    distances_of = []
    for start in range(0, count, block):
        part = flat[start : start + block]
        distances = np.sqrt(np.maximum(squares[start : start + block, None] + squares - 2 * part @ flat.T, 0.0))
        distances[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf
        nearest[start : start + block] = distances.min(axis=1)
        distances_of.append(distances)
    # Copies have a neighbour at hand, so the usual distance is that of the pairs, not of the nearest ones alone.
    finite = np.concatenate([part[np.isfinite(part)] for part in distances_of])
    usual = max(float(np.median(nearest)), 0.1 * float(np.median(finite)))
    limit = max(ALIKE * usual, 1e-9)
    for number, distances in enumerate(distances_of):
        for row, column in zip(*np.nonzero(distances < limit), strict=True):
            first = int(row) + number * block
            if first < column:
                pairs.append((first, int(column), float(distances[row, column] / max(usual, 1e-12))))
    return [Twins(first=first, second=second, distance=distance) for first, second, distance in pairs]
