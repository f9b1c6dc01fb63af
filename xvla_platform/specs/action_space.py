"""X-VLA's action spaces as data: which dims of the model vector mean what, and how each is trained.

A space is an ordered partition of the model's action vector (the proprio vector has the same layout). `ee6d`,
`joint`, `agibot_ee6d` and `auto` are the four published ones, numerically equal to the public code
(arXiv 2510.10274 and its repository's action hub); a new one is another value, not another class.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from xvla_platform.errors import XvlaError

Arm = Literal["left", "right"]
ARMS: tuple[Arm, Arm] = ("left", "right")
AUTO_WEIGHT = 100.0  # the official code's scale; another public port uses 1.0


@dataclass(frozen=True, kw_only=True)
class SpaceField:
    """One slice of the model vector.

    Attributes:
        arm: The arm it drives.
        start, size: Position in the model vector.
        loss: Squared error, or binary cross-entropy on a logit (the gripper, target 1 = closed).
        loss_name: Key of the loss that this field's term is added to.
        weight: Factor on the field's mean (over batch, time and its dims).
        hidden: Zeroed in both inputs (noisy action and proprio), so that it is predicted, never copied.
    """

    kind: Literal["position", "rotation", "joint", "gripper", "any"]
    arm: Arm
    start: int
    size: int
    loss: Literal["mse", "bce"]
    loss_name: str
    weight: float
    hidden: bool = False

    @property
    def stop(self) -> int:
        return self.start + self.size


@dataclass(frozen=True, kw_only=True)
class ActionSpace:
    """A named partition of the model's action vector of `dim` numbers; `real_dim` of them carry meaning."""

    name: str
    dim: int
    real_dim: int
    fields: tuple[SpaceField, ...]

    def __post_init__(self) -> None:
        position = 0
        for field in self.fields:
            if field.start != position:
                raise ValueError(f"action space {self.name}: fields must partition the vector")
            position = field.stop
        if position != self.real_dim or self.real_dim > self.dim:
            raise ValueError(f"action space {self.name}: fields cover {position} of {self.real_dim} dims")

    def find(self, kind: str, arm: str) -> SpaceField | None:
        """The field of that kind and arm, or None where the space has none."""
        return next((f for f in self.fields if f.kind == kind and f.arm == arm), None)


def _two_arms(
    name: str, gripper_loss: Literal["mse", "bce"], gripper_weight: float, gripper_hidden: bool
) -> ActionSpace:
    fields: list[SpaceField] = []
    for arm, start in zip(ARMS, (0, 10), strict=True):
        fields += [
            SpaceField(
                kind="position",
                arm=arm,
                start=start,
                size=3,
                loss="mse",
                loss_name="position_loss",
                weight=500.0,
            ),
            SpaceField(
                kind="rotation",
                arm=arm,
                start=start + 3,
                size=6,
                loss="mse",
                loss_name="rotate6D_loss",
                weight=10.0,
            ),
            SpaceField(
                kind="gripper",
                arm=arm,
                start=start + 9,
                size=1,
                loss=gripper_loss,
                loss_name="gripper_loss",
                weight=gripper_weight,
                hidden=gripper_hidden,
            ),
        ]
    return ActionSpace(name=name, dim=20, real_dim=20, fields=tuple(fields))


def ee6d(dim: int = 20, real_dim: int = 20) -> ActionSpace:
    """Two arms of position (m), 6D rotation, gripper logit; the gripper term is the mean over both arms."""
    return _two_arms("ee6d", "bce", 0.5, True)


def agibot_ee6d(dim: int = 20, real_dim: int = 20) -> ActionSpace:
    """As `ee6d`, with the gripper regressed and visible."""
    return _two_arms("agibot_ee6d", "mse", 5.0, False)


def joint(dim: int = 14, real_dim: int = 14) -> ActionSpace:
    """Two arms of six joints (rad) and a gripper logit."""
    fields: list[SpaceField] = []
    for arm, start in zip(ARMS, (0, 7), strict=True):
        fields += [
            SpaceField(kind="joint", arm=arm, start=start, size=6, loss="mse", loss_name="joints_loss", weight=0.5),
            SpaceField(
                kind="gripper",
                arm=arm,
                start=start + 6,
                size=1,
                loss="bce",
                loss_name="gripper_loss",
                weight=0.05,
                hidden=True,
            ),
        ]
    return ActionSpace(name="joint", dim=14, real_dim=14, fields=tuple(fields))


def auto(dim: int = 20, real_dim: int = 20) -> ActionSpace:
    """Any vector of up to `dim` numbers: squared error on the first `real_dim`, the rest padding."""
    field = SpaceField(
        kind="any",
        arm="left",
        start=0,
        size=real_dim,
        loss="mse",
        loss_name="joints_loss",
        weight=AUTO_WEIGHT,
    )
    return ActionSpace(name="auto", dim=dim, real_dim=real_dim, fields=(field,))


SPACES: dict[str, Callable[[int, int], ActionSpace]] = {
    "ee6d": ee6d,
    "joint": joint,
    "agibot_ee6d": agibot_ee6d,
    "auto": auto,
}


def action_space(name: str, *, dim: int = 20, real_dim: int = 20) -> ActionSpace:
    """The published space `name`; `dim` and `real_dim` matter for `auto` only."""
    if name.lower() not in SPACES:
        raise XvlaError("unknown action space", field="action_mode", found=name, allowed=sorted(SPACES))
    return SPACES[name.lower()](dim, real_dim)
