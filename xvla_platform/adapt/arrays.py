"""Large arrays: in memory up to a budget, in a memory-mapped scratch file above it.

Decoded frames and cached features of a few thousand frames fit anywhere; those of a large dataset under a 0.9B
base (0.6 MB a frame) would not, and are paged from disk instead.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from xvla_platform.platform.files import os_errors

MEMORY_BUDGET = 4 << 30  # bytes of one array


def allocate(shape: tuple[int, ...], dtype: DTypeLike, scratch: Path, budget: int = MEMORY_BUDGET) -> NDArray:
    """An array to be filled: plain memory, or a map of the file `scratch`, which the caller removes."""
    if math.prod(shape) * np.dtype(dtype).itemsize <= budget:
        return np.empty(shape, dtype=dtype)
    return create_map(scratch, shape, dtype)


def create_map(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> "np.memmap[Any, Any]":
    """A new `.npy` file as a map that can be filled, with its place on the disk taken.

    Without that a full disk shows only while the map is filled, as a signal that ends the process.
    """
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            out: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return out
