"""The vocabulary of one vector: ordered fields with kind, size, unit, frame and format.

A dataset column (`observation.state`, `action`) is declared as consecutive fields. Their sizes partition the
column by construction, so no index can be counted twice or forgotten.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from xvla_platform.specs.base import StrictModel

Kind = Literal["position", "rotation", "joint", "gripper"]
Arm = Literal["left", "right"]
Frame = Literal["base", "world", "camera", "tool"]
Reference = Literal["absolute", "relative"]
Normalization = Literal["none", "mean_std", "min_max", "quantile"]
RotationFormat = Literal[
    "quaternion_xyzw",
    "quaternion_wxyz",
    "euler_xyz_extrinsic",
    "axis_angle",
    "rot6d_columns",
    "rot6d_interleaved",
    "matrix",
]
Unit = Literal["m", "cm", "mm", "rad", "deg", "percent", "normalized"]

ROTATION_SIZE: dict[str, int] = {
    "quaternion_xyzw": 4,
    "quaternion_wxyz": 4,
    "euler_xyz_extrinsic": 3,
    "axis_angle": 3,
    "rot6d_columns": 6,
    "rot6d_interleaved": 6,
    "matrix": 9,
}
ANGLE_FORMATS = ("euler_xyz_extrinsic", "axis_angle")

UNITS_OF_KIND: dict[str, tuple[str, ...]] = {
    "position": ("m", "cm", "mm"),
    "rotation": ("rad", "deg"),
    "joint": ("rad", "deg", "m", "mm"),
    "gripper": ("m", "cm", "mm", "rad", "deg", "percent", "normalized"),
}


class FieldSpec(StrictModel):
    """One consecutive slice of a dataset column.

    Attributes:
        name: Unique within the column.
        kind: What the numbers are.
        size: How many dataset columns the field takes.
        unit: Unit of the recorded numbers; needed for everything but unitless rotation formats.
        frame: Frame in which a position or rotation is expressed.
        format: Rotation format (rotation fields only).
        arm: Which arm of a two-armed action space the field drives; a single arm is the left one.
        open: Recorded value of an open gripper (gripper fields only); with `closed` it states polarity
            and range.
        closed: Recorded value of a closed gripper.
        normalization: How the value is scaled for the model; X-VLA's own convention is none.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    kind: Kind
    size: int = Field(ge=1, le=64)
    unit: Unit | None = None
    frame: Frame | None = None
    format: RotationFormat | None = None
    arm: Arm = "left"
    open: float | None = Field(default=None, allow_inf_nan=False)
    closed: float | None = Field(default=None, allow_inf_nan=False)
    normalization: Normalization = "none"

    @model_validator(mode="after")
    def _kind_rules(self) -> Self:
        if self.kind == "position" and self.size != 3:
            raise ValueError(f"a position has size 3, found {self.size}")
        if self.kind in ("position", "rotation") and self.frame is None:
            raise ValueError(f"field '{self.name}': a {self.kind} needs `frame` (base, world, camera or tool)")
        if self.kind not in ("position", "rotation") and self.frame is not None:
            raise ValueError(f"field '{self.name}': `frame` belongs to position and rotation fields only")
        self._rotation_rules()
        self._gripper_rules()
        if self.unit is not None and self.unit not in UNITS_OF_KIND[self.kind]:
            allowed = ", ".join(UNITS_OF_KIND[self.kind])
            raise ValueError(f"field '{self.name}': unit '{self.unit}' is not one of a {self.kind} ({allowed})")
        if self.unit is None and self.kind != "rotation":
            allowed = ", ".join(UNITS_OF_KIND[self.kind])
            raise ValueError(f"field '{self.name}': a {self.kind} needs `unit` ({allowed})")
        if self.normalization != "none" and self.kind in ("rotation", "gripper"):
            raise ValueError(f"field '{self.name}': a {self.kind} is converted, not normalized; use none")
        return self

    def _rotation_rules(self) -> None:
        if self.kind != "rotation":
            if self.format is not None:
                raise ValueError(f"field '{self.name}': `format` belongs to rotation fields only")
            return
        if self.format is None:
            raise ValueError(f"field '{self.name}': a rotation needs `format` ({', '.join(ROTATION_SIZE)})")
        if self.size != ROTATION_SIZE[self.format]:
            raise ValueError(
                f"field '{self.name}': format {self.format} has size {ROTATION_SIZE[self.format]}, found {self.size}"
            )
        if (self.format in ANGLE_FORMATS) != (self.unit is not None):
            rule = "needs `unit` (rad or deg)" if self.format in ANGLE_FORMATS else "has no unit"
            raise ValueError(f"field '{self.name}': format {self.format} {rule}")

    def _gripper_rules(self) -> None:
        if self.kind != "gripper":
            if self.open is not None or self.closed is not None:
                raise ValueError(f"field '{self.name}': `open` and `closed` belong to gripper fields only")
            return
        if self.size != 1:
            raise ValueError(f"field '{self.name}': a gripper has size 1, found {self.size}")
        if self.open is None or self.closed is None:
            raise ValueError(f"field '{self.name}': a gripper needs the recorded values `open` and `closed`")
        if self.open == self.closed:
            raise ValueError(f"field '{self.name}': `open` and `closed` are both {self.open}")


class ActionFieldSpec(FieldSpec):
    """An action field also says what its numbers refer to.

    `absolute`: the target itself. `relative`: the target as seen from the state of the same frame (positions
    subtracted in the declared frame, rotations composed on the group: target = state · action).
    """

    reference: Reference

    @model_validator(mode="after")
    def _reference_rules(self) -> Self:
        if self.kind == "gripper" and self.reference != "absolute":
            raise ValueError(f"field '{self.name}': a gripper command is absolute")
        return self


class VectorSpec(StrictModel):
    """One dataset column as consecutive fields."""

    key: str = Field(min_length=1)
    fields: tuple[FieldSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        _check_unique(self.fields)
        return self

    @property
    def size(self) -> int:
        return sum(field.size for field in self.fields)

    def slices(self) -> dict[str, slice]:
        """Field name to its slice of the recorded column, in declared order."""
        return _slices(self.fields)


class ActionSpec(StrictModel):
    """The action column as consecutive fields, and the action space it is mapped to."""

    key: str = Field(min_length=1)
    space: Literal["ee6d", "joint", "agibot_ee6d", "auto"] | None = None
    fields: tuple[ActionFieldSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        _check_unique(self.fields)
        return self

    @property
    def size(self) -> int:
        return sum(field.size for field in self.fields)

    def slices(self) -> dict[str, slice]:
        """Field name to its slice of the recorded column, in declared order."""
        return _slices(self.fields)


def _check_unique(fields: tuple[FieldSpec, ...]) -> None:
    names = [field.name for field in fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"field name used twice: {', '.join(twice)}")
    for arm in ("left", "right"):
        for kind in ("position", "rotation", "gripper"):
            same = [f.name for f in fields if f.arm == arm and f.kind == kind]
            if len(same) > 1:
                raise ValueError(f"arm '{arm}' has {len(same)} {kind} fields ({', '.join(same)}); at most one")


def _slices(fields: tuple[FieldSpec, ...]) -> dict[str, slice]:
    start, out = 0, {}
    for field in fields:
        out[field.name] = slice(start, start + field.size)
        start += field.size
    return out
