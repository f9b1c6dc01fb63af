"""Frame changes: a recorded pose in the model's frame, and of the model's tool (model = base · recorded · tool)."""

from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

from xvla_platform.data.reader import FloatArray
from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import FrameChange, PoseSpec
from xvla_platform.specs.fields import FieldSpec

Fields = tuple[FieldSpec, ...]
Values = Mapping[str, FloatArray]


class Changes:
    """The declared frame changes of a robot's arms, as rotations and translations."""

    def __init__(self, changes: tuple[FrameChange, ...], vectors: Mapping[str, Fields]) -> None:
        """`vectors` maps `proprio` and `action` to the fields a change must find in them."""
        for number, change in enumerate(changes):
            _check(change, number, vectors)
        self._poses = {change.arm: (_pose(change.base), _pose(change.tool)) for change in changes}

    def apply(self, values: Values, fields: Fields) -> dict[str, FloatArray]:
        """Canonical values by field, poses moved from the recorded frame and tool to the model's."""
        out = dict(values)
        for arm, ((turn, shift), (tool_turn, tool_shift)) in self._poses.items():
            position, rotation = _find(fields, arm, "position"), _find(fields, arm, "rotation")
            if position is not None:
                point = out[position.name]
                if rotation is not None:
                    point = point + out[rotation.name] @ tool_shift
                out[position.name] = point @ turn.T + shift
            if rotation is not None:
                out[rotation.name] = turn @ out[rotation.name] @ tool_turn
        return out

    def undo(self, values: Values, fields: Fields) -> dict[str, FloatArray]:
        """The inverse of `apply`."""
        out = dict(values)
        for arm, ((turn, shift), (tool_turn, tool_shift)) in self._poses.items():
            position, rotation = _find(fields, arm, "position"), _find(fields, arm, "rotation")
            if rotation is not None:
                out[rotation.name] = turn.T @ out[rotation.name] @ tool_turn.T
            if position is not None:
                point = (out[position.name] - shift) @ turn
                if rotation is not None:
                    point = point - out[rotation.name] @ tool_shift
                out[position.name] = point
        return out


def _check(change: FrameChange, number: int, vectors: Mapping[str, Fields]) -> None:
    for vector, fields in vectors.items():
        found = [kind for kind in ("position", "rotation") if _find(fields, change.arm, kind) is not None]
        if not found:
            raise XvlaError(
                f"{vector} has no position and no rotation of arm {change.arm}, so there is no pose to change",
                field=f"frame_changes[{number}]",
                found=", ".join(f"{field.name} ({field.kind})" for field in fields),
            )
        if len(found) < 2 and change.tool != PoseSpec():
            raise XvlaError(
                f"a change of tool needs position and rotation of arm {change.arm} in {vector}",
                field=f"frame_changes[{number}].tool",
                found=f"{found[0]} only",
            )


def _find(fields: Fields, arm: str, kind: str) -> FieldSpec | None:
    return next((field for field in fields if field.arm == arm and field.kind == kind), None)


def _pose(pose: PoseSpec) -> tuple[FloatArray, FloatArray]:
    """Rotation matrix [3, 3] and translation [3] in metres."""
    return Rotation.from_quat(pose.quaternion_xyzw).as_matrix(), np.array(pose.position_m)
