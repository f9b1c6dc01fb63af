"""Chunks of future targets at X-VLA's anchors, from one episode's recorded commands.

Time is in seconds since the episode's first frame. Frame i is observed at i / hz. The command recorded with
it is what the controller should have reached one tick later, so it is the trajectory's point at (i + 1) / hz.
The chunk of a frame at time t has T anchors at t + k * horizon / T, k = 1..T (arXiv 2510.10274: anchors over
a fixed stretch of time, whatever the recording rate). Before the first command the first one holds.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.canonical import Trajectory
from xvla_platform.data.reader import FloatArray
from xvla_platform.data.rotations import interpolate

Tail = Literal["hold", "shrink"]
SAME_TICK = 1e-6  # in ticks: rounding of k * horizon / T * hz must not turn a recorded point into a mixture


def anchor_times(
    frames: NDArray[np.int64], length: int, hz: float, horizon_s: float, num_anchors: int, tail: Tail
) -> FloatArray:
    """Times [M, T] in seconds of the anchors of each frame [M]; under `shrink` they end with the episode."""
    now = np.asarray(frames, dtype=np.float64) / hz
    end = now + horizon_s
    if tail == "shrink":
        end = np.minimum(end, length / hz)
    steps = np.arange(1, num_anchors + 1) / num_anchors
    return now[:, None] + (end - now)[:, None] * steps[None, :]


def usable_frames(length: int, hz: float, tail: Tail) -> NDArray[np.int64]:
    """Frames that have a window to predict: under `shrink`, those before the last target's time."""
    frames = np.arange(length, dtype=np.int64)
    if tail == "hold":
        return frames
    return frames[(length - frames) / hz > SAME_TICK / hz]


def sample_chunks(
    trajectory: Trajectory,
    frames: NDArray[np.int64],
    hz: float,
    horizon_s: float,
    num_anchors: int,
    tail: Tail,
) -> Trajectory:
    """The trajectory [L, ...] at the anchors of each frame [M]: values [M, T, ...].

    Positions, joints and grippers are interpolated linearly (a gripper that switches becomes a soft target),
    rotations along the shortest arc. Beyond the last target, `hold` repeats it.
    """
    length = len(trajectory)
    times = anchor_times(frames, length, hz, horizon_s, num_anchors, tail)
    left, share = _brackets(times.reshape(-1), length, hz)
    right = np.minimum(left + 1, length - 1)
    values: dict[str, FloatArray] = {}
    for name, points in trajectory.values.items():
        if trajectory.kinds[name] == "rotation":
            sampled = interpolate(points, left, right, share)
        else:
            weight = share.reshape(-1, *([1] * (points.ndim - 1)))
            sampled = (1.0 - weight) * points[left] + weight * points[right]
        values[name] = sampled.reshape(*times.shape, *points.shape[1:])
    return Trajectory(values=values, kinds=trajectory.kinds)


def _brackets(times: FloatArray, length: int, hz: float) -> tuple[NDArray[np.int64], FloatArray]:
    """For each time [K], the command before it and the share of the way to the next one."""
    ticks = times * hz - 1.0
    nearest = np.round(ticks)
    ticks = np.where(np.abs(ticks - nearest) < SAME_TICK, nearest, ticks)
    ticks = np.clip(ticks, 0.0, length - 1.0)
    left = np.floor(ticks).astype(np.int64)
    return left, ticks - left
