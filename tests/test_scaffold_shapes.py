"""Scaffolding from other shapes of data, made of the example's own numbers: right or blank, never wrong."""

import itertools
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scaffold_data import ACTION, STATE, numbers, source_of
from scipy.spatial.transform import Rotation

from xvla_platform.scaffold.draft import resolve, state_of
from xvla_platform.scaffold.infer import Result, infer
from xvla_platform.scaffold.render import plugin_text
from xvla_platform.scaffold.sources import Source

POSE = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]


def example(episodes: int = 20) -> list[dict[str, np.ndarray]]:
    """The example's columns in metres and radians."""
    scale = np.array([1e-3] * 3 + [np.pi / 180] * 3 + [1.0])
    return [{key: values * scale for key, values in part.items()} for part in numbers("my_arm", episodes=episodes)]


def field(result: Result, vector: str, kind: str, arm: str | None = None) -> dict[str, Any]:
    found = [
        entry
        for entry in result.draft[vector]["fields"]
        if entry["kind"].value == kind and (arm is None or entry.get("arm") == arm)
    ]
    assert len(found) == 1, [entry["name"] for entry in result.draft[vector]["fields"]]
    return dict(found[0])


def written(entry: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = resolve(entry)
    return plain


def steps(state: np.ndarray, frame: str) -> np.ndarray:
    """Actions that are the step to the next frame's pose, along the axes of the frame or of the tool."""
    later = np.concatenate([state[1:], state[-1:]])
    turns = Rotation.from_euler("xyz", state[:, 3:6])
    after = Rotation.from_euler("xyz", later[:, 3:6])
    moved = later[:, :3] - state[:, :3]
    if frame == "tool":
        moved, turned = turns.inv().apply(moved), turns.inv() * after
    else:
        turned = after * turns.inv()
    return np.concatenate([moved, turned.as_rotvec(), later[:, 6:]], axis=1)


@pytest.mark.parametrize("frame", ["frame", "tool"])
def test_steps_are_told_from_targets_without_names(frame: str) -> None:
    data = [{STATE: part[STATE], ACTION: steps(part[STATE], frame)} for part in example()]
    result = infer(source_of(data, {STATE: POSE, ACTION: ["a", "b", "c", "d", "e", "f", "g"]}), "robot")
    position = field(result, "action", "position")
    assert written(position)["reference"] == "relative"
    assert written(position)["unit"] == "m"
    assert written(position)["axes"] in (frame, "???")
    assert written(field(result, "action", "gripper"))["reference"] == "absolute"


def test_scaled_steps_leave_their_scale_open() -> None:
    data = [
        {STATE: part[STATE], ACTION: steps(part[STATE], "frame") * np.array([20.0] * 3 + [2.0] * 3 + [1.0])}
        for part in example()
    ]
    result = infer(source_of(data, {STATE: POSE, ACTION: POSE}), "robot")
    position = field(result, "action", "position")
    assert written(position)["scale"] == "???"
    assert position["scale"].value == pytest.approx(0.05, rel=0.3)
    assert state_of(position["unit"]) == "blank"


def test_steps_as_shares_of_the_largest_step_leave_unit_and_scale_open() -> None:
    """As in robomimic's and LIBERO's recordings: -1 to 1, cut off at the ends, followed slowly."""
    data = []
    for part in example():
        state, told = part[STATE], part[ACTION]
        now, goal = (Rotation.from_euler("xyz", values[:, 3:6]) for values in (state, told))
        moves = [(told[:, :3] - state[:, :3]) / 0.05, (goal * now.inv()).as_rotvec() / 0.5, 1 - 2 * told[:, 6:]]
        data.append(
            {
                "obs/ee_pos": state[:, :3],
                "obs/ee_ori": now.as_rotvec(),
                "obs/gripper_states": state[:, 6:] * [0.04, -0.04],
                "actions": np.concatenate(moves, axis=1).clip(-1, 1),
            }
        )
    result = infer(source_of(data), "robot")
    for kind in ("position", "rotation"):
        entry = written(field(result, "action", kind))
        assert entry["reference"] in ("relative", "???")
        assert (entry["unit"], entry["scale"]) == ("???", "???")
    gripper = written(field(result, "action", "gripper"))
    assert (gripper["open"], gripper["closed"], gripper["unit"]) == (-1.0, 1.0, "normalized")
    kinds = [entry["kind"].value for entry in result.draft["proprio"]["fields"]]
    assert kinds == ["position", "rotation", "gripper", "ignored"]


def test_names_that_contradict_the_numbers_leave_a_blank() -> None:
    names = ["x", "y", "z", "qx", "qy", "qz", "qw", "gripper"]
    data = []
    for part in example():
        padded = {key: np.insert(values, 6, 0.1, axis=1) for key, values in part.items()}
        data.append(padded)
    result = infer(source_of(data, {STATE: names, ACTION: names}), "robot")
    for vector in ("proprio", "action"):
        assert state_of(field(result, vector, "rotation")["format"]) == "blank"


def test_a_delta_by_name_that_is_a_target_by_numbers_is_blank() -> None:
    names = ["delta_x", "delta_y", "delta_z", "roll", "pitch", "yaw", "gripper"]
    result = infer(source_of(example(), {STATE: POSE, ACTION: names}), "robot")
    reference = field(result, "action", "position")["reference"]
    assert state_of(reference) == "blank"
    assert "contradiction" in reference.evidence


def test_a_gripper_that_runs_the_other_way_in_the_action_is_seen() -> None:
    data = [
        {STATE: part[STATE], ACTION: np.concatenate([part[ACTION][:, :6], 1 - part[ACTION][:, 6:]], axis=1)}
        for part in example()
    ]
    result = infer(source_of(data, {STATE: POSE, ACTION: POSE}), "robot")
    state, action = field(result, "proprio", "gripper"), field(result, "action", "gripper")
    assert (written(state)["open"], written(action)["open"], written(action)["closed"]) == (1.0, 0.0, 1.0)


def test_two_arms_are_parted_by_their_names() -> None:
    names = [f"{side}_{name}" for side in ("left", "right") for name in POSE]
    data = [{key: np.concatenate([values, values[::-1]], axis=1) for key, values in part.items()} for part in example()]
    result = infer(source_of(data, {STATE: names, ACTION: names}), "robot")
    assert [entry["name"] for entry in result.draft["action"]["fields"]] == [
        f"{side}_{name}" for side in ("left", "right") for name in ("position", "rotation", "gripper")
    ]
    assert field(result, "action", "position", "right")["size"] == 3


def test_one_column_a_quantity_prefers_the_hand_and_names_the_joints() -> None:
    data = [
        {
            "observation.state.joint_position": part[STATE][:, :6] * 2,
            "observation.state.cartesian_position": part[STATE][:, :6],
            "observation.state.gripper_position": part[STATE][:, 6:],
            "action.joint_position": part[ACTION][:, :6] * 2,
            "action.cartesian_position": part[ACTION][:, :6],
            "action.gripper_position": part[ACTION][:, 6:],
        }
        for part in example()
    ]
    result = infer(source_of(data), "robot")
    assert "key" not in result.draft["proprio"]
    assert [entry["key"] for entry in result.draft["action"]["fields"]] == [
        "action.cartesian_position",
        "action.cartesian_position",
        "action.gripper_position",
    ]
    assert any("action.joint_position" in note for note in result.notes)


def test_a_command_that_the_named_joints_follow_is_joints_too() -> None:
    data = [{"observations/qpos": part[STATE], "action": part[ACTION]} for part in example()]
    result = infer(source_of(data), "robot")
    kinds = [[entry["kind"].value for entry in result.draft[name]["fields"]] for name in ("proprio", "action")]
    assert kinds == [["joint", "gripper"]] * 2
    # What does not follow them is read for itself.
    shuffled = [{**part, "action": np.roll(part["action"], 3, axis=1)} for part in data]
    apart = infer(source_of(shuffled), "robot").draft["action"]["fields"]
    assert all("as the state" not in entry["kind"].evidence for entry in apart)


def test_a_layout_found_in_numbers_is_named_in_words() -> None:
    result = infer(source_of([{STATE: part[STATE], ACTION: part[ACTION]} for part in numbers("my_arm")]), "robot")
    said = field(result, "action", "position")["kind"].evidence
    assert "position (3), rotation (3), gripper (1)" in said


def test_padding_is_ignored_and_filled_with_what_was_recorded() -> None:
    data = [{key: np.insert(values, 6, 0.0, axis=1) for key, values in part.items()} for part in numbers("my_arm")]
    result = infer(source_of(data), "robot")
    kinds = [entry["kind"].value for entry in result.draft["action"]["fields"]]
    assert kinds == ["position", "rotation", "ignored", "gripper"]
    assert written(field(result, "action", "ignored"))["value"] == 0.0


@pytest.mark.parametrize(
    ("width", "rest"),
    [
        (7, [0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785]),
        (6, [0.0, -1.57, 1.57, -1.57, -1.57, 0.0]),
        (6, [0.2, -0.9, 1.1, 0.1, -0.3, 0.0]),
    ],
)
def test_bare_joints_are_never_surely_a_pose(width: int, rest: list[float]) -> None:
    rng = np.random.default_rng(width)
    data = []
    for _ in range(30):
        goals = np.asarray(rest) + rng.normal(0, 0.35, (6, width))
        moved = np.concatenate([np.linspace(a, b, 15) for a, b in itertools.pairwise(goals)])
        jaw = np.repeat([1.0, 1.0, 0.0, 0.0, 1.0], 15)[:, None]
        state = np.concatenate([moved, jaw], axis=1)
        data.append({STATE: state, ACTION: np.concatenate([state[1:], state[-1:]])})
    result = infer(source_of(data), "robot")
    for vector in ("proprio", "action"):
        for entry in result.draft[vector]["fields"]:
            assert entry["kind"].value in (None, "joint", "gripper") or state_of(entry["kind"]) != "sure"


def test_an_unknown_rate_is_asked_for_and_nothing_made_up() -> None:
    result = infer(source_of(example(), {STATE: POSE, ACTION: POSE}, fps=None), "robot")
    assert resolve(result.draft)["control_hz"] == "???"


def test_states_recorded_as_actions_are_called_reached() -> None:
    data = [{STATE: part[STATE], ACTION: part[STATE]} for part in example()]
    result = infer(source_of(data, {STATE: POSE, ACTION: POSE}), "robot")
    assert resolve(result.draft)["action"]["timing"] == "reached"


VALUES = st.sampled_from([0.0, 1.0, -1.0, 0.5, 3.14159, 90.0, 1e-9, 1e9, 1e300, float("nan"), float("inf")])


@st.composite
def recordings(draw: st.DrawFn) -> Source:
    """Odd numbers in odd columns: constant, huge, not finite, of one frame, of any width, under any name."""
    keys = draw(st.lists(st.sampled_from([STATE, ACTION, "obs/ee_pos", "obs/robot0_eef_quat", "qpos"]), min_size=1))
    widths = {key: draw(st.integers(1, 9)) for key in keys}
    words = st.sampled_from([*POSE, "qx", "qy", "qz", "qw", "joint_1", "joint_2", "delta_x", "pad", "", "left_gripper"])
    names = {key: draw(st.none() | st.lists(words, min_size=widths[key], max_size=widths[key])) for key in widths}
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    episodes = []
    for _ in range(draw(st.integers(1, 4))):
        length = draw(st.integers(1, 30))
        part = {}
        for key, width in widths.items():
            numbers = rng.normal(0, 1, (length, width)).cumsum(axis=0) * draw(st.sampled_from([0.0, 1e-3, 1.0, 100.0]))
            numbers[draw(st.integers(0, length - 1)), draw(st.integers(0, width - 1))] = draw(VALUES)
            part[key] = numbers
        episodes.append(part)
    return source_of(episodes, names, fps=draw(st.sampled_from([None, 0.5, 20.0])))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(recordings())
def test_any_numbers_give_a_draft_that_reads_back(source: Source) -> None:
    draft = infer(source, "robot").draft
    text = plugin_text(draft, source="x")
    assert yaml.safe_load(text) == resolve(draft)
    for vector in ("proprio", "action"):
        assert draft[vector]["fields"]
