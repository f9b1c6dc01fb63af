"""What `plugin.yaml` declares about one robot: cameras, proprio, action, rate, horizon, dataset, slot."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from xvla_platform.specs.base import SCHEMA_VERSION, StrictModel
from xvla_platform.specs.fields import ActionSpec, VectorSpec

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"
Finite = Annotated[float, Field(allow_inf_nan=False)]
Resolution = Annotated[tuple[int, int], AfterValidator(lambda size: _check_resolution(size))]


class CameraSpec(StrictModel):
    """One camera stream.

    Attributes:
        role: The main view is read together with the instruction; auxiliary views follow in declared order.
        mount: Where the camera sits.
        resolution: Recorded (height, width) in pixels.
        key: Dataset key of the stream.
        flip: How recorded frames are turned before the model sees them; what the robot sends is turned alike.
        channels: Order in which the recording, wrongly, stores its colours, if it is `bgr`.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    role: Literal["main", "auxiliary"]
    mount: Literal["fixed", "wrist", "head", "chest", "other"]
    resolution: Resolution
    key: str = Field(min_length=1)
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    channels: Literal["rgb", "bgr"] = "rgb"


class IdleSpec(StrictModel):
    """Frames left out of training because the robot does not move: everything stays within these steps a tick.

    Attributes:
        position_m: Largest step of any position, in metres.
        rotation_deg: Largest turn of any rotation, in degrees.
        joint: Largest step of any joint, in rad or m.
        gripper: Largest step of any gripper, as a share of the stroke.
    """

    position_m: float = Field(default=1e-5, ge=0, allow_inf_nan=False)
    rotation_deg: float = Field(default=1e-3, ge=0, allow_inf_nan=False)
    joint: float = Field(default=1e-5, ge=0, allow_inf_nan=False)
    gripper: float = Field(default=1e-3, ge=0, allow_inf_nan=False)


class DatasetSpec(StrictModel):
    """Where the demonstrations are and how they are cut.

    Attributes:
        format: Name of a registered dataset reader.
        path: Folder (or, for some formats, file), relative to the plugin folder.
        repo: Instead of `path`, a dataset id on the Hub.
        revision: Commit, tag or branch of `repo`.
        held_out: Share of episodes kept out of training (half of them choose the checkpoint, half measure it).
        tail: What the chunk does at the end of an episode: `hold` the last target, or `shrink` the horizon to
            what is left (the rule of the public code).
        tail_margin: Frames at the end of each episode that are never a starting point.
        skip_idle: Leave out frames in which the robot does not move.
        instruction: The language command of every episode, for a dataset that records none.
    """

    format: str = "lerobot"
    path: str | None = None
    repo: str | None = None
    revision: str | None = None
    held_out: float = Field(default=0.2, gt=0.0, lt=1.0)
    tail: Literal["hold", "shrink"] = "hold"
    tail_margin: int = Field(default=0, ge=0, le=10_000)
    skip_idle: IdleSpec | None = None
    instruction: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.repo is None):
            raise ValueError("give exactly one of `path` (a folder) and `repo` (a Hub dataset id)")
        if self.revision is not None and self.repo is None:
            raise ValueError("`revision` belongs to `repo`")
        return self


class PromptSpec(StrictModel):
    """How the new prompt slot starts.

    `nearest`: copy of the existing slot with the lowest measured loss on this robot's data; `mean` of the
    slots used in pretraining; `mixture` of them with weights learned on this robot's data; `random` as at the base's
    own initialisation; `copy` of domain `copy_from`.
    """

    init: Literal["nearest", "mean", "mixture", "random", "copy"] = "nearest"
    copy_from: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _copy_rules(self) -> Self:
        if (self.init == "copy") != (self.copy_from is not None):
            raise ValueError("`copy_from` (a domain id) goes with `init: copy`, and only with it")
        return self


class PoseSpec(StrictModel):
    """A rigid transform: position in metres, rotation as a unit quaternion, scalar last."""

    position_m: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0)
    quaternion_xyzw: tuple[Finite, Finite, Finite, Finite] = (0.0, 0.0, 0.0, 1.0)

    @model_validator(mode="after")
    def _unit(self) -> Self:
        length = sum(value * value for value in self.quaternion_xyzw) ** 0.5
        if abs(length - 1.0) > 1e-3:
            raise ValueError(f"`quaternion_xyzw` has length {length:.4g}; a rotation has length 1")
        return self


class FrameChange(StrictModel):
    """How one arm's recorded poses become the model's: model pose = base · recorded pose · tool.

    Attributes:
        arm: The arm whose position and rotation are changed.
        base: Pose of the recorded frame in the model's frame.
        tool: Pose of the model's tool in the recorded tool.
    """

    arm: Literal["left", "right"] = "left"
    base: PoseSpec = PoseSpec()
    tool: PoseSpec = PoseSpec()


class KinematicsSpec(StrictModel):
    """One arm's joints as an end-effector pose, by forward kinematics, and back by inverse kinematics.

    With it a robot recorded in joint space serves a base of end-effector poses.

    Attributes:
        arm: The arm whose joint field is turned into a pose.
        file: URDF or MJCF file, relative to the plugin folder.
        joints: The joints' names in the file, in the order of the recorded numbers.
        tip: Link, body or site whose pose is the end effector's.
        root: Link or body in which the pose is given; without it, the file's world.
    """

    arm: Literal["left", "right"] = "left"
    file: str = Field(min_length=1)
    joints: tuple[str, ...] = Field(min_length=1, max_length=16)
    tip: str = Field(min_length=1)
    root: str | None = None


class EmbodimentSpec(StrictModel):
    """One robot, as its plugin declares it.

    Attributes:
        frame_changes: Per arm, from the recorded frame and tool to the model's.
        kinematics: Per arm, from recorded joints to the end effector's pose.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(pattern=NAME_PATTERN)
    description: str = Field(min_length=1)
    control_hz: float = Field(gt=0, le=1000, allow_inf_nan=False)
    horizon_s: float = Field(gt=0, le=60, allow_inf_nan=False)
    cameras: tuple[CameraSpec, ...] = Field(min_length=1, max_length=8)
    proprio: VectorSpec
    action: ActionSpec
    dataset: DatasetSpec
    prompt: PromptSpec = PromptSpec()
    frame_changes: tuple[FrameChange, ...] = Field(default=(), max_length=2)
    kinematics: tuple[KinematicsSpec, ...] = Field(default=(), max_length=2)

    @model_validator(mode="after")
    def _cross_rules(self) -> Self:
        mains = [camera.name for camera in self.cameras if camera.role == "main"]
        if len(mains) != 1:
            found = f"{len(mains)} ({', '.join(mains)})" if mains else "none"
            raise ValueError(f"cameras: exactly one camera has role main, found {found}")
        for attribute in ("name", "key"):
            values = [getattr(camera, attribute) for camera in self.cameras]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"cameras: {attribute} used twice: {', '.join(twice)}")
        self._check_references()
        for name in ("frame_changes", "kinematics"):
            arms = [part.arm for part in getattr(self, name)]
            if len(set(arms)) != len(arms):
                raise ValueError(f"{name}: arm '{arms[0]}' twice")
        return self

    def _check_references(self) -> None:
        for action in self.action.fields:
            states = [f for f in self.proprio.fields if f.kind == action.kind and f.arm == action.arm]
            if action.kind in ("position", "rotation"):
                frames = {state.frame for state in states} | {action.frame}
                if len(frames) > 1:
                    raise ValueError(
                        f"action.{action.name} is in frame '{action.frame}' but proprio has "
                        f"'{states[0].frame}'; both must be in one frame"
                    )
            if action.reference != "absolute" and not any(
                state.size == action.size or state.kind != "joint" for state in states
            ):
                raise ValueError(
                    f"action.{action.name} is {action.reference}, so proprio needs a {action.kind} of the same arm"
                )

    @property
    def ordered_cameras(self) -> tuple[CameraSpec, ...]:
        """Main view first, then the auxiliary views in declared order."""
        return tuple(sorted(self.cameras, key=lambda camera: camera.role != "main"))


def _check_resolution(size: tuple[int, int]) -> tuple[int, int]:
    if not all(16 <= side <= 8192 for side in size):
        raise ValueError("resolution is [height, width] in pixels, each between 16 and 8192")
    return size
