"""Statistics of dataset columns in LeRobot's layout.

Vectors give lists of length D; images give (3, 1, 1) nested lists on a 0..1 scale, computed exactly from counts of
the 256 levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, Any]


def vector_stats(values: NDArray[Any]) -> Stats:
    """Statistics of a column (N, D)."""
    matrix = values.astype(np.float64)
    stats: Stats = {
        "min": matrix.min(axis=0).tolist(),
        "max": matrix.max(axis=0).tolist(),
        "mean": matrix.mean(axis=0).tolist(),
        "std": matrix.std(axis=0).tolist(),
        "count": [len(matrix)],
    }
    levels = np.quantile(matrix, list(QUANTILES.values()), axis=0)
    return stats | {name: levels[i].tolist() for i, name in enumerate(QUANTILES)}


def image_stats(images: NDArray[np.uint8]) -> tuple[Stats, NDArray[np.int64]]:
    """Statistics of images (N, H, W, 3) and their level counts (3, 256)."""
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(3)]).astype(np.int64)
    return _from_counts(counts, len(images)), counts


def _from_counts(counts: NDArray[np.int64], frames: int) -> Stats:
    levels = np.arange(256) / 255.0
    total = counts.sum(axis=1)
    mean = counts @ levels / total
    variance = np.maximum(counts @ levels**2 / total - mean**2, 0.0)
    present = counts > 0
    cumulative = np.cumsum(counts, axis=1) / total[:, None]
    stats: dict[str, NDArray[np.float64]] = {
        "min": levels[present.argmax(axis=1)],
        "max": levels[255 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(variance),
    }
    for name, share in QUANTILES.items():
        stats[name] = levels[(cumulative >= share - 1e-12).argmax(axis=1)]
    nested: Stats = {name: value.reshape(3, 1, 1).tolist() for name, value in stats.items()}
    return nested | {"count": [frames]}


class VectorAccumulator:
    """Collects a column episode by episode."""

    def __init__(self) -> None:
        self._parts: list[NDArray[Any]] = []

    def add(self, values: NDArray[Any]) -> None:
        """Add rows (N, D)."""
        self._parts.append(values)

    def result(self) -> Stats:
        """Statistics over everything added."""
        return vector_stats(np.concatenate(self._parts))


class ImageAccumulator:
    """Adds up level counts of a camera."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), dtype=np.int64)
        self._frames = 0

    def add(self, counts: NDArray[np.int64], frames: int) -> None:
        """Add level counts (3, 256) of ``frames`` images."""
        self._counts += counts
        self._frames += frames

    def result(self) -> Stats:
        """Statistics over everything added."""
        return _from_counts(self._counts, self._frames)
