"""The simulator: recorded conventions, repeatable recordings, an expert that picks what is named."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

# Not importorskip: MuJoCo picks its OpenGL backend when imported, and the package chooses a headless one first.
if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the [sim] extra", allow_module_level=True)

from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.verify import check_dataset
from xvla_platform.errors import XvlaError
from xvla_platform.sim.environment import TableEnvironment
from xvla_platform.sim.episodes import record_layout, still_layouts
from xvla_platform.sim.expert import grasp_pose
from xvla_platform.sim.frames import top_down
from xvla_platform.sim.recording import record_demonstrations
from xvla_platform.sim.scene import sample_layout
from xvla_platform.sim.setup import load_setup
from xvla_platform.sim.vectors import decode, encode

PLUGINS = Path(__file__).parents[1] / "plugins"
ROBOTS = ("panda", "sawyer", "iiwa", "kinova3", "my_arm")

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def env() -> Iterator[TableEnvironment]:
    environment = TableEnvironment(load_setup(PLUGINS / "my_arm"))
    yield environment
    environment.close()


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_plugin_loads_and_its_rotations_stay_clear_of_the_wrap(robot: str) -> None:
    setup = load_setup(PLUGINS / robot)
    yaws = np.linspace(-1.0, 1.0, 21)
    rotations = np.stack([top_down(yaw) for yaw in yaws])
    positions = np.tile([0.0, 0.0, 0.9], (21, 1))
    vectors = encode(setup.spec.action.fields, *setup.frame.from_world(positions, rotations), np.ones(21))
    # 0.1 rad a step: a wrap would show as a jump of 2 pi (or 360 degrees).
    limit = 6.0 if robot == "my_arm" else 0.11
    assert np.abs(np.diff(vectors[:, 3:-1], axis=0)).max() < limit


@pytest.mark.parametrize("robot", ROBOTS)
def test_vectors_and_world_poses_are_inverse(robot: str) -> None:
    setup = load_setup(PLUGINS / robot)
    rng = np.random.default_rng(0)
    position, yaw = rng.normal(size=3), 0.3
    in_data = setup.frame.from_world(position[None], top_down(yaw)[None])
    for fields in (setup.spec.proprio.fields, setup.spec.action.fields):
        vector = encode(fields, *in_data, np.array([0.25]))[0]
        back, rotation, opening = decode(fields, vector)
        world, world_rotation = setup.frame.to_world(back[None], rotation[None])
        np.testing.assert_allclose(world[0], position, atol=1e-9)
        np.testing.assert_allclose(world_rotation[0], top_down(yaw), atol=1e-9)
        assert opening == pytest.approx(0.25)


def test_recorded_state_is_the_simulators_pose_by_hand(env: TableEnvironment) -> None:
    """The numbers of plugins/my_arm/sim.yaml, written out once more without the code under test."""
    from scipy.spatial.transform import Rotation

    env.reset(3)
    vector = env.proprio().astype(np.float64)
    turn = Rotation.from_euler("xyz", [0, 0, 135], degrees=True)
    tool = Rotation.from_euler("xyz", [180, 0, -5], degrees=True)
    grip = turn * Rotation.from_euler("xyz", vector[3:6], degrees=True) * tool.inv()
    tip = turn.apply(vector[:3] / 1000.0) + np.array([0.3, -0.2, 0.1])
    position, rotation = env.grip_pose()
    np.testing.assert_allclose(grip.as_matrix(), rotation, atol=1e-5)
    np.testing.assert_allclose(tip - grip.apply([0, 0, 0.05]), position, atol=1e-5)
    assert vector[6] == pytest.approx(1.0, abs=1e-3)


def test_a_layout_gives_a_successful_episode_for_every_cube(env: TableEnvironment) -> None:
    first = record_layout(env, 5, per_scene=3)
    again = record_layout(env, 5, per_scene=3)
    assert len(first.episodes) == 3
    assert len({episode.task.split()[-2] for episode in first.episodes}) == 3
    for one, two in zip(first.episodes, again.episodes, strict=True):
        # Micrometres: vectorised sums may differ in the last bit with the alignment of their memory.
        np.testing.assert_allclose(one.states, two.states, atol=1e-3)
        np.testing.assert_allclose(one.actions, two.actions, atol=1e-3)
        assert np.mean(one.images["wrist"] != two.images["wrist"]) < 1e-3
        # Open at the start, commanded closed at the end, and closed on something.
        assert one.states[0, 6] > 0.95
        assert one.actions[-1, 6] == 0.0
        assert 0.1 < one.states[-1, 6] < 0.6
        assert one.states[-1, 2] - one.states[:, 2].min() > 70.0
    starts = [episode.images["front"][0] for episode in first.episodes]
    np.testing.assert_array_equal(starts[0], starts[1])


def test_a_recording_is_read_back_and_ignores_the_worker_count(env: TableEnvironment, tmp_path: Path) -> None:
    plugin = tmp_path / "my_arm"
    plugin.mkdir()
    for name in ("plugin.yaml", "sim.yaml"):
        shutil.copy(PLUGINS / "my_arm" / name, plugin)
    summary = record_demonstrations(plugin, episodes=5, seed=5, workers=2)
    assert (summary.episodes, summary.layouts) == (5, 2)
    assert (plugin / "demonstrations" / "contact_sheet.png").is_file()
    reader = open_lerobot(plugin / "demonstrations")
    check_dataset(reader, env.setup.spec)
    expected = record_layout(env, 5, per_scene=3).episodes[0]
    columns = reader.columns(0, ["observation.state", "action"])
    np.testing.assert_allclose(columns["observation.state"], expected.states, atol=1e-3)
    np.testing.assert_allclose(columns["action"], expected.actions, atol=1e-3)
    frames = reader.frames(0, "observation.images.wrist", [0, 20])
    assert np.abs(frames.astype(int) - expected.images["wrist"][[0, 20]].astype(int)).mean() < 4.0
    with pytest.raises(XvlaError, match="exists already"):
        record_demonstrations(plugin, episodes=3)


def test_recorded_actions_replay(env: TableEnvironment) -> None:
    """The dataset's action vectors alone, sent back through the robot's convention, lift the cube."""
    episode = record_layout(env, 1000, per_scene=3).episodes[1]
    rng = np.random.default_rng(1000)
    layout = sample_layout(rng, env.setup.sim.min_separation)
    env.place(layout, env.sample_arm(rng)[1], layout.colours[1], episode.task)
    for action in episode.actions:
        env.step(action)
    assert env.success()


def test_still_scenes_point_at_the_named_cube(env: TableEnvironment) -> None:
    episodes = still_layouts(env, 0)
    assert len(episodes) == 9
    assert all(len(episode.states) == 1 for episode in episodes)
    np.testing.assert_array_equal(episodes[0].images["front"], episodes[1].images["front"])
    assert np.linalg.norm(episodes[0].actions[0, :3] - episodes[1].actions[0, :3]) > 80.0


def test_recorded_actions_drive_the_robot(env: TableEnvironment) -> None:
    env.reset(11)
    target, rotation = grasp_pose(env, env.target, env.setup.sim.expert)
    above = target + np.array([0.0, 0.0, 0.1])
    in_data = env.setup.frame.from_world(above[None], rotation[None])
    command = encode(env.setup.spec.action.fields, *in_data, np.ones(1))[0]
    for _ in range(40):
        env.step(command)
    assert np.linalg.norm(env.grip_pose()[0] - above) < 0.02
    assert env.nearest_cube() == env.target
    assert not env.success()


def test_cubes_keep_their_distance() -> None:
    for seed in range(50):
        layout = sample_layout(np.random.default_rng(seed), 0.1)
        gaps = [np.linalg.norm(layout.positions[i] - layout.positions[j]) for i in range(3) for j in range(i)]
        assert min(gaps) >= 0.1
        assert len(set(layout.colours)) == 3


def test_a_plugin_without_a_simulator_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plugin.yaml").write_text((PLUGINS / "my_arm" / "plugin.yaml").read_text())
    with pytest.raises(XvlaError, match="cannot be simulated"):
        load_setup(tmp_path)
