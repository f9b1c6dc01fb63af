"""The simulator: recorded conventions, repeatable recordings, an expert that picks what is named."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

# Not importorskip: MuJoCo picks its OpenGL backend when imported, and the package chooses a headless one first.
if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the [sim] extra", allow_module_level=True)

from xvla_platform.data.kinematics import Chain
from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.verify import check_dataset
from xvla_platform.errors import XvlaError
from xvla_platform.sim.environment import Command, TableEnvironment
from xvla_platform.sim.episodes import record_layout, still_layouts
from xvla_platform.sim.expert import Expert, Phase, grasp_pose
from xvla_platform.sim.frames import top_down
from xvla_platform.sim.recording import record_demonstrations
from xvla_platform.sim.scene import PLATE_RADIUS, sample_layout
from xvla_platform.sim.setup import load_setup
from xvla_platform.sim.tasks import TASKS, Goal
from xvla_platform.sim.vectors import ArmRows, decode, encode

PLUGINS = Path(__file__).parents[1] / "plugins"
ROBOTS = ("panda", "sawyer", "iiwa", "kinova3", "jaco", "panda_duo", "my_arm", "xarm7")
POSES = tuple(robot for robot in ROBOTS if robot != "jaco")

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("robot", POSES)
def test_every_plugin_loads_and_its_rotations_stay_clear_of_the_wrap(robot: str) -> None:
    setup = load_setup(PLUGINS / robot)
    fields = setup.spec.action.fields
    rotations = np.stack([top_down(yaw) for yaw in np.linspace(-1.0, 1.0, 21)])
    positions = np.tile([0.0, 0.0, 0.9], (21, 1))
    arms: dict[str, ArmRows] = {
        name: ArmRows(*frame.from_world(positions, rotations), np.ones(21), np.zeros((21, 7)))
        for name, frame in setup.frames.items()
    }
    columns = [field.kind == "rotation" for field in fields for _ in range(field.size)]
    turns = encode(fields, arms)[:, columns]
    # 0.1 rad a step: a wrap would show as a jump of 2 pi (or 360 degrees).
    limit = 6.0 if robot == "my_arm" else 0.11
    assert np.abs(np.diff(turns, axis=0)).max() < limit


@pytest.mark.parametrize("robot", POSES)
def test_vectors_and_world_poses_are_inverse(robot: str) -> None:
    setup = load_setup(PLUGINS / robot)
    rng = np.random.default_rng(0)
    position, yaw = rng.normal(size=3), 0.3
    arms: dict[str, ArmRows] = {
        name: ArmRows(*frame.from_world(position[None], top_down(yaw)[None]), np.array([0.25]), np.zeros((1, 7)))
        for name, frame in setup.frames.items()
    }
    for fields in (setup.spec.proprio.fields, setup.spec.action.fields):
        for name, command in decode(fields, encode(fields, arms)[0]).items():
            assert command.position is not None
            assert command.rotation is not None
            world, turn = setup.frames[name].to_world(command.position[None], command.rotation[None])  # type: ignore[index]
            np.testing.assert_allclose(world[0], position, atol=1e-9)
            np.testing.assert_allclose(turn[0], top_down(yaw), atol=1e-9)
            assert command.opening == pytest.approx(0.25)


def test_no_two_robots_share_a_main_view_a_frame_or_a_convention() -> None:
    """What an untouched base must not be able to guess from the robots it knows."""
    setups = [load_setup(PLUGINS / robot) for robot in ROBOTS]
    views = {setup.sim.cameras[setup.spec.ordered_cameras[0].name].position for setup in setups}
    frames = {(arm.data_frame.position, arm.data_frame.euler_xyz_deg) for s in setups for arm in [s.sim.arms["left"]]}
    kinds = {(s.spec.control_hz, s.spec.action.fields) for s in setups}
    assert len(views) == len(frames) == len(ROBOTS)
    assert len(kinds) == len(ROBOTS)
    assert {s.spec.control_hz for s in setups} == {10.0, 15.0, 20.0}


def test_recorded_state_is_the_simulators_pose_by_hand(table: TableEnvironment) -> None:
    """The numbers of plugins/my_arm/sim.yaml, written out once more without the code under test."""
    from scipy.spatial.transform import Rotation

    table.reset(3)
    vector = table.proprio().astype(np.float64)
    turn = Rotation.from_euler("xyz", [0, 0, 135], degrees=True)
    tool = Rotation.from_euler("xyz", [180, 0, -5], degrees=True)
    grip = turn * Rotation.from_euler("xyz", vector[3:6], degrees=True) * tool.inv()
    tip = turn.apply(vector[:3] / 1000.0) + np.array([0.3, -0.2, 0.1])
    position, rotation = table.arms["left"].pose()
    np.testing.assert_allclose(grip.as_matrix(), rotation, atol=1e-5)
    np.testing.assert_allclose(tip - grip.apply([0, 0, 0.05]), position, atol=1e-5)
    assert vector[6] == pytest.approx(1.0, abs=1e-3)


def test_a_layout_gives_a_successful_episode_for_every_cube(table: TableEnvironment) -> None:
    first = record_layout(table, 5, per_scene=3)
    again = record_layout(table, 5, per_scene=3)
    assert len(first.episodes) == 3
    assert len({episode.instruction.split()[-2] for episode in first.episodes}) == 3
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


def test_a_recording_is_read_back_and_ignores_the_worker_count(table: TableEnvironment, tmp_path: Path) -> None:
    plugin = tmp_path / "my_arm"
    plugin.mkdir()
    for name in ("plugin.yaml", "sim.yaml"):
        shutil.copy(PLUGINS / "my_arm" / name, plugin)
    summary = record_demonstrations(plugin, episodes=5, seed=5, workers=2)
    assert (summary.episodes, summary.layouts) == (5, 2)
    assert (plugin / "demonstrations" / "contact_sheet.png").is_file()
    reader = open_lerobot(plugin / "demonstrations")
    check_dataset(reader, table.setup.spec)
    expected = record_layout(table, 5, per_scene=3).episodes[0]
    columns = reader.columns(0, ["observation.state", "action"])
    np.testing.assert_allclose(columns["observation.state"], expected.states, atol=1e-3)
    np.testing.assert_allclose(columns["action"], expected.actions, atol=1e-3)
    frames = reader.frames(0, "observation.images.wrist", [0, 20])
    assert np.abs(frames.astype(int) - expected.images["wrist"][[0, 20]].astype(int)).mean() < 4.0
    with pytest.raises(XvlaError, match="exists already"):
        record_demonstrations(plugin, episodes=3)


def test_another_rig_is_another_dataset_of_the_same_scenes(tmp_path: Path) -> None:
    """It lies below `rigs/`, with the numbers of the plugin's own cameras and other pictures."""
    plugin = tmp_path / "xarm7"
    shutil.copytree(PLUGINS / "xarm7", plugin, ignore=shutil.ignore_patterns("demonstrations"))
    own, other = (record_demonstrations(plugin, episodes=1, per_scene=1, seed=3, rig=rig) for rig in (0, 7))
    assert Path(other.dataset) == plugin / "rigs" / "7" / "demonstrations"
    readers = [open_lerobot(Path(summary.dataset)) for summary in (own, other)]
    states, images = [], []
    for reader in readers:
        states.append(reader.columns(0, ["observation.state"])["observation.state"])
        images.append(reader.frames(0, "observation.images.front", [0]))
    assert np.array_equal(*states)
    assert np.abs(images[0].astype(float) - images[1]).mean() > 10
    with pytest.raises(XvlaError, match="a rig is not negative"):
        record_demonstrations(plugin, episodes=1, rig=-1)


def test_recorded_actions_replay(table: TableEnvironment) -> None:
    """The dataset's action vectors alone, sent back through the robot's convention, do the task."""
    for number, episode in enumerate(record_layout(table, 1000, per_scene=3, task="all").episodes):
        rng = np.random.default_rng(1000)
        layout = sample_layout(rng, table.setup.sim.min_separation)
        task = TASKS[episode.task]
        goal = next(
            goal
            for goal in task.goals(layout)
            if goal.cube == number and episode.instruction in task.instructions(layout, goal)
        )
        table.place(layout, table.sample_arms(rng), task, goal, episode.instruction)
        for action in episode.actions:
            table.step(action)
        assert table.status()["success"], episode.instruction


def test_still_scenes_point_at_the_named_cube(table: TableEnvironment) -> None:
    episodes = still_layouts(table, 0, task="all").episodes
    assert len(episodes) == 9
    assert all(len(episode.states) == 1 for episode in episodes)
    np.testing.assert_array_equal(episodes[0].images["front"], episodes[1].images["front"])
    assert np.linalg.norm(episodes[0].actions[0, :3] - episodes[1].actions[0, :3]) > 80.0
    # The colour that the words name is what is seen where the columns say.
    shown = {"red": [1, 0, 0], "green": [0, 1, 0], "blue": [0, 0, 1], "yellow": [1, 1, 0]}
    right = 0
    for episode in episodes:
        named = next(word for word in episode.instruction.split() if word in shown)
        u, v = episode.extra["grounding.uv"][0]
        pixel = episode.images["front"][0][int(v * 128), int(u * 128)].astype(float)
        right += int(np.array_equal(pixel > 0.5 * pixel.max(), np.array(shown[named], bool)))
        assert (episode.extra["grounding.place_uv"].min() < 0) == (episode.task == "pick")
    assert right >= 7  # the arm may stand before a cube


def test_recorded_actions_drive_the_robot(table: TableEnvironment) -> None:
    table.reset(11)
    arm = table.arms["left"]
    target, rotation = grasp_pose(table, table.goal.cube, table.setup.sim.expert)
    above = target + np.array([0.0, 0.0, 0.1])
    rows = ArmRows(*arm.frame.from_world(above[None], rotation[None]), np.ones(1), arm.joints()[None])
    command = encode(table.setup.spec.action.fields, {"left": rows})[0]
    for _ in range(40):
        table.step(command)
    assert np.linalg.norm(arm.pose()[0] - above) < 0.004
    status = table.status()
    assert not status["success"]
    assert status["approached"] is None
    assert status["seconds"] == pytest.approx(2.0)


def _run(table: TableEnvironment, goal: Goal | None = None, until: Phase = Phase.DONE) -> None:
    """Let the expert work in the scene as it is, on its own goal or another."""
    asked = table.goal
    table.goal = goal or asked
    expert = Expert(table)
    rest = {name: Command(arm.joints(), 1.0) for name, arm in table.arms.items()}
    arm = table.arms[expert.name]
    for _ in range(round(9 * table.control_hz)):
        target = expert.act()
        table.goal = asked
        table.apply({**rest, expert.name: Command(arm.solve(target.position, target.rotation), target.opening)})
        table.goal = goal or asked
        if expert.phase is until and (until is not Phase.DONE or table.status()["success"] or goal is not None):
            break
    table.goal = asked


@pytest.mark.slow
@pytest.mark.parametrize("robot", ROBOTS)
def test_the_expert_does_every_task_on_every_robot(robot: str) -> None:
    environment = TableEnvironment(load_setup(PLUGINS / robot))
    for seed, task in enumerate(TASKS):
        first = environment.reset(seed, task)
        again = environment.reset(seed, task)
        np.testing.assert_array_equal(first.state, again.state)
        _run(environment)
        status = environment.status()
        assert status["success"], f"{robot}: {environment.instruction}"
        assert status["approached"]
        assert status["seconds"] < 8.0
    environment.close()


def test_success_is_not_to_be_had_by_accident(table: TableEnvironment) -> None:
    table.reset(2, "pick")
    wrong = Goal((table.goal.cube + 1) % 3)
    _run(table, wrong)
    assert table.status()["success"] is False
    assert table.status()["approached"] is False
    # Lifted, then dropped.
    table.reset(2, "pick")
    _run(table)
    assert table.status()["success"] is True
    arm = table.arms["left"]
    for _ in range(15):
        table.apply({"left": Command(arm.joints(), 1.0)})
    assert table.status()["success"] is False
    # Held over the plate, but not let go.
    table.reset(2, "place")
    _run(table, until=Phase.OPEN)
    held = table.state()
    assert not table.task.success(held, table.goal)


def test_predicates_ask_for_the_named_things_at_rest(table: TableEnvironment) -> None:
    from dataclasses import replace

    table.reset(4, "place")
    state = table.state()
    place, stack, pick = TASKS["place"], TASKS["stack"], TASKS["pick"]
    on_plate = state.cubes.copy()
    on_plate[0, :2] = state.layout.plates[1][:2]
    there = replace(state, cubes=on_plate)
    assert place.success(there, Goal(0, 1))
    assert place.progress(there, Goal(0, 1)) == 1.0
    assert not place.success(there, Goal(0, 0))
    assert not place.success(there, Goal(1, 1))
    assert not place.success(replace(there, speeds=np.array([0.1, 0, 0])), Goal(0, 1))
    assert not place.success(replace(there, touched=np.array([True, False, False])), Goal(0, 1))
    on_plate[0, 0] += PLATE_RADIUS + 0.001
    assert not place.success(replace(state, cubes=on_plate), Goal(0, 1))
    on_top = state.cubes.copy()
    on_top[2] = on_top[1] + [0.01, 0, 0.04]
    stacked = replace(state, cubes=on_top)
    assert stack.success(stacked, Goal(2, 1))
    assert not stack.success(stacked, Goal(1, 2))
    assert not stack.success(stacked, Goal(2, 0))
    assert not pick.success(stacked, Goal(2))
    on_top[2, 2] += 0.1
    assert not pick.success(replace(state, cubes=on_top), Goal(2))
    assert pick.success(replace(state, cubes=on_top, touched=np.array([False, False, True])), Goal(2))


def test_recorded_joints_are_the_recorded_pose() -> None:
    """The shipped kinematics of the joint-space robot, against the simulator's own pose."""
    environment = TableEnvironment(load_setup(PLUGINS / "jaco"))
    environment.reset(3)
    spec, arm = environment.setup.spec, environment.arms["left"]
    position, rotation = Chain(spec.kinematics[0], PLUGINS / "jaco").forward(environment.proprio()[:7])
    where, turn = arm.frame.from_world(arm.pose()[0][None], arm.pose()[1][None])
    np.testing.assert_allclose(position, where[0], atol=1e-5)
    np.testing.assert_allclose(rotation, turn[0], atol=1e-5)
    environment.close()


def test_things_keep_their_distance_and_vary_by_more_than_ten_centimetres() -> None:
    layouts = [sample_layout(np.random.default_rng(seed), 0.1) for seed in range(50)]
    for layout in layouts:
        things = np.concatenate([layout.positions, layout.plates])
        gaps = [np.linalg.norm(things[i] - things[j]) for i in range(5) for j in range(i)]
        assert min(gaps) >= 0.1
        assert len(set(layout.colours)) == 3
        assert len(set(layout.plate_colours)) == 2
    for spread in (np.ptp([x.positions[0] for x in layouts], axis=0), np.ptp([x.plates[0] for x in layouts], axis=0)):
        assert (spread[:2] > 0.1).all()


def test_no_evaluation_meets_a_recorded_scene(table: TableEnvironment) -> None:
    """The first scenes of both, and those whose numbers are the streams' own, where numpy would drop a last 0."""
    separation = table.setup.sim.min_separation
    recorded = [sample_layout(np.random.default_rng(seed), separation).positions for seed in range(30)]
    for seed in range(5):
        table.reset(seed)
        assert table.layout is not None
        assert not any(np.array_equal(table.layout.positions, positions) for positions in recorded)
