"""`features.json` of a TFDS folder: what one RLDS step holds, and how its numbers are stored.

Keys are those of the records: `steps/observation/image`, `steps/action`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xvla_platform.data.reader import FeatureInfo
from xvla_platform.errors import XvlaError

FEATURES, STEPS = "features.json", "steps"
LANGUAGE = (
    "steps/language_instruction",
    "steps/observation/natural_language_instruction",
    "steps/natural_language_instruction",
    "steps/observation/language_instruction",
)
NUMERIC = "biuf"
DEEPEST = 32


@dataclass(frozen=True, kw_only=True)
class StepFeature:
    """One key of a step.

    `info.dtype` is `image`, `text` or a numeric type. `encoding` is `none` for plain lists of numbers, else how each
    step's tensor is packed into bytes (`bytes` or `zlib`). A size of -1 is not fixed.
    """

    info: FeatureInfo
    encoding: str = "none"

    @property
    def width(self) -> int:
        """Numbers a step."""
        return int(np.prod(self.info.shape)) if self.info.shape else 1


def read_features(folder: Path) -> dict[str, StepFeature]:
    """The step's features by key; ragged sequences, depth images and audio are left out, as nothing reads them."""
    path = folder / FEATURES
    raw = read_json(path)
    try:
        steps = raw["featuresDict"]["features"][STEPS]["sequence"]["feature"]
        return dict(_walk(steps, STEPS, 0))
    except (KeyError, TypeError) as error:
        raise XvlaError(
            f"does not describe episodes of steps: {type(error).__name__} {error}",
            file=path,
            hint="RLDS has a sequence named steps in every example",
        ) from None
    except (ValueError, AttributeError, OverflowError) as error:
        raise XvlaError(f"is damaged: {error}", file=path) from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise XvlaError("dataset metadata is missing", file=path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise XvlaError(f"dataset metadata is damaged: {error}", file=path) from None
    if not isinstance(raw, dict):
        raise XvlaError("dataset metadata is damaged: expected a mapping", file=path)
    return raw


def _walk(feature: Mapping[str, Any], key: str, depth: int) -> list[tuple[str, StepFeature]]:
    if depth > DEEPEST:
        raise ValueError("its features are nested too deeply")
    if "featuresDict" in feature:
        parts = feature["featuresDict"].get("features", {}).items()
        return [found for name, part in parts for found in _walk(part, f"{key}/{name}", depth + 1)]
    if "image" in feature:
        return _image(feature["image"], key)
    if "text" in feature:
        return [(key, StepFeature(info=FeatureInfo(dtype="text", shape=())))]
    if "classLabel" in feature:
        return [(key, StepFeature(info=FeatureInfo(dtype="int64", shape=())))]
    if "tensor" in feature:
        return _tensor(feature["tensor"], key)
    return []


def _image(declared: Mapping[str, Any], key: str) -> list[tuple[str, StepFeature]]:
    shape = _shape(declared)
    if declared.get("dtype", "uint8") != "uint8" or len(shape) != 3 or shape[2] not in (1, 3, 4):
        return []
    return [(key, StepFeature(info=FeatureInfo(dtype="image", shape=shape, names=["height", "width", "channels"])))]


def _tensor(declared: Mapping[str, Any], key: str) -> list[tuple[str, StepFeature]]:
    shape, dtype = _shape(declared), str(declared.get("dtype"))
    if dtype in ("string", "object"):
        return [(key, StepFeature(info=FeatureInfo(dtype="text", shape=())))] if not shape else []
    try:
        kind = np.dtype(dtype).kind
    except TypeError:
        return []
    if kind not in NUMERIC or min(shape, default=1) < 1:
        return []
    encoding = str(declared.get("encoding") or "none").lower()
    return [(key, StepFeature(info=FeatureInfo(dtype=dtype, shape=shape), encoding=encoding))]


def _shape(declared: Mapping[str, Any]) -> tuple[int, ...]:
    sizes = (declared.get("shape") or {}).get("dimensions") or ()
    shape = tuple(int(size) for size in sizes)
    if any(size < -1 or size > 2**24 for size in shape) or len(shape) > 8:
        raise ValueError(f"a feature of shape {list(shape)}")
    return shape
