"""Recorded field values to and from the canonical physical form, in which they are composed and compared.

position: [..., 3] m; rotation: [..., 3, 3]; joint: [..., n] rad or m; gripper: [..., 1] closedness, 0 = open
and 1 = closed at the declared values. A measured gripper may lie slightly outside 0..1 and is kept as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from xvla_platform.data.reader import FloatArray
from xvla_platform.data.rotations import from_matrix, to_matrix
from xvla_platform.data.units import factor
from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import ActionFieldSpec, FieldSpec


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Canonical absolute targets of every action field.

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
        return to_matrix(values, field.format, field.unit)
    if field.kind == "gripper":
        assert field.open is not None
        assert field.closed is not None
        return (values - field.open) / (field.closed - field.open)
    return values * factor(field.unit)


def from_canonical(field: FieldSpec, values: FloatArray) -> FloatArray:
    """Recorded numbers [..., size] of a field's canonical values; the inverse of `to_canonical`."""
    if field.kind == "rotation":
        assert field.format is not None
        return from_matrix(values, field.format, field.unit)
    if field.kind == "gripper":
        assert field.open is not None
        assert field.closed is not None
        return field.open + values * (field.closed - field.open)
    return values / factor(field.unit)


def compose(kind: str, state: FloatArray, action: FloatArray) -> FloatArray:
    """The absolute target `state · action` of a relative action: added, or composed on the rotation group."""
    return state @ action if kind == "rotation" else state + action


def relative_to(kind: str, state: FloatArray, target: FloatArray) -> FloatArray:
    """The action that leads from `state` to `target`; the inverse of `compose`."""
    return np.swapaxes(state, -1, -2) @ target if kind == "rotation" else target - state


def reference_field(spec: EmbodimentSpec, action: ActionFieldSpec) -> FieldSpec:
    """The proprio field a relative action refers to: of its kind, arm and size, by name if several."""
    states = [
        state
        for state in spec.proprio.fields
        if state.kind == action.kind
        and state.arm == action.arm
        and (state.kind != "joint" or state.size == action.size)
    ]
    named = [state for state in states if state.name == action.name]
    if len(named or states) != 1:
        raise XvlaError(
            f"a relative {action.kind} needs exactly one proprio field of arm {action.arm} to refer to",
            field=f"action.{action.name}",
            found=", ".join(state.name for state in states) or "none",
            hint="give both fields the same name and size",
        )
    return (named or states)[0]


def absolute_targets(spec: EmbodimentSpec, raw_state: FloatArray, raw_action: FloatArray) -> Trajectory:
    """Canonical absolute targets of recorded states [L, P] and actions [L, A] of the same frames.

    Gripper targets are clipped to 0..1, because they are the targets of a probability.
    """
    state_slices, values = spec.proprio.slices(), {}
    for field, slot in zip(spec.action.fields, spec.action.slices().values(), strict=True):
        target = to_canonical(field, raw_action[..., slot])
        if field.reference == "relative":
            state = reference_field(spec, field)
            target = compose(field.kind, to_canonical(state, raw_state[..., state_slices[state.name]]), target)
        values[field.name] = np.clip(target, 0.0, 1.0) if field.kind == "gripper" else target
    return Trajectory(values=values, kinds={field.name: field.kind for field in spec.action.fields})
