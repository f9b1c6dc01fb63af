"""One arm with its gripper: measured pose, joint controller, gripper motor.

A commanded pose becomes joint angles by inverse kinematics once a control period; in every physics step a critically
damped joint controller with the arm's own dynamics compensated pulls towards them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xvla_platform.errors import XvlaError
from xvla_platform.sim.frames import Array, DataFrame
from xvla_platform.sim.kinematics import Limb
from xvla_platform.sim.setup import ArmSpec

FASTEST = 2.2  # rad/s; a command further away is approached at this rate
SERVO_ITERATIONS = 6
SERVO_TOLERANCE = 2e-5  # m and rad


class Arm:
    """One arm of a compiled scene. World poses are poses of robosuite's grip site."""

    def __init__(self, model: Any, data: Any, robot: Any, gripper: Any, spec: ArmSpec) -> None:
        import mujoco

        self.frame: DataFrame = spec.frame
        self.base: Array = np.asarray(spec.base.position)
        self._model, self._data, self._gripper, self._kp = model, data, gripper, spec.kp
        self._scratch = mujoco.MjData(model)
        joints = np.array([model.joint(name).id for name in robot.joints])
        home = np.asarray(robot.init_qpos if spec.home is None else spec.home, dtype=np.float64)
        if home.shape != joints.shape:
            raise XvlaError(
                "one angle a joint",
                file="sim.yaml",
                field=f"home of {spec.robot}",
                found=len(home),
                allowed=str(len(joints)),
            )
        site = model.site(gripper.important_sites["grip_site"]).id
        self.limb = Limb(model, site, joints, home)
        self.home = home
        self._qpos, self._dofs = model.jnt_qposadr[joints], model.jnt_dofadr[joints]
        self._motors = np.array([model.actuator(name).id for name in robot.actuators])
        self._gripper_qpos = np.array([int(model.joint(name).qposadr[0]) for name in gripper.joints])
        self._gripper_motors = np.array([model.actuator(name).id for name in gripper.actuators])
        self._pads = [_pad(model, gripper, side) for side in ("left", "right")]
        self._inertia = np.zeros((model.nv, model.nv))
        self._gaps = (0.0, 1.0)
        self._open_qpos = np.asarray(gripper.init_qpos, dtype=np.float64)
        self._target = self._from = self.home
        self._closing = -1.0

    # Observation

    def pose(self) -> tuple[Array, Array]:
        """World pose of the grip site: position (3,) m, rotation (3, 3)."""
        site = self.limb.site
        return self._data.site_xpos[site].copy(), self._data.site_xmat[site].reshape(3, 3).copy()

    def joints(self) -> Array:
        """Measured joint angles (J,), rad."""
        return np.asarray(self._data.qpos[self._qpos].copy())

    def opening(self) -> float:
        """Measured gripper opening: 1 fully open, 0 fully closed on nothing."""
        shut, wide = self._gaps
        return float(np.clip((self.pad_gap() - shut) / (wide - shut), 0.0, 1.0))

    def pad_gap(self) -> float:
        """Distance between the finger pads, m."""
        left, right = self._data.geom_xpos[self._pads[0]], self._data.geom_xpos[self._pads[1]]
        return float(np.linalg.norm(left - right))

    # Motion

    def place(self, angles: Array) -> None:
        """Put the arm at joint angles (J,), gripper open, at rest; the caller runs the forward pass."""
        self._data.qpos[self._qpos] = angles
        self._data.qpos[self._gripper_qpos] = self._open_qpos
        self._target = self._from = np.array(angles, dtype=np.float64)
        self._closing = -1.0
        self._gripper.current_action = np.zeros(len(self._gripper_motors))
        for _ in range(200):
            self._drive_gripper()

    def solve(self, position: Array, rotation: Array) -> Array:
        """Joint angles (J,) of a world grip-site pose, sought from the present target."""
        return self.limb.solve(
            self._scratch, self._target, position, rotation, iterations=SERVO_ITERATIONS, tolerance=SERVO_TOLERANCE
        )[0]

    def reach(self, position: Array, rotation: Array, guess: Array) -> Array | None:
        """Joint angles (J,) of a world grip-site pose, sought from anywhere; None where none was found."""
        angles, found = self.limb.solve(self._scratch, guess, position, rotation)
        return angles if found else None

    def command(self, joints: Array, opening: float, period: float) -> None:
        """Take joint angles (J,) as the target of the next ``period`` s; opening > 0.5 opens the gripper."""
        step = joints - self._target
        self._from = self._target
        self._target = self._target + step * min(1.0, FASTEST * period / (np.abs(step).max() + 1e-9))
        self._closing = -1.0 if opening > 0.5 else 1.0

    def drive(self, share: float) -> None:
        """Set the motors for one physics step, ``share`` 0..1 of the way through the control period."""
        import mujoco

        data = self._data
        goal = self._from + share * (self._target - self._from)
        pull = self._kp * (goal - data.qpos[self._qpos]) - 2.0 * np.sqrt(self._kp) * data.qvel[self._dofs]
        mujoco.mj_fullM(self._model, self._inertia, data.qM)
        inertia = self._inertia[np.ix_(self._dofs, self._dofs)]
        data.ctrl[self._motors] = inertia @ pull + data.qfrc_bias[self._dofs] - data.qfrc_passive[self._dofs]
        self._drive_gripper()

    def measure_gripper(self, advance: Any) -> None:
        """Learn both ends of the stroke: ``advance`` runs one control period; the arm must be clear of everything."""
        # A Robotiq linkage wedges itself when it starts anywhere but in its own rest position.
        gaps = []
        for opening in (0.0, 1.0):
            for _ in range(30):
                self.command(self._target, opening, 1.0)
                advance()
            gaps.append(self.pad_gap())
        self._open_qpos = self._data.qpos[self._gripper_qpos].copy()
        self._gaps = (gaps[0], gaps[1])

    def _drive_gripper(self) -> None:
        action = np.asarray(self._gripper.format_action(np.array([self._closing])), dtype=np.float64)
        low, high = self._model.actuator_ctrlrange[self._gripper_motors].T
        self._data.ctrl[self._gripper_motors] = (low + high) / 2 + (high - low) / 2 * action


def _pad(model: Any, gripper: Any, side: str) -> int:
    """Id of a finger's pad; robosuite's own name for the xArm's is that of no shape in its file."""
    known = {model.geom(i).name for i in range(model.ngeom)}
    names = [gripper.important_geoms[f"{side}_fingerpad"][0], f"{gripper.naming_prefix}{side}_finger_pad_1"]
    return int(model.geom(next(name for name in names if name in known)).id)
