"""Faults of single columns: dims that stand still or almost, that repeat another, and values that leap away.

In: one array [L, D] an episode. Out: plain numbers for each dim.
"""

from collections.abc import Sequence

import numpy as np

from xvla_platform.data.reader import FloatArray

STILL = 1e-9
FAR = 50.0  # a normalised value beyond this is no part of any distribution


def constant_dims(episodes: Sequence[FloatArray]) -> list[int]:
    """Dims [D] that have one value throughout."""
    low = np.min([np.nanmin(episode, axis=0) for episode in episodes], axis=0)
    high = np.max([np.nanmax(episode, axis=0) for episode in episodes], axis=0)
    size = np.maximum(np.abs(low), np.abs(high))
    return [int(dim) for dim in np.flatnonzero(high - low <= STILL + 1e-7 * size)]


def still_episodes(episodes: Sequence[FloatArray]) -> dict[int, list[int]]:
    """Dim to the places of the episodes in which it stands still, for dims that elsewhere hardly ever do."""
    spans = np.array([np.nanmax(episode, axis=0) - np.nanmin(episode, axis=0) for episode in episodes])
    usual = np.median(spans, axis=0) if len(spans) else np.zeros(0)
    lengths = np.array([len(episode) for episode in episodes])
    out = {}
    for dim in np.flatnonzero(usual > STILL):
        quiet = np.flatnonzero((spans[:, dim] <= 1e-6 * usual[dim]) & (lengths > 3))
        others = spans[:, dim][spans[:, dim] > 1e-6 * usual[dim]]
        # Only a dim that always moves a good deal is suspicious where it does not.
        if len(quiet) and len(others) and np.percentile(others, 5) > 0.05 * usual[dim]:
            out[int(dim)] = [int(place) for place in quiet]
    return out


def worst_quantile_value(values: FloatArray) -> FloatArray:
    """Largest size that each dim [D] of values [N, D] takes once the 1st and 99th percentiles are mapped to -1..1.

    inf where both coincide although the dim moves.
    """
    q01, q99 = np.percentile(values, [1, 99], axis=0)
    width = q99 - q01
    low, high = values.min(axis=0), values.max(axis=0)
    worst = np.ones(values.shape[1])
    moves = high - low > STILL
    reach = np.maximum(np.abs(2 * (high - q01) - width), np.abs(2 * (low - q01) - width))
    safe = width > 1e-12 * np.maximum(np.abs(q01), np.abs(q99))
    worst[moves & safe] = (reach / np.where(safe, width, 1.0))[moves & safe]
    worst[moves & ~safe] = np.inf
    return worst


def duplicate_dims(values: FloatArray) -> list[tuple[int, int, float]]:
    """Pairs of dims of [N, D] that hold the same motion, with the sign and scale of the second against the first.

    Only dims that move are compared; the match is exact up to rounding.
    """
    centred = values - values.mean(axis=0)
    power = np.sqrt((centred**2).mean(axis=0))
    alive = np.flatnonzero(power > STILL)
    found = []
    for place, first in enumerate(alive):
        for second in alive[place + 1 :]:
            share = float((centred[:, first] * centred[:, second]).mean() / (power[first] * power[second]))
            if abs(share) > 1 - 1e-9:
                found.append((int(first), int(second), float(np.sign(share) * power[second] / power[first])))
    return found


def spikes(episodes: Sequence[FloatArray], *, factor: float = 25.0) -> dict[int, list[tuple[int, int]]]:
    """Dim to (place of episode, frame) where one value leaps away and comes back.

    A spike's jump there and its jump back are both more than `factor` times the dim's usual fast step (99th
    percentile), or single values lie that far outside what the dim does otherwise.
    """
    out: dict[int, list[tuple[int, int]]] = {}
    if not episodes:
        return out
    steps = np.concatenate(
        [np.abs(np.diff(episode, axis=0)) for episode in episodes if len(episode) > 1] or [np.zeros((1, 1))]
    )
    usual = np.nanpercentile(steps, 95, axis=0)
    everything = np.concatenate(episodes)
    low, high = np.nanpercentile(everything, [2, 98], axis=0)
    width = high - low
    for place, episode in enumerate(episodes):
        if len(episode) < 3:
            continue
        before, after = np.diff(episode, axis=0)[:-1], np.diff(episode, axis=0)[1:]
        middle = episode[1:-1]
        leap = (np.sign(before) != np.sign(after)) & (
            np.minimum(np.abs(before), np.abs(after)) > factor * usual + STILL
        )
        outside = (middle > high + 0.75 * width) | (middle < low - 0.75 * width)
        for row, dim in zip(*np.nonzero(leap & outside & (width > STILL)), strict=True):
            out.setdefault(int(dim), []).append((place, int(row) + 1))
    return out


def wraps(values: FloatArray, turn: float) -> int:
    """How often an angle [L] jumps by about a whole turn between two frames."""
    return int((np.abs(np.abs(np.diff(values)) - turn) < 0.12 * turn).sum())
