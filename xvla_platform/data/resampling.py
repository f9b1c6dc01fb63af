"""Chunks of future targets at X-VLA's anchors, from one episode's recorded targets.

Time is in seconds since the episode's first frame. Frame i is observed at i / hz. A command recorded with it is
what the controller should have reached one tick later, so it is the trajectory's point at (i + 1) / hz; where the
recorded numbers are the poses that were reached, it is the point at i / hz (`timing`). The chunk of a frame at time
t has T anchors at t + k * horizon / T, k = 1..T (arXiv 2510.10274: anchors over a fixed stretch of time, whatever
the recording rate). Before the first point the first one holds.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.canonical import Trajectory
from xvla_platform.data.reader import FloatArray
from xvla_platform.data.rotations import geodesic_deg, interpolate
from xvla_platform.specs.embodiment import IdleSpec

Tail = Literal["hold", "shrink"]
Timing = Literal["command", "reached"]
LEAD = {"command": 1.0, "reached": 0.0}  # ticks from a frame to the point recorded with it
SAME_TICK = 1e-6  # in ticks: rounding of k * horizon / T * hz must not turn a recorded point into a mixture


def anchor_times(
    frames: NDArray[np.int64],
    length: int,
    hz: float,
    horizon_s: float,
    num_anchors: int,
    tail: Tail,
    timing: Timing = "command",
) -> FloatArray:
    """Times [M, T] in seconds of the anchors of each frame [M]; under `shrink` they end with the episode."""
    now = np.asarray(frames, dtype=np.float64) / hz
    end = now + horizon_s
    if tail == "shrink":
        end = np.minimum(end, (length - 1 + LEAD[timing]) / hz)
    steps = np.arange(1, num_anchors + 1) / num_anchors
    return now[:, None] + (end - now)[:, None] * steps[None, :]


def usable_frames(length: int, tail: Tail, timing: Timing = "command", margin: int = 0) -> NDArray[np.int64]:
    """Frames that a chunk may start from: under `shrink` those before the last target, never the last `margin`."""
    frames = np.arange(max(0, length - margin), dtype=np.int64)
    return frames if tail == "hold" else frames[frames < length - 1 + LEAD[timing]]


def idle_frames(trajectory: Trajectory, limits: IdleSpec, timing: Timing) -> NDArray[np.bool_]:
    """Which frames [L] lie idle: until the next frame no target moves by more than `limits`.

    The targets of frames i and i + 1 are those due at i / hz and (i + 1) / hz. Where nothing is due at one of them
    (a command before the first, a pose after the last) the frame counts as moving, since nothing is known.
    """
    still = np.zeros(len(trajectory), dtype=np.bool_)
    steps = np.ones(max(0, len(trajectory) - 1), dtype=np.bool_)
    for name, points in trajectory.values.items():
        kind = trajectory.kinds[name]
        if kind == "rotation":
            steps &= geodesic_deg(points[:-1], points[1:]) <= limits.rotation_deg
            continue
        moved = np.abs(np.diff(points, axis=0)).max(axis=1)
        limit = {"position": limits.position_m, "joint": limits.joint, "gripper": limits.gripper}[kind]
        steps &= moved <= limit
    first = int(LEAD[timing])
    still[first : first + len(steps)] = steps
    return still


def sample_chunks(
    trajectory: Trajectory,
    frames: NDArray[np.int64],
    hz: float,
    horizon_s: float,
    num_anchors: int,
    tail: Tail,
    timing: Timing = "command",
) -> Trajectory:
    """The trajectory [L, ...] at the anchors of each frame [M]: values [M, T, ...].

    Positions, joints and grippers are interpolated linearly (a gripper that switches becomes a soft target),
    rotations along the shortest arc. Beyond the last target, `hold` repeats it.
    """
    length = len(trajectory)
    times = anchor_times(frames, length, hz, horizon_s, num_anchors, tail, timing)
    left, share = _brackets(times.reshape(-1), length, hz, LEAD[timing])
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


def _brackets(times: FloatArray, length: int, hz: float, lead: float) -> tuple[NDArray[np.int64], FloatArray]:
    """For each time [K], the recorded point before it and the share of the way to the next one."""
    ticks = times * hz - lead
    nearest = np.round(ticks)
    ticks = np.where(np.abs(ticks - nearest) < SAME_TICK, nearest, ticks)
    ticks = np.clip(ticks, 0.0, length - 1.0)
    left = np.floor(ticks).astype(np.int64)
    return left, ticks - left
