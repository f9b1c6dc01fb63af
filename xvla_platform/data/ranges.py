"""Where the canonical numbers of a robot lie, field by field, in the form in which a base keeps them for its rows.

In: recorded vectors, episode by episode, and what they mean to the base. Out: a `FieldRange` for each position, joint
and gripper field, actions as absolute targets. Nothing is refused here: a number that never changes has a range too.
"""

from collections.abc import Iterable

import numpy as np

from xvla_platform.data.conventions import Conventions
from xvla_platform.data.reader import DatasetReader, FloatArray
from xvla_platform.data.statistics import canonical_unit
from xvla_platform.data.vectors import read_vectors
from xvla_platform.specs.domain import FieldRange
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import FieldSpec

Ranges = dict[str, dict[str, FieldRange]]
DIGITS = 6  # of metres, radians and closedness


def dataset_ranges(reader: DatasetReader, spec: EmbodimentSpec, conventions: Conventions) -> Ranges:
    """The ranges of every episode of a dataset."""
    return field_ranges(conventions, (_vectors(reader, spec, episode) for episode in range(len(reader.episodes))))


def field_ranges(conventions: Conventions, episodes: Iterable[tuple[FloatArray, FloatArray]]) -> Ranges:
    """`{"proprio": {field: range}, "action": …}` of recorded states [L, P] and actions [L, A] per episode."""
    return {
        vector: {name: _range(field, values) for name, (field, values) in fields.items()}
        for vector, fields in canonical_values(conventions, episodes).items()
    }


def canonical_values(
    conventions: Conventions, episodes: Iterable[tuple[FloatArray, FloatArray]]
) -> dict[str, dict[str, tuple[FieldSpec, FloatArray]]]:
    """By vector and name: each field but rotations, with its canonical numbers [N, size] over all episodes."""
    told = {"proprio": conventions.proprio, "action": conventions.action}
    parts: dict[str, dict[str, list[FloatArray]]] = {
        vector: {field.name: [] for field in fields if field.kind != "rotation"} for vector, fields in told.items()
    }
    for state, action in episodes:
        found = {"proprio": conventions.state(state), "action": conventions.targets(state, action).values}
        for vector, fields in parts.items():
            for name, values in fields.items():
                values.append(found[vector][name])
    return {
        vector: {
            field.name: (field, np.concatenate(parts[vector][field.name]))
            for field in fields
            if parts[vector].get(field.name)
        }
        for vector, fields in told.items()
    }


def _vectors(reader: DatasetReader, spec: EmbodimentSpec, episode: int) -> tuple[FloatArray, FloatArray]:
    vectors = read_vectors(reader, episode, (("proprio", spec.proprio), ("action", spec.action)))
    return vectors["proprio"], vectors["action"]


def _range(field: FieldSpec, values: FloatArray) -> FieldRange:
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    numbers = {"mean": values.mean(axis=0), "std": values.std(axis=0), "q01": low, "q99": high}
    return FieldRange.model_validate(
        {
            "kind": field.kind,
            "arm": field.arm,
            "unit": canonical_unit(field),
            **{name: tuple(round(float(number), DIGITS) for number in part) for name, part in numbers.items()},
        }
    )
