"""Joints as end-effector poses for a base that knows poses only, by the robot's own kinematics, and back.

The joint field of an arm with declared `kinematics` is told to the model as a position and a rotation. Targets come
back as joints by inverse kinematics, sought from where the joints are now and from each target to the next.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from xvla_platform.data.kinematics import Chain
from xvla_platform.data.reader import FloatArray
from xvla_platform.data.robot_file import portable
from xvla_platform.errors import XvlaError
from xvla_platform.specs.action_space import ActionSpace
from xvla_platform.specs.embodiment import EmbodimentSpec, KinematicsSpec
from xvla_platform.specs.fields import FieldSpec

Fields = tuple[FieldSpec, ...]
Values = Mapping[str, FloatArray]


class Arms:
    """The arms whose joints become poses: their kinematics and the fields on both sides.

    Attributes:
        files: Name of each kinematics file in use to its text.
    """

    def __init__(self, spec: EmbodimentSpec, space: ActionSpace | None, folder: Path | None) -> None:
        """With a `space` that holds no poses (or none at all) joints stay what they are."""
        self._spec = spec
        self._chains: dict[str, Chain] = {}
        self.files: dict[str, str] = {}
        for number, kinematics in enumerate(spec.kinematics):
            if space is not None and space.find("position", kinematics.arm) is not None:
                self._check(kinematics, number)
                if folder is None:
                    raise XvlaError(
                        "joints become poses by the robot's kinematics, and the folder of its file is not given",
                        field=f"kinematics[{number}].file",
                        found=kinematics.file,
                    )
                self._chains[kinematics.arm] = Chain(kinematics, folder)
                self.files[kinematics.file] = portable(kinematics.file, folder)

    @property
    def any(self) -> bool:
        return bool(self._chains)

    def fields(self, declared: Fields, vector: str) -> Fields:
        """The fields the model is told: ignored ones left out, joints of these arms replaced by their pose."""
        out: list[FieldSpec] = []
        for field in declared:
            if field.kind == "joint" and field.arm in self._chains:
                out += pose_fields(field)
            elif field.kind != "ignored":
                out.append(field)
        names = [field.name for field in out]
        for name in names:
            if names.count(name) > 1:
                raise XvlaError("this name is needed for the pose that joints become", field=f"{vector}.{name}")
        return tuple(out)

    def to_poses(self, values: Values) -> dict[str, FloatArray]:
        """Canonical values by declared field, with joints [..., n] as position [..., 3] and rotation [..., 3, 3]."""
        out: dict[str, FloatArray] = {}
        for name, value in values.items():
            field = self._joint(name)
            if field is None:
                out[name] = value
                continue
            where, turn = pose_fields(field)
            out[where.name], out[turn.name] = self._chains[field.arm].forward(value)
        return out

    def to_joints(self, targets: Values, now: Values | None) -> dict[str, FloatArray]:
        """Targets [..., T, *] with poses as joints [..., T, n]; `now` is the canonical state [..., *] of the moment."""
        out = dict(targets)
        for field in self._spec.action.fields:
            if field.kind != "joint" or field.arm not in self._chains:
                continue
            if now is None:
                raise XvlaError(
                    "joints are found from where they are now, and the state is not given",
                    field=f"action.{field.name}",
                    hint="give the recorded state of the moment",
                )
            where, turn = (out.pop(part.name) for part in pose_fields(field))
            (state,) = (f for f in self._spec.proprio.fields if f.kind == "joint" and f.arm == field.arm)
            out[field.name] = _follow(self._chains[field.arm], where, turn, now[state.name])
        return out

    def _joint(self, name: str) -> FieldSpec | None:
        """The joint field called `name` of either vector, if its arm is turned into a pose."""
        for field in (*self._spec.proprio.fields, *self._spec.action.fields):
            if field.name == name and field.kind == "joint" and field.arm in self._chains:
                return field
        return None

    def _check(self, kinematics: KinematicsSpec, number: int) -> None:
        place, count = f"kinematics[{number}]", len(kinematics.joints)
        for name, fields in (("proprio", self._spec.proprio.fields), ("action", self._spec.action.fields)):
            own = [field for field in fields if field.arm == kinematics.arm]
            joints = [field for field in own if field.kind == "joint"]
            poses = [field for field in own if field.kind in ("position", "rotation")]
            if name == "action" and poses and not joints:
                continue  # driven by poses, and observed in joints
            if poses:
                raise XvlaError(
                    f"the pose of arm {kinematics.arm} comes from its joints, and {name} has another one",
                    field=f"{name}.{poses[0].name}",
                    hint="declare it as a field of kind ignored, or remove the kinematics",
                )
            if len(joints) != 1 or joints[0].size != count:
                raise XvlaError(
                    f"kinematics names {count} joints, so {name} needs one joint field of that size on this arm",
                    field=f"{place}.joints",
                    found=", ".join(f"{field.name} {field.size}" for field in joints) or "none",
                    allowed=str(count),
                )
            if joints[0].unit in ("percent", "normalized"):
                raise XvlaError(
                    "kinematics needs joints in angles or lengths",
                    field=f"{name}.{joints[0].name}.unit",
                    found=joints[0].unit,
                    allowed="rad, deg, m, mm",
                )


def carried(spec: EmbodimentSpec, folder: Path) -> tuple[EmbodimentSpec, dict[str, str]]:
    """`spec` with its kinematics files beside the record, and those files: name to text."""
    files, parts = {}, []
    for kinematics in spec.kinematics:
        name = f"kinematics_{kinematics.arm}.xml"
        files[name] = portable(kinematics.file, folder)
        parts.append(kinematics.model_copy(update={"file": name}))
    return spec.model_copy(update={"kinematics": tuple(parts)}), files


def pose_fields(field: FieldSpec) -> tuple[FieldSpec, FieldSpec]:
    """The position and the rotation that stand for a joint field."""
    return (
        FieldSpec(
            name=f"{field.name}_position",
            kind="position",
            size=3,
            unit="mm",
            frame="base",
            arm=field.arm,
            normalization=field.normalization,
        ),
        FieldSpec(name=f"{field.name}_rotation", kind="rotation", size=9, format="matrix", frame="base", arm=field.arm),
    )


def _follow(chain: Chain, where: FloatArray, turn: FloatArray, start: FloatArray) -> FloatArray:
    """Joints [..., T, n] for poses [..., T, 3] and [..., T, 3, 3], each sought from the one before."""
    lead = where.shape[:-2]
    out = np.zeros((*where.shape[:-1], start.shape[-1]))
    for index in np.ndindex(*lead):
        out[index] = chain.follow(where[index], turn[index], start[index] if start.ndim > 1 else start)
    return out
