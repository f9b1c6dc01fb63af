"""What a relative action refers to, and how it is put together with it: added, or composed on the rotation group.

All values are canonical and absolute ones are in the recorded frame. The state is that of the same frame
(`relative`) or of the episode's first frame (`relative_to_first`).
"""

from collections.abc import Mapping

import numpy as np

from xvla_platform.data.reader import FloatArray
from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import ActionFieldSpec, FieldSpec

State = Mapping[str, FloatArray]


def reference_field(states: tuple[FieldSpec, ...], action: FieldSpec) -> FieldSpec:
    """The proprio field that is the state of an action field: of its kind, arm and size, by name if several."""
    fitting = [
        state
        for state in states
        if state.kind == action.kind
        and state.arm == action.arm
        and (state.kind != "joint" or state.size == action.size)
    ]
    named = [state for state in fitting if state.name == action.name]
    if len(named or fitting) != 1:
        raise XvlaError(
            f"a relative {action.kind} needs exactly one proprio field of arm {action.arm} to refer to",
            field=f"action.{action.name}",
            found=", ".join(state.name for state in fitting) or "none",
            hint="give both fields the same name and size",
        )
    return (named or fitting)[0]


def check_references(spec: EmbodimentSpec) -> None:
    """Refuse relative actions whose state is not in proprio."""
    for field in spec.action.fields:
        if field.reference != "absolute":
            reference_field(spec.proprio.fields, field)
            _rotation_field(spec, field)


def compose(spec: EmbodimentSpec, field: ActionFieldSpec, state: State, action: FloatArray) -> FloatArray:
    """The absolute target of a relative action, given the canonical state by proprio field."""
    now, turned = _state_of(spec, field, state)
    if field.kind == "rotation":
        return now @ action if field.axes == "tool" else action @ now
    if turned is not None:
        return now + (turned @ action[..., None])[..., 0]
    return now + action


def relative_to(spec: EmbodimentSpec, field: ActionFieldSpec, state: State, target: FloatArray) -> FloatArray:
    """The action that leads from the state to `target`; the inverse of `compose`."""
    now, turned = _state_of(spec, field, state)
    if field.kind == "rotation":
        back = np.swapaxes(now, -1, -2)
        return back @ target if field.axes == "tool" else target @ back
    if turned is not None:
        moved: FloatArray = (np.swapaxes(turned, -1, -2) @ (target - now)[..., None])[..., 0]
        return moved
    return target - now


def _state_of(spec: EmbodimentSpec, field: ActionFieldSpec, state: State) -> tuple[FloatArray, FloatArray | None]:
    """The state of the field's own kind, and the tool's rotation where the field is a step along its axes."""
    turned = _rotation_field(spec, field)
    now = state[reference_field(spec.proprio.fields, field).name]
    return now, None if turned is None else state[turned.name]


def _rotation_field(spec: EmbodimentSpec, field: ActionFieldSpec) -> FieldSpec | None:
    if field.kind != "position" or field.axes != "tool":
        return None
    for state in spec.proprio.fields:
        if state.kind == "rotation" and state.arm == field.arm:
            return state
    raise XvlaError(
        f"a position along the tool's axes needs the rotation of arm {field.arm} in proprio",
        field=f"action.{field.name}.axes",
        found="tool",
        allowed="frame, or a rotation field in proprio",
    )
