"""Intervals: of a success rate (Wilson), and of the difference that an ablation makes (paired bootstrap).

Episodes are the units everywhere: frames of one episode are nearly equal, so they are drawn together.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

CONFIDENCE = 0.95
DRAWS = 10_000


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a success rate."""
    found = binomtest(successes, episodes).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def paired_difference(
    own: NDArray[Any], other: NDArray[Any], groups: NDArray[Any] | None = None, *, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of `other - own` over pairs [N], with its 95 % percentile bootstrap interval.

    Args:
        groups: [N] the episode of each pair, drawn as a whole; without it every pair is an episode.

    Where all pairs of successes (zeros and ones) differ alike, or none does, nothing else can be drawn; the bounds are
    then what Wilson's interval leaves for the share of episodes that are otherwise. One group says nothing of others.
    """
    difference = np.asarray(other, dtype=np.float64) - np.asarray(own, dtype=np.float64)
    labels = np.arange(len(difference)) if groups is None else np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(labels).astype(np.float64)
    sums = np.bincount(labels, weights=difference)
    mean = float(difference.mean())
    if groups is None and np.ptp(difference) == 0:
        bound = wilson(0, len(difference))[1]
        return mean, max(-1.0, mean - bound), min(1.0, mean + bound)
    if len(counts) < 2:
        return mean, -np.inf, np.inf
    draws = np.random.default_rng(seed).integers(0, len(counts), size=(DRAWS, len(counts)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return mean, float(low), float(high)


def median(values: Sequence[float]) -> float | None:
    """The median, or None of nothing."""
    return float(np.median(values)) if values else None
