"""Optional scaling of position and joint fields for the model. X-VLA's own convention is none.

All numbers are canonical (m, rad). `mean_std` gives zero mean and unit deviation; `min_max` and `quantile`
map [min, max] and [q01, q99] to [-1, 1], without clipping. A number that hardly moves is not blown up: the scale
is never below the field's `floor`, nor so small that a training number would lie beyond `FARTHEST`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xvla_platform.data.reader import FloatArray
from xvla_platform.errors import XvlaError
from xvla_platform.specs.fields import FieldSpec

# The least scale by canonical unit: what moves less is rest or noise, and a step of 1 rad must stay a number that a
# network was trained for. They are stored with the statistics, so that an artifact keeps the ones it was made with.
FLOORS = {"m": 0.005, "rad": 0.02, "share": 0.02, "closedness": 0.02}
FARTHEST = 10.0
BOUNDS = {"min_max": ("min", "max"), "quantile": ("q01", "q99")}


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """model = (canonical - offset) / scale, per number of the field; the same object in training and in serving."""

    offset: FloatArray
    scale: FloatArray

    def apply(self, values: FloatArray) -> FloatArray:
        return (values - self.offset) / self.scale

    def invert(self, values: FloatArray) -> FloatArray:
        return values * self.scale + self.offset


def scaling(field: FieldSpec, vector: str, statistics: Mapping[str, Any] | None) -> Scaling:
    """The field's declared scaling; `vector` is `proprio` or `action`."""
    if field.normalization == "none":
        return Scaling(offset=np.zeros(1), scale=np.ones(1))
    try:
        assert statistics is not None
        entry = statistics["canonical"][vector][field.name]
        if field.normalization == "mean_std":
            offset, spread = np.asarray(entry["mean"], float), np.asarray(entry["std"], float)
        else:
            low, high = (np.asarray(entry[name], float) for name in BOUNDS[field.normalization])
            offset, spread = (low + high) / 2.0, (high - low) / 2.0
        farthest = np.maximum(np.asarray(entry["max"], float) - offset, offset - np.asarray(entry["min"], float))
        scale = np.maximum.reduce([spread, farthest / FARTHEST, np.full(spread.shape, float(entry["floor"]))])
    except (AssertionError, KeyError, TypeError, ValueError):
        raise XvlaError(
            f"normalization {field.normalization} needs the dataset's statistics, which are missing",
            field=f"{vector}.{field.name}",
            hint="compute them with add-embodiment, or declare normalization: none",
        ) from None
    if offset.shape != (field.size,):
        raise XvlaError(
            "statistics have another size than the field",
            field=f"{vector}.{field.name}",
            found=offset.size,
            allowed=str(field.size),
        )
    return Scaling(offset=offset, scale=scale)
