"""Declarations with one thing said differently."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import FieldSpec
from xvla_platform.testing.faults.fault import CannotBePlantedError

Part = Literal["both", "proprio", "action"]
FieldEdit = Callable[[FieldSpec], Mapping[str, Any]]
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}


def parts(part: Part) -> tuple[str, ...]:
    """The vectors that `part` means."""
    return ("proprio", "action") if part == "both" else (part,)


def restated(spec: EmbodimentSpec, **changes: Any) -> EmbodimentSpec:
    """The declaration with some of its entries replaced, validated as a file would be."""
    try:
        return EmbodimentSpec.model_validate({**spec.model_dump(mode="json"), **changes})
    except ValidationError as error:
        raise CannotBePlantedError(f"{spec.name} cannot be declared so: {error.errors()[0]['msg']}") from None


def redeclared(spec: EmbodimentSpec, kind: str, edit: FieldEdit, part: Part = "both") -> EmbodimentSpec:
    """The declaration with each field of a kind changed by what `edit(field)` gives."""
    values = spec.model_dump(mode="json")
    for name in parts(part):
        vector = spec.proprio if name == "proprio" else spec.action
        for place, field in enumerate(vector.fields):
            if field.kind == kind:
                values[name]["fields"][place] |= dict(edit(field))
    return restated(spec, **values)


def dims(spec: EmbodimentSpec, name: str, kind: str) -> list[int]:
    """Columns that the fields of a kind take in the vector `proprio` or `action`."""
    vector = spec.proprio if name == "proprio" else spec.action
    slots = vector.slices()
    found = [d for f in vector.fields if f.kind == kind for d in range(slots[f.name].start, slots[f.name].stop)]
    if not found:
        raise CannotBePlantedError(f"{spec.name} has no {kind} in its {name}")
    return found


def field_of(spec: EmbodimentSpec, name: str, kind: str) -> tuple[FieldSpec, slice]:
    """The first field of a kind in a vector, and its columns."""
    vector = spec.proprio if name == "proprio" else spec.action
    for field in vector.fields:
        if field.kind == kind:
            return field, vector.slices()[field.name]
    raise CannotBePlantedError(f"{spec.name} has no {kind} in its {name}")


def spread(values: np.ndarray) -> np.ndarray:
    """Largest minus smallest of each column [L, D], [D]; never zero."""
    return np.maximum(np.ptp(values, axis=0), 1e-9)
