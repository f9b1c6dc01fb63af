"""The vocabulary of one vector: ordered fields with kind, size, unit, frame and format.

A dataset column (`observation.state`, `action`) is declared as consecutive fields. Their sizes partition the
column by construction, so no index can be counted twice or forgotten. Where a dataset keeps one column per
quantity, fields name their own columns, and the fields of each column partition it.
"""

from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from xvla_platform.specs.base import StrictModel

# Beyond it squares of recorded numbers leave the range of floats; nanometres and counts of encoders lie within.
LARGEST_SCALE = 1e12
Kind = Literal["position", "rotation", "joint", "gripper", "ignored"]
Arm = Literal["left", "right"]
Frame = Literal["base", "world", "camera", "tool"]
Reference = Literal["absolute", "relative", "relative_to_first"]
Axes = Literal["frame", "tool"]
Normalization = Literal["none", "mean_std", "min_max", "quantile"]
RotationFormat = Literal[
    "quaternion_xyzw",
    "quaternion_wxyz",
    "euler_xyz_extrinsic",
    "euler_xzy_extrinsic",
    "euler_yxz_extrinsic",
    "euler_yzx_extrinsic",
    "euler_zxy_extrinsic",
    "euler_zyx_extrinsic",
    "euler_xyx_extrinsic",
    "euler_xzx_extrinsic",
    "euler_yxy_extrinsic",
    "euler_yzy_extrinsic",
    "euler_zxz_extrinsic",
    "euler_zyz_extrinsic",
    "euler_xyz_intrinsic",
    "euler_xzy_intrinsic",
    "euler_yxz_intrinsic",
    "euler_yzx_intrinsic",
    "euler_zxy_intrinsic",
    "euler_zyx_intrinsic",
    "euler_xyx_intrinsic",
    "euler_xzx_intrinsic",
    "euler_yxy_intrinsic",
    "euler_yzy_intrinsic",
    "euler_zxz_intrinsic",
    "euler_zyz_intrinsic",
    "axis_angle",
    "rot6d_columns",
    "rot6d_interleaved",
    "matrix",
]
Unit = Literal["m", "cm", "mm", "rad", "deg", "percent", "normalized"]

EULER_FORMATS = tuple(name for name in get_args(RotationFormat) if name.startswith("euler_"))
ANGLE_FORMATS = (*EULER_FORMATS, "axis_angle")
ROTATION_SIZE: dict[str, int] = {
    "quaternion_xyzw": 4,
    "quaternion_wxyz": 4,
    **dict.fromkeys(ANGLE_FORMATS, 3),
    "rot6d_columns": 6,
    "rot6d_interleaved": 6,
    "matrix": 9,
}

UNITS_OF_KIND: dict[str, tuple[str, ...]] = {
    "position": ("m", "cm", "mm"),
    "rotation": ("rad", "deg"),
    "joint": ("rad", "deg", "m", "mm", "percent", "normalized"),
    "gripper": ("m", "cm", "mm", "rad", "deg", "percent", "normalized"),
}


class FieldSpec(StrictModel):
    """One consecutive slice of a dataset column.

    Attributes:
        name: Unique within the vector.
        kind: What the numbers are; `ignored` ones are no part of what the model reads or predicts.
        size: How many numbers of the dataset column the field takes.
        key: Dataset key of the field's own column; without it, the vector's.
        unit: Unit of the recorded numbers; needed for everything but unitless rotation formats.
        scale: Units that a recorded 1 stands for, where a dataset scales its numbers (an action of 1 that moves
            the arm 0.05 m has `unit: m` and `scale: 0.05`).
        frame: Frame in which a position or rotation is expressed.
        format: Rotation format (rotation fields only).
        arm: Which arm of a two-armed action space the field drives; a single arm is the left one.
        open: Recorded value of an open gripper (gripper fields only); with `closed` it states polarity
            and range.
        closed: Recorded value of a closed gripper.
        threshold: Recorded value beyond which (towards `closed`) the gripper counts as fully closed, and below
            which as fully open; without it the stroke is continuous.
        normalization: How the value is scaled for the model; X-VLA's own convention is none.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    kind: Kind
    size: int = Field(ge=1, le=64)
    key: str | None = Field(default=None, min_length=1)
    unit: Unit | None = None
    scale: float = Field(default=1.0, allow_inf_nan=False)
    frame: Frame | None = None
    format: RotationFormat | None = None
    arm: Arm = "left"
    open: float | None = Field(default=None, allow_inf_nan=False)
    closed: float | None = Field(default=None, allow_inf_nan=False)
    threshold: float | None = Field(default=None, allow_inf_nan=False)
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
        self._scale_rules()
        if self.kind == "ignored":
            if self.unit is not None or self.normalization != "none":
                raise ValueError(f"field '{self.name}': an ignored field has no `unit` and no `normalization`")
            return self
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
            if any(value is not None for value in (self.open, self.closed, self.threshold)):
                raise ValueError(f"field '{self.name}': `open`, `closed` and `threshold` belong to gripper fields only")
            return
        if self.size != 1:
            raise ValueError(f"field '{self.name}': a gripper has size 1, found {self.size}")
        if self.open is None or self.closed is None:
            raise ValueError(f"field '{self.name}': a gripper needs the recorded values `open` and `closed`")
        if self.open == self.closed:
            raise ValueError(f"field '{self.name}': `open` and `closed` are both {self.open}")
        if self.threshold is not None and not min(self.open, self.closed) < self.threshold < max(
            self.open, self.closed
        ):
            raise ValueError(
                f"field '{self.name}': `threshold` {self.threshold} is not between open {self.open} and "
                f"closed {self.closed}"
            )

    def _scale_rules(self) -> None:
        if self.scale == 0.0:
            raise ValueError(f"field '{self.name}': `scale` is 0")
        if not 1 / LARGEST_SCALE <= abs(self.scale) <= LARGEST_SCALE:
            raise ValueError(
                f"field '{self.name}': `scale` {self.scale:g} is no scale of a robot's numbers; allowed: "
                f"{1 / LARGEST_SCALE:g} to {LARGEST_SCALE:g}, of either sign"
            )
        if self.scale != 1.0 and (self.kind in ("gripper", "ignored") or (self.kind == "rotation" and not self.unit)):
            raise ValueError(
                f"field '{self.name}': `scale` belongs to numbers with a unit (for a gripper: open, closed)"
            )


class ActionFieldSpec(FieldSpec):
    """An action field also says what its numbers refer to.

    Attributes:
        reference: `absolute`: the target itself. `relative`: as seen from the state of the same frame;
            `relative_to_first`: as seen from the state at the episode's first frame.
        axes: Along whose axes a relative position or rotation is given. `frame`: the declared frame's (positions
            add, target rotation = action · state). `tool`: the tool's (positions are turned by the state's
            rotation first, target rotation = state · action).
        value: What an ignored action field is filled with when the robot is driven.
    """

    reference: Reference = "absolute"
    axes: Axes | None = None
    value: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _reference_rules(self) -> Self:
        if self.kind == "ignored":
            if self.value is None:
                raise ValueError(f"field '{self.name}': an ignored action needs `value`, which is sent to the robot")
        elif self.value is not None:
            raise ValueError(f"field '{self.name}': `value` belongs to ignored fields only")
        elif "reference" not in self.model_fields_set:
            raise ValueError(f"field '{self.name}' needs `reference` (absolute, relative or relative_to_first)")
        if self.kind in ("gripper", "ignored") and self.reference != "absolute":
            raise ValueError(f"field '{self.name}': a {self.kind} command is absolute")
        turned = self.kind in ("position", "rotation") and self.reference != "absolute"
        if turned != (self.axes is not None):
            rule = "needs `axes` (frame or tool)" if turned else "has no `axes`"
            raise ValueError(f"field '{self.name}': a {self.reference} {self.kind} {rule}")
        return self


class VectorSpec(StrictModel):
    """One dataset column as consecutive fields, or several columns where fields name their own.

    Attributes:
        key: Dataset key of the column, for every field that names none of its own.
    """

    key: str | None = Field(default=None, min_length=1)
    fields: tuple[FieldSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        _check_unique(self.fields)
        _check_keys(self.key, self.fields)
        return self

    @property
    def size(self) -> int:
        return sum(field.size for field in self.fields)

    def slices(self) -> dict[str, slice]:
        """Field name to its slice of the recorded vector, in declared order."""
        return _slices(self.fields)

    def columns(self) -> dict[str, tuple[FieldSpec, ...]]:
        """Dataset key to the fields that partition that column, in declared order."""
        return _columns(self.key, self.fields)


class ActionSpec(StrictModel):
    """The action column(s) as consecutive fields, and the action space they are mapped to.

    Attributes:
        key: Dataset key of the column, for every field that names none of its own.
        space: Action space the base must have; without it, the base's own is used.
        timing: `command`: the number of frame i is what the controller was to reach one tick later. `reached`:
            it is where the robot is at frame i (recorded states that serve as actions).
    """

    key: str | None = Field(default=None, min_length=1)
    space: Literal["ee6d", "joint", "agibot_ee6d", "auto"] | None = None
    timing: Literal["command", "reached"] = "command"
    fields: tuple[ActionFieldSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        _check_unique(self.fields)
        _check_keys(self.key, self.fields)
        if all(field.kind == "ignored" for field in self.fields):
            raise ValueError("every action field is ignored, so there is nothing to predict")
        return self

    @property
    def size(self) -> int:
        return sum(field.size for field in self.fields)

    def slices(self) -> dict[str, slice]:
        """Field name to its slice of the recorded vector, in declared order."""
        return _slices(self.fields)

    def columns(self) -> dict[str, tuple[ActionFieldSpec, ...]]:
        """Dataset key to the fields that partition that column, in declared order."""
        return _columns(self.key, self.fields)


def _columns(key: str | None, fields: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
    out: dict[str, tuple[Any, ...]] = {}
    for field in fields:
        name = field.key or key
        assert name is not None
        out[name] = (*out.get(name, ()), field)
    return out


def _check_keys(key: str | None, fields: tuple[FieldSpec, ...]) -> None:
    if key is not None:
        if all(field.key is not None for field in fields):
            raise ValueError("every field names its own `key`, so the vector's `key` is never used; remove it")
        return
    lacking = [field.name for field in fields if field.key is None]
    if lacking:
        raise ValueError(f"give `key` (the dataset column), or one to each field; without: {', '.join(lacking)}")


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
