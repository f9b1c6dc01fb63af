"""Inverse kinematics of an arm by damped least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xvla_platform.sim.frames import Array, rotation_vector

DAMPING = 1e-3
HOMEWARD = 0.02  # share of the way to its rest posture that a redundant arm takes an iteration


@dataclass(frozen=True)
class Limb:
    """An arm's hinge joints and the site they carry, as ids of a MuJoCo model; ``home`` (J,) rad at rest."""

    model: Any
    site: int
    joints: Array
    home: Array

    def solve(
        self,
        data: Any,
        start: Array,
        position: Array,
        rotation: Array,
        *,
        iterations: int = 80,
        tolerance: float = 1e-3,
    ) -> tuple[Array, bool]:
        """Joint angles (J,), rad, that bring the site to a world pose, sought from ``start`` (J,), and whether they do.

        ``position`` (3,) m, ``rotation`` (3, 3), ``tolerance`` m and rad. A redundant arm drifts towards its rest
        posture. ``data`` is scratch.
        """
        import mujoco

        model = self.model
        qpos, dofs = model.jnt_qposadr[self.joints], model.jnt_dofadr[self.joints]
        low, high = model.jnt_range[self.joints].T
        limited = model.jnt_limited[self.joints].astype(bool)
        low, high = np.where(limited, low, -np.inf), np.where(limited, high, np.inf)
        jacobian = np.zeros((6, model.nv))
        angles = np.array(start, dtype=np.float64)
        for _ in range(iterations):
            data.qpos[qpos] = angles
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            turn = rotation_vector(rotation @ data.site_xmat[self.site].reshape(3, 3).T)
            error = np.concatenate([position - data.site_xpos[self.site], turn])
            if np.abs(error).max() < tolerance:
                return angles, True
            mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], self.site)
            arm = jacobian[:, dofs]
            inverse = arm.T @ np.linalg.inv(arm @ arm.T + DAMPING * np.eye(6))
            home = HOMEWARD * (self.home - angles)
            step = inverse @ error + home - inverse @ (arm @ home)
            angles = np.clip(angles + step * min(1.0, 0.4 / (np.abs(step).max() + 1e-9)), low, high)
        return angles, False
