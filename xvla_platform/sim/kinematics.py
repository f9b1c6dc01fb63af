"""Inverse kinematics of the arm by damped least squares."""

from __future__ import annotations

from typing import Any

import numpy as np

from xvla_platform.sim.frames import Array, rotation_vector

TOLERANCE = 1e-3  # m and rad


def solve_pose(
    model: Any, data: Any, site: int, joints: Array, start: Array, position: Array, rotation: Array
) -> Array | None:
    """Joint angles (J,), rad, that bring a site to a world pose; None where none was found.

    ``joints`` (J,) holds the hinge joints' ids, ``start`` (J,) where the search begins; ``position`` (3,) m and
    ``rotation`` (3, 3) are the goal. Leaves ``data`` at the last configuration tried.
    """
    import mujoco

    qpos_address, dof_address = model.jnt_qposadr[joints], model.jnt_dofadr[joints]
    low, high = model.jnt_range[joints].T
    limited = model.jnt_limited[joints].astype(bool)
    low, high = np.where(limited, low, -np.inf), np.where(limited, high, np.inf)
    jacobian = np.zeros((6, model.nv))
    angles = np.array(start, dtype=np.float64)
    for _ in range(80):
        data.qpos[qpos_address] = angles
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        error = np.concatenate(
            [
                position - data.site_xpos[site],
                rotation_vector(rotation @ data.site_xmat[site].reshape(3, 3).T),
            ]
        )
        if np.abs(error).max() < TOLERANCE:
            return angles
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], site)
        arm = jacobian[:, dof_address]
        step = arm.T @ np.linalg.solve(arm @ arm.T + 1e-3 * np.eye(6), error)
        angles = np.clip(angles + step * min(1.0, 0.4 / (np.abs(step).max() + 1e-9)), low, high)
    return None
