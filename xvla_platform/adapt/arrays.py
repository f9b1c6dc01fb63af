"""Large arrays: in memory up to a budget, in a memory-mapped scratch file above it.

Decoded frames and cached features of a few thousand frames fit anywhere; those of a large dataset under a 0.9B
base (0.6 MB a frame) would not, and are paged from disk instead.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from xvla_platform.platform.files import os_errors

MEMORY_BUDGET = 4 << 30  # bytes of one array


def allocate(shape: tuple[int, ...], dtype: DTypeLike, scratch: Path, budget: int = MEMORY_BUDGET) -> NDArray:
    """An array to be filled: plain memory, or a map of the file `scratch`, which the caller removes."""
    if math.prod(shape) * np.dtype(dtype).itemsize <= budget:
        return np.empty(shape, dtype=dtype)
    with os_errors(scratch):
        scratch.parent.mkdir(parents=True, exist_ok=True)
        return np.lib.format.open_memmap(scratch, mode="w+", dtype=np.dtype(dtype), shape=shape)
