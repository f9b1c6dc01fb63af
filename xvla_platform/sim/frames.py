"""Poses between the simulator's world and the frame and tool in which a robot records its data.

All positions are metres; rotations are 3x3 matrices. ``world`` poses are poses of robosuite's grip site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Grip site of every robosuite gripper when it points straight down: z down, fingers level.
DOWN: Array = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])


def rotation_z(angle: float) -> Array:
    """Rotation matrix (3, 3) about z by ``angle`` rad."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def rotation_vector(matrix: Array) -> Array:
    """Axis-angle vector (3,), rad, of a rotation matrix (3, 3)."""
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_matrix(matrix).as_rotvec())


def from_rotation_vector(vector: Array) -> Array:
    """Rotation matrix (3, 3) of an axis-angle vector (3,), rad."""
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_rotvec(vector).as_matrix())


def top_down(yaw: float) -> Array:
    """World rotation (3, 3) of a gripper pointing down and turned by ``yaw`` rad about world z."""
    return rotation_z(yaw) @ DOWN


@dataclass(frozen=True)
class Transform:
    """A rigid transform: ``position`` (3,) m and ``rotation`` (3, 3)."""

    position: Array
    rotation: Array

    @classmethod
    def from_euler_degrees(cls, position: Sequence[float], euler: Sequence[float]) -> Transform:
        """Build from a position (m) and extrinsic xyz Euler angles (degrees)."""
        from scipy.spatial.transform import Rotation

        matrix = Rotation.from_euler("xyz", euler, degrees=True).as_matrix()
        return cls(np.asarray(position, dtype=np.float64), np.asarray(matrix))


@dataclass(frozen=True)
class DataFrame:
    """How a robot's data is anchored.

    ``origin``: pose of the data frame in the simulator's world. ``tool``: pose of the recorded tool in the grip
    site's frame.
    """

    origin: Transform
    tool: Transform

    def from_world(self, positions: Array, rotations: Array) -> tuple[Array, Array]:
        """World grip-site poses (N, 3), (N, 3, 3) -> tool poses in the data frame, same shapes."""
        tool_position = positions + rotations @ self.tool.position
        tool_rotation = rotations @ self.tool.rotation
        turn = self.origin.rotation.T
        return (tool_position - self.origin.position) @ turn.T, turn @ tool_rotation

    def to_world(self, positions: Array, rotations: Array) -> tuple[Array, Array]:
        """Tool poses in the data frame (N, 3), (N, 3, 3) -> world grip-site poses, same shapes."""
        turn = self.origin.rotation
        grip_rotation = turn @ rotations @ self.tool.rotation.T
        tool_position = positions @ turn.T + self.origin.position
        return tool_position - grip_rotation @ self.tool.position, grip_rotation
