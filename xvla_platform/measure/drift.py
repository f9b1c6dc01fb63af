"""How one field's numbers lie against the same field's numbers elsewhere: shift, overlap, share outside, scale.

In: canonical numbers [N, n] and a `Reference` [n]. Out: numbers, rows of a table, and the factor between two units.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xvla_platform.data.reader import FloatArray

# The ratios of one unit to another, in words.
FACTORS = {10.0: "10", 180 / math.pi: "57.3 (degrees and radians)", 100.0: "100", 1000.0: "1000"}
MARGIN = 0.25  # of the range between the quantiles, on either side


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One field's numbers elsewhere: [n] each."""

    mean: FloatArray
    std: FloatArray
    q01: FloatArray
    q99: FloatArray
    floor: float

    def spread(self) -> FloatArray:
        return np.maximum(self.q99 - self.q01, self.floor)

    def outside(self, values: FloatArray) -> FloatArray:
        """[N, n] bool: beyond the quantiles by more than a quarter of the range between them."""
        room = MARGIN * self.spread() + self.floor
        return np.asarray((values < self.q01 - room) | (values > self.q99 + room))


def comparison(place: str, numbers: FloatArray, reference: Reference) -> list[dict[str, Any]]:
    """One row for each number of a field: both ranges, how far they overlap, the shift and the share outside."""
    low, high = np.quantile(numbers, [0.01, 0.99], axis=0)
    shift = (numbers.mean(axis=0) - reference.mean) / np.maximum(reference.std, reference.floor)
    shared, share = overlap(numbers, reference), reference.outside(numbers).mean(axis=0)
    return [
        {
            "field": f"{place}[{dim}]",
            "q01": float(low[dim]),
            "q99": float(high[dim]),
            "reference_q01": float(reference.q01[dim]),
            "reference_q99": float(reference.q99[dim]),
            "overlap": float(shared[dim]),
            "shift": float(shift[dim]),
            "outside": float(share[dim]),
        }
        for dim in range(numbers.shape[1])
    ]


def overlap(numbers: FloatArray, reference: Reference) -> FloatArray:
    """[n]: shared part of the two ranges between the quantiles, of the part that either covers."""
    low, high = np.quantile(numbers, [0.01, 0.99], axis=0)
    shared = np.minimum(high, reference.q99) - np.maximum(low, reference.q01)
    either = np.maximum(high, reference.q99) - np.minimum(low, reference.q01)
    return np.asarray(np.clip(shared, 0.0, None) / np.maximum(either, reference.floor))


def known_factor(ratio: float, within: float) -> str:
    """` (a factor of 1000)` where the ratio is one between two units, else nothing."""
    size = max(ratio, 1 / ratio)
    near = min(FACTORS, key=lambda factor: abs(math.log(size / factor)))
    return f", a factor of about {FACTORS[near]}" if abs(math.log(size / near)) < math.log(within) else ""


def times(ratio: float) -> str:
    """A ratio above 0 in words: `12 times`, or `1/12 of` below 1."""
    return f"{ratio:.3g} times" if ratio >= 1 else f"1/{1 / ratio:.3g} of"
