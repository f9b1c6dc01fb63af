"""``sim.yaml``: the simulator's side of a plugin (robot, gripper, cameras, frames, expert)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from xvla_platform.errors import XvlaError
from xvla_platform.sim.frames import DataFrame, Transform
from xvla_platform.sim.vectors import check_supported
from xvla_platform.specs.base import SCHEMA_VERSION, StrictModel, load_model
from xvla_platform.specs.embodiment import EmbodimentSpec

Triple = tuple[float, float, float]


class CameraPose(StrictModel):
    """A simulated camera.

    ``mount`` is ``world``, or ``tool``: the gripper's grip site, z along the approach direction, fingers opening
    along x.
    ``position`` and ``look_at`` are metres in the mount's frame, ``up`` a direction there, ``fovy`` degrees.
    """

    mount: Literal["world", "tool"]
    position: Triple
    look_at: Triple
    up: Triple
    fovy: float = Field(gt=5, lt=150)


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


class SimSpec(StrictModel):
    """The file ``sim.yaml``.

    Attributes:
        robot, gripper: robosuite's names.
        kp: Stiffness of the operational-space controller (critically damped).
        colour: Colour of the arm, RGB 0..1.
        min_separation: Least distance between cube centres, m; what the open gripper needs.
        data_frame: Pose of the recorded frame in the simulator's world (table centre at x = y = 0, z = 0.8 m).
        tool: Pose of the recorded tool in robosuite's grip site frame.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    robot: str
    gripper: str
    kp: float = Field(gt=0, le=1000)
    colour: Triple
    min_separation: float = Field(gt=0.06, lt=0.15)
    data_frame: PoseSpec
    tool: PoseSpec
    cameras: dict[str, CameraPose]
    expert: ExpertSettings


@dataclass(frozen=True)
class SimSetup:
    """One simulated robot: its contract, its simulator facts and its data frame."""

    folder: Path
    spec: EmbodimentSpec
    sim: SimSpec
    frame: DataFrame


def load_setup(plugin: str | Path) -> SimSetup:
    """Read ``plugin.yaml`` and ``sim.yaml`` in the folder ``plugin``."""
    folder = Path(plugin)
    contract_file, sim_file = folder / "plugin.yaml", folder / "sim.yaml"
    if not contract_file.is_file():
        raise XvlaError("no plugin.yaml here", file=folder, hint="give the folder of a plugin, such as plugins/my_arm")
    spec = load_model(EmbodimentSpec, contract_file)
    check_supported(spec, str(contract_file))
    if not sim_file.is_file():
        raise XvlaError(
            "this plugin has no sim.yaml, so it cannot be simulated",
            file=folder,
            hint="record on the real robot, or start from the sim.yaml of plugins/my_arm",
        )
    sim = load_model(SimSpec, sim_file)
    missing = [camera.name for camera in spec.cameras if camera.name not in sim.cameras]
    if missing:
        raise XvlaError(
            f"sim.yaml does not place the camera(s) {', '.join(missing)}",
            file=sim_file,
            field="cameras",
            found=", ".join(sim.cameras),
        )
    frame = DataFrame(origin=sim.data_frame.transform, tool=sim.tool.transform)
    return SimSetup(folder=folder, spec=spec, sim=sim, frame=frame)
