"""Chunks at anchors in seconds: exact on linear motion, constant on the sphere, held or shrunk at the end."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from xvla_platform.data.canonical import Trajectory
from xvla_platform.data.resampling import anchor_times, idle_frames, sample_chunks, usable_frames
from xvla_platform.data.rotations import geodesic_deg
from xvla_platform.specs.embodiment import IdleSpec

KINDS = {"position": "position", "rotation": "rotation", "gripper": "gripper"}


def motion(length: int, hz: float, speed: float = 0.2, turn: float = 0.5) -> Trajectory:
    """Linear motion (m/s) and constant turn (rad/s), as commands: the point at (i + 1) / hz is row i."""
    time = (np.arange(length) + 1) / hz
    values = {
        "position": np.stack([speed * time, -speed * time, np.zeros(length)], axis=1),
        "rotation": Rotation.from_rotvec(np.stack([np.zeros(length), np.zeros(length), turn * time], 1)).as_matrix(),
        "gripper": (np.arange(length)[:, None] >= length // 2).astype(float),
    }
    return Trajectory(values=values, kinds=KINDS)


@pytest.mark.parametrize("hz", [5.0, 10.0, 30.0])
@pytest.mark.parametrize("horizon", [0.5, 1.0, 4 / 3])
def test_linear_motion_is_exact_at_every_rate(hz: float, horizon: float) -> None:
    length = int(4 * hz)
    frames = np.arange(1, 10)
    chunk = sample_chunks(motion(length, hz), frames, hz, horizon, 30, "hold")
    time = frames[:, None] / hz + horizon * np.arange(1, 31) / 30
    time = np.maximum(time, 1 / hz)
    assert chunk.values["position"][..., 0] == pytest.approx(0.2 * time)
    assert np.arctan2(chunk.values["rotation"][..., 1, 0], chunk.values["rotation"][..., 0, 0]) == pytest.approx(
        0.5 * time
    )


def test_the_first_action_of_a_tick_long_step_is_the_command_of_the_frame() -> None:
    trajectory = motion(40, 30)
    chunk = sample_chunks(trajectory, np.arange(10), 30.0, 1.0, 30, "hold")
    for name, values in trajectory.values.items():
        for frame in range(10):
            assert chunk.values[name][frame] == pytest.approx(values[frame : frame + 30]), name


def test_before_the_first_command_the_first_one_holds() -> None:
    trajectory = motion(20, 5)
    chunk = sample_chunks(trajectory, np.array([0]), 5.0, 0.5, 10, "hold")
    assert chunk.values["position"][0, :4] == pytest.approx(np.repeat(trajectory.values["position"][:1], 4, axis=0))


def test_two_rates_of_one_motion_give_one_chunk() -> None:
    slow = sample_chunks(motion(30, 10), np.array([10]), 10.0, 1.0, 30, "hold")
    fast = sample_chunks(motion(90, 30), np.array([30]), 30.0, 1.0, 30, "hold")
    for name in ("position", "rotation"):
        later = slice(2, None)  # the slow recording's first command lies one of its ticks ahead
        assert slow.values[name][:, later] == pytest.approx(fast.values[name][:, later], abs=1e-9)


def test_rotation_has_constant_speed_between_sparse_commands() -> None:
    matrices = Rotation.random(5, rng=np.random.default_rng(0)).as_matrix()
    trajectory = Trajectory(values={"rotation": matrices}, kinds={"rotation": "rotation"})
    chunk = sample_chunks(trajectory, np.array([1]), 1.0, 1.0, 20, "hold").values["rotation"][0]
    commands = Slerp(np.arange(5.0) + 1, Rotation.from_matrix(matrices))
    expected = commands(1 + np.arange(1, 21) / 20).as_matrix()
    assert chunk == pytest.approx(expected)
    steps = geodesic_deg(chunk[:-1], chunk[1:])
    assert steps == pytest.approx(np.full(19, steps[0]))


def test_a_switching_gripper_is_soft_in_between() -> None:
    chunk = sample_chunks(motion(8, 1), np.array([3]), 1.0, 2.0, 8, "hold").values["gripper"][0, :, 0]
    assert chunk == pytest.approx([0, 0, 0, 0, 0.25, 0.5, 0.75, 1])


def test_hold_repeats_the_last_target() -> None:
    trajectory = motion(5, 10)
    chunk = sample_chunks(trajectory, np.arange(5), 10.0, 1.0, 10, "hold").values["position"]
    for frame in range(5):
        assert chunk[frame, : 5 - frame] == pytest.approx(trajectory.values["position"][frame:])
        assert chunk[frame, 5 - frame :] == pytest.approx(np.tile(trajectory.values["position"][-1], (5 + frame, 1)))


def test_shrink_ends_with_the_episode_at_even_steps() -> None:
    trajectory = motion(12, 10)
    times = anchor_times(np.arange(12), 12, 10.0, 1.0, 30, "shrink")
    assert times[1, -1] == pytest.approx(1.1)
    assert times[:, -1].max() == pytest.approx(1.2)
    assert np.diff(times, axis=1) == pytest.approx(np.repeat(np.diff(times, axis=1)[:, :1], 29, axis=1))
    chunk = sample_chunks(trajectory, np.array([8]), 10.0, 1.0, 4, "shrink").values["position"][0]
    assert chunk == pytest.approx(trajectory.values["position"][8:])


@pytest.mark.parametrize("tail", ["hold", "shrink"])
def test_a_single_frame_is_an_episode(tail: str) -> None:
    trajectory = motion(1, 10)
    frames = usable_frames(1, tail)  # type: ignore[arg-type]
    assert frames.tolist() == [0]
    chunk = sample_chunks(trajectory, frames, 10.0, 1.0, 30, tail)  # type: ignore[arg-type]
    assert chunk.values["position"][0] == pytest.approx(np.repeat(trajectory.values["position"], 30, axis=0))
    assert chunk.values["rotation"].shape == (1, 30, 3, 3)


def test_every_frame_is_usable_because_its_command_lies_ahead() -> None:
    for tail in ("hold", "shrink"):
        assert usable_frames(7, tail).tolist() == list(range(7))  # type: ignore[arg-type]
        assert len(usable_frames(0, tail)) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("tail", ["hold", "shrink"])
def test_recorded_poses_are_one_tick_earlier_than_commands(tail: str) -> None:
    """The same motion, once as commands and once as the poses reached: frame for frame the same chunk."""
    commands = motion(30, 10)
    time = np.arange(31) / 10
    poses = {"position": np.stack([0.2 * time, -0.2 * time, np.zeros(31)], axis=1)}
    reached = Trajectory(values=poses, kinds={"position": "position"})
    frames = np.arange(1, 29)
    told = sample_chunks(commands, frames, 10.0, 0.5, 10, tail)  # type: ignore[arg-type]
    found = sample_chunks(reached, frames, 10.0, 0.5, 10, tail, "reached")  # type: ignore[arg-type]
    assert found.values["position"] == pytest.approx(told.values["position"])


def test_the_last_pose_reached_has_nothing_ahead() -> None:
    assert usable_frames(7, "shrink", "reached").tolist() == list(range(6))
    assert usable_frames(7, "hold", "reached").tolist() == list(range(7))
    assert anchor_times(np.array([3]), 7, 10.0, 1.0, 4, "shrink", "reached")[0, -1] == pytest.approx(0.6)


def test_the_margin_is_never_a_start() -> None:
    assert usable_frames(10, "hold", margin=4).tolist() == list(range(6))
    assert usable_frames(10, "shrink", "reached", 4).tolist() == list(range(6))
    assert usable_frames(3, "hold", margin=4).tolist() == []


@pytest.mark.parametrize(("kind", "step"), [("position", 2e-5), ("joint", 2e-5), ("gripper", 2e-3), ("rotation", 2e-3)])
@pytest.mark.parametrize("factor", [0.4, 1.0])
def test_a_frame_is_idle_while_nothing_moves_by_more_than_the_limits(kind: str, step: float, factor: float) -> None:
    """Ten points that move in steps 3 to 5 only; limits of half a step tell them, larger ones do not."""
    amount = np.cumsum([0, 0, 0, 1, 1, 1, 0, 0, 0, 0]) * step * factor
    still, moving = np.zeros((10, 3)), amount[:, None] * [1.0, 0.0, 0.0]
    values = {"still": still, "part": moving}
    if kind == "rotation":
        values["part"] = Rotation.from_rotvec(np.radians(moving)).as_matrix()
    trajectory = Trajectory(values=values, kinds={"still": "joint", "part": kind})
    idle = [True, True, False, False, False, True, True, True, True] if factor == 1.0 else [True] * 9
    # A pose of frame i is due at i / hz, a command one tick later; the tick before the first point is not known.
    assert idle_frames(trajectory, IdleSpec(), "reached").tolist() == [*idle, False]
    assert idle_frames(trajectory, IdleSpec(), "command").tolist() == [False, *idle]


def test_an_episode_of_one_frame_is_not_idle() -> None:
    assert idle_frames(motion(1, 10), IdleSpec(), "command").tolist() == [False]
