"""Motions of an arm over a table, as arrays: what measures are tested on, with every convention known."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from xvla_platform.data.reader import FloatArray

HZ = 20.0
LAG = 2


@dataclass(frozen=True, kw_only=True)
class Motion:
    """One lift: positions [L, 3] in m, rotations [L, 3, 3] about the vertical, closedness [L, 1], commands ahead."""

    position: FloatArray
    rotation: FloatArray
    gripper: FloatArray
    told_position: FloatArray
    told_rotation: FloatArray
    told_gripper: FloatArray


def lifts(count: int = 12, seed: int = 0, *, down: bool = False) -> list[Motion]:
    """Reach, close, lift: from a random place to a random object, with the state `LAG` ticks behind the command."""
    random = np.random.default_rng(seed)
    return [_lift(random, down) for _ in range(count)]


def _lift(random: np.random.Generator, down: bool) -> Motion:
    length = int(random.integers(50, 70))
    start, goal = (
        random.uniform([0.3, -0.2, 0.25], [0.5, 0.2, 0.35]),
        random.uniform([0.4, -0.2, 0.02], [0.7, 0.2, 0.03]),
    )
    yaw = random.uniform(-0.9, 0.9, size=2)
    share = np.clip(np.arange(length) / (0.55 * length), 0, 1)
    smooth = (3 * share**2 - 2 * share**3)[:, None]
    told = start + smooth * (goal - start)
    close = int(0.6 * length)
    told[close:, 2] += np.clip((np.arange(length - close) - 4) * 0.012, 0, 0.2)
    turn = yaw[0] + smooth[:, 0] * (yaw[1] - yaw[0])
    tilt = 0.04 * np.stack([np.sin(turn * 5), np.cos(turn * 4)], axis=1)
    tool = Rotation.from_euler("x", np.pi) if down else Rotation.identity()
    told_rotation = (Rotation.from_euler("xyz", np.column_stack([tilt, turn])) * tool).as_matrix()
    told_gripper = (np.arange(length) >= close).astype(float)[:, None]
    width = random.uniform(0.55, 0.8)  # what the hand holds keeps it from closing
    return Motion(
        position=_behind(told) + random.normal(scale=2e-4, size=told.shape),
        rotation=_behind(told_rotation),
        gripper=np.minimum(_behind(told_gripper), width),
        told_position=told,
        told_rotation=told_rotation,
        told_gripper=told_gripper,
    )


def _behind(values: FloatArray) -> FloatArray:
    return np.concatenate([np.repeat(values[:1], LAG, axis=0), values[:-LAG]])
