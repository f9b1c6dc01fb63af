"""Recorded field values to and from the canonical physical form, in which they are composed and compared.

position: [..., 3] m; rotation: [..., 3, 3]; joint: [..., n] rad, m or share; gripper: [..., 1] closedness, 0 = open
and 1 = closed at the declared values. A measured gripper may lie slightly outside 0..1 and is kept as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from xvla_platform.data.reader import FloatArray
from xvla_platform.data.references import compose, relative_to
from xvla_platform.data.rotations import from_matrix, to_matrix
from xvla_platform.data.units import factor
from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import FieldSpec


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Canonical absolute targets by action field.

    Attributes:
        values: Field name to [L, ...] of one episode, or [M, T, ...] of chunks sampled from one.
        kinds: Field name to its kind; a rotation is interpolated on the group, the rest linearly.
    """

    values: Mapping[str, FloatArray]
    kinds: Mapping[str, str]

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))


def to_canonical(field: FieldSpec, values: FloatArray) -> FloatArray:
    """Canonical values of a field's recorded numbers [..., size]."""
    if field.kind == "rotation":
        assert field.format is not None
        return to_matrix(values * field.scale, field.format, field.unit)
    if field.kind == "gripper":
        assert field.open is not None
        assert field.closed is not None
        if field.threshold is not None:
            beyond = values > field.threshold if field.closed > field.open else values < field.threshold
            return np.where(np.isnan(values), np.nan, beyond.astype(np.float64))
        return (values - field.open) / (field.closed - field.open)
    return values * (field.scale * factor(field.unit))


def from_canonical(field: FieldSpec, values: FloatArray) -> FloatArray:
    """Recorded numbers [..., size] of a field's canonical values; the inverse of `to_canonical`.

    A gripper with a threshold is told to open or to close: `closed` from half the stroke on.
    """
    if field.kind == "rotation":
        assert field.format is not None
        return from_matrix(values, field.format, field.unit) / field.scale
    if field.kind == "gripper":
        assert field.open is not None
        assert field.closed is not None
        if field.threshold is not None:
            return np.where(values >= 0.5, field.closed, field.open)
        return field.open + values * (field.closed - field.open)
    return values / (field.scale * factor(field.unit))


def canonical_unit(field: FieldSpec) -> str:
    """Unit of a field's canonical values: `m`, `rad`, `share` (joints in percent or normalized) or `closedness`."""
    if field.kind == "gripper":
        return "closedness"
    if field.kind == "rotation":
        return "rotation"
    return {"m": "m", "cm": "m", "mm": "m", "rad": "rad", "deg": "rad"}.get(str(field.unit), "share")


def canonical_state(spec: EmbodimentSpec, raw_state: FloatArray) -> dict[str, FloatArray]:
    """Canonical values of every proprio field that is used, of recorded states [..., P]."""
    return {
        field.name: to_canonical(field, raw_state[..., slot])
        for field, slot in zip(spec.proprio.fields, spec.proprio.slices().values(), strict=True)
        if field.kind != "ignored"
    }


def absolute_targets(spec: EmbodimentSpec, raw_state: FloatArray, raw_action: FloatArray) -> Trajectory:
    """Canonical absolute targets, in the recorded frame, of one whole episode's states [L, P] and actions [L, A].

    Gripper targets are clipped to 0..1, because they are the targets of a probability. Ignored fields have none.
    """
    now, values = canonical_state(spec, raw_state), {}
    first = {name: state[:1] for name, state in now.items()}
    for field, slot in zip(spec.action.fields, spec.action.slices().values(), strict=True):
        if field.kind == "ignored":
            continue
        target = to_canonical(field, raw_action[..., slot])
        if field.reference != "absolute":
            target = compose(spec, field, now if field.reference == "relative" else first, target)
        values[field.name] = np.clip(target, 0.0, 1.0) if field.kind == "gripper" else target
    kinds = {field.name: field.kind for field in spec.action.fields if field.kind != "ignored"}
    return Trajectory(values=values, kinds=kinds)


def recorded_actions(
    spec: EmbodimentSpec,
    targets: Mapping[str, FloatArray],
    raw_state: FloatArray,
    first_state: FloatArray | None = None,
) -> FloatArray:
    """Rows [..., A] of the action vector for canonical absolute targets: what `absolute_targets` undoes.

    Args:
        targets: By field, [..., *] in the recorded frame; ignored fields get their declared `value`.
        raw_state: Recorded state [P] (or one a row) that relative fields refer to.
        first_state: Recorded state at the episode's first frame, for fields that are `relative_to_first`.
    """
    now = canonical_state(spec, raw_state)
    first = None if first_state is None else canonical_state(spec, first_state)
    columns: list[FloatArray | None] = []
    for field in spec.action.fields:
        if field.kind == "ignored":
            columns.append(None)
            continue
        target = targets[field.name]
        if field.reference == "relative":
            target = relative_to(spec, field, now, target)
        elif field.reference == "relative_to_first":
            if first is None:
                raise XvlaError(
                    "is relative to the episode's first frame, whose state is not given",
                    field=f"action.{field.name}",
                    hint="give `first_state`; a policy remembers it after reset()",
                )
            target = relative_to(spec, field, first, target)
        columns.append(from_canonical(field, target))
    lead = next(column for column in columns if column is not None).shape[:-1]
    return np.concatenate(
        [
            np.full((*lead, field.size), field.value, dtype=np.float64) if column is None else column
            for field, column in zip(spec.action.fields, columns, strict=True)
        ],
        axis=-1,
    )
