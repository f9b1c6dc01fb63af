"""``sim.yaml``: the simulator's side of a plugin (robot, gripper, cameras, frames, expert)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from xvla_platform.errors import XvlaError
from xvla_platform.sim.frames import Array, DataFrame, Transform
from xvla_platform.sim.vectors import check_supported
from xvla_platform.specs.base import SCHEMA_VERSION, StrictModel, load_model
from xvla_platform.specs.embodiment import EmbodimentSpec

ArmName = Literal["left", "right"]
Triple = tuple[float, float, float]


class CameraPose(StrictModel):
    """A simulated camera.

    ``mount`` is ``world``, or ``tool``: the grip site of ``arm``'s gripper, z along the approach direction, fingers
    opening along x.
    ``position`` and ``look_at`` are metres in the mount's frame, ``up`` a direction there, ``fovy`` degrees.
    """

    mount: Literal["world", "tool"]
    arm: ArmName = "left"
    position: Triple
    look_at: Triple
    up: Triple
    fovy: float = Field(gt=5, lt=150)

    @model_validator(mode="after")
    def _looks_somewhere(self) -> Self:
        back = np.subtract(self.position, self.look_at)
        if np.linalg.norm(back) < 1e-6:
            raise ValueError("`position` and `look_at` are one point")
        if np.linalg.norm(np.cross(self.up, back)) < 1e-6 * np.linalg.norm(back):
            raise ValueError("`up` is no direction across the view: choose one that is not along it")
        return self

    def project(self, point: Array, resolution: tuple[int, int]) -> tuple[float, float]:
        """Where a world point (3,) is seen, as shares of the image from its left and top edge (mount ``world``)."""
        height, width = resolution
        right, up = np.split(camera_axes(self), 2)
        way = np.asarray(point) - np.asarray(self.position)
        scale = 0.5 / np.tan(np.deg2rad(self.fovy) / 2) / -(way @ camera_back(self))
        return float(0.5 + scale * (way @ right) * height / width), float(0.5 - scale * (way @ up))


def camera_back(camera: CameraPose) -> Array:
    """Unit vector (3,) against the direction in which a camera looks."""
    backward = np.asarray(camera.position, dtype=np.float64) - np.asarray(camera.look_at)
    return np.asarray(backward / np.linalg.norm(backward))


def camera_axes(camera: CameraPose) -> Array:
    """MuJoCo's ``xyaxes`` (6,) of a camera that looks from ``position`` at ``look_at``."""
    z = camera_back(camera)
    x = np.cross(np.asarray(camera.up, dtype=np.float64), z)
    x = x / np.linalg.norm(x)
    return np.concatenate([x, np.cross(z, x)])


class PoseSpec(StrictModel):
    """A pose: metres, and extrinsic xyz Euler angles in degrees."""

    position: Triple
    euler_xyz_deg: Triple

    @property
    def transform(self) -> Transform:
        """The same pose as a matrix."""
        return Transform.from_euler_degrees(self.position, self.euler_xyz_deg)


class ExpertSettings(StrictModel):
    """Scripted expert: speeds in m/s and rad/s, hover height above the cube and grasp height, m."""

    speed: float = Field(gt=0)
    turn_speed: float = Field(gt=0)
    hover: float = Field(gt=0)
    grasp_height: float


class BaseSpec(StrictModel):
    """Where an arm is bolted: its root's ``position``, m, world, and its turn about z, degrees."""

    position: Triple = (-0.56, 0.0, 0.912)
    yaw_deg: float = 0.0


class ArmSpec(StrictModel):
    """One arm.

    Attributes:
        robot, gripper: robosuite's names.
        kp: Stiffness of the joint controller, 1/s^2 (critically damped).
        colour: Colour of the arm, RGB 0..1.
        base: Where it stands.
        home: Joint angles at rest, rad; without it, robosuite's.
        data_frame: Pose of the recorded frame in the simulator's world (table centre at x = y = 0, z = 0.8 m).
        tool: Pose of the recorded tool in robosuite's grip site frame.
    """

    robot: str
    gripper: str
    kp: float = Field(gt=0, le=1000)
    colour: Triple
    base: BaseSpec = BaseSpec()
    home: tuple[float, ...] | None = None
    data_frame: PoseSpec
    tool: PoseSpec

    @property
    def frame(self) -> DataFrame:
        """How its poses are recorded."""
        return DataFrame(origin=self.data_frame.transform, tool=self.tool.transform)


class SimSpec(StrictModel):
    """The file ``sim.yaml``.

    Attributes:
        arms: One arm (``left``, as everywhere) or two.
        min_separation: Least distance between the centres of cubes and plates, m; what the open gripper needs.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    arms: dict[ArmName, ArmSpec] = Field(min_length=1)
    min_separation: float = Field(gt=0.06, lt=0.13)
    cameras: dict[str, CameraPose]
    expert: ExpertSettings


@dataclass(frozen=True)
class SimSetup:
    """One simulated robot: its contract and its simulator facts; ``frames`` by arm."""

    folder: Path
    spec: EmbodimentSpec
    sim: SimSpec
    frames: dict[ArmName, DataFrame]


def load_setup(plugin: str | Path) -> SimSetup:
    """Read ``plugin.yaml`` and ``sim.yaml`` in the folder ``plugin``."""
    folder = Path(plugin)
    contract_file, sim_file = folder / "plugin.yaml", folder / "sim.yaml"
    if not contract_file.is_file():
        raise XvlaError("no plugin.yaml here", file=folder, hint="give the folder of a plugin, such as plugins/my_arm")
    spec = load_model(EmbodimentSpec, contract_file)
    if not sim_file.is_file():
        raise XvlaError(
            "this plugin has no sim.yaml, so it cannot be simulated",
            file=folder,
            hint="record on the real robot, or start from the sim.yaml of plugins/my_arm",
        )
    sim = load_model(SimSpec, sim_file)
    check_supported(spec, list(sim.arms), str(contract_file))
    missing = [camera.name for camera in spec.cameras if camera.name not in sim.cameras]
    if missing:
        raise XvlaError(
            f"sim.yaml does not place the camera(s) {', '.join(missing)}",
            file=sim_file,
            field="cameras",
            found=", ".join(sim.cameras),
        )
    for name, camera in sim.cameras.items():
        if camera.arm not in sim.arms and camera.mount == "tool":
            raise XvlaError("no such arm", file=sim_file, field=f"cameras.{name}.arm", found=camera.arm)
    frames = {name: arm.frame for name, arm in sim.arms.items()}
    return SimSetup(folder=folder, spec=spec, sim=sim, frames=frames)
