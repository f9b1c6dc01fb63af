"""A robot recorded in joints over a base of poses: told as poses, answered in joints, carried with its record."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import gripper, joints, make_spec, position, rotation

from xvla_platform.data.binding import Binding
from xvla_platform.data.conventions import Conventions
from xvla_platform.data.joint_poses import carried
from xvla_platform.data.kinematics import Chain
from xvla_platform.data.rotations import geodesic_deg
from xvla_platform.errors import XvlaError
from xvla_platform.specs.action_space import action_space
from xvla_platform.specs.embodiment import EmbodimentSpec

pytest.importorskip("mujoco")
EE6D = action_space("ee6d")
NAMES = [f"j{i}" for i in range(1, 7)]
# A six-axis arm of a common build: turn, two pitches, roll, pitch, roll.
LINKS = [("z", 0.1), ("y", 0.3), ("y", 0.3), ("z", 0.1), ("y", 0.1), ("z", 0.08)]


def urdf() -> str:
    """The arm's URDF; every joint sits `offset` above the one before, with the tip at the end."""
    axes = {"z": "0 0 1", "y": "0 1 0"}
    parts = ['<robot name="six"><link name="l0"/>']
    for i, (axis, offset) in enumerate(LINKS, start=1):
        parts.append(
            f'<link name="l{i}"/><joint name="j{i}" type="revolute"><origin xyz="0 0 {offset}"/>'
            f'<parent link="l{i - 1}"/><child link="l{i}"/><axis xyz="{axes[axis]}"/>'
            '<limit lower="-2.9" upper="2.9" effort="1" velocity="1"/></joint>'
        )
    tip = '<link name="tip"/><joint name="fix" type="fixed"><origin xyz="0 0 0.05"/><parent link="l6"/>'
    return "\n".join([*parts, tip, '<child link="tip"/></joint></robot>'])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "robot").mkdir()
    (tmp_path / "robot" / "arm.urdf").write_text(urdf())
    return tmp_path


def arm_spec(
    proprio: list[dict[str, Any]] | None = None, action: list[dict[str, Any]] | None = None, **kinematics: Any
) -> EmbodimentSpec:
    arm = {"file": "robot/arm.urdf", "joints": NAMES, "tip": "tip", **kinematics}
    spec = make_spec(proprio or [joints(6, "deg"), gripper()], action or [joints(6), gripper()])
    return EmbodimentSpec.model_validate({**spec.model_dump(exclude_unset=True), "kinematics": [arm]})


def motion(length: int, seed: int = 0) -> np.ndarray:
    """A smooth joint motion [L, 6] in rad, away from the limits and from a stretched arm."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, length)[:, None]
    return np.array([0.2, -0.5, 1.3, 0.3, 0.9, -0.4]) + 0.3 * np.sin(time * rng.uniform(1, 3, 6) + rng.uniform(0, 6, 6))


def recorded(length: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """States [L, 7] in degrees and metres and the actions [L, 7] of the tick after, in radians and metres."""
    path = motion(length + 1, seed)
    shut = np.linspace(0, 0.08, length)[:, None]
    return np.concatenate([np.degrees(path[:-1]), shut], axis=1), np.concatenate([path[1:], shut], axis=1)


@pytest.mark.parametrize("reference", ["absolute", "relative", "relative_to_first"])
@pytest.mark.parametrize("change", [None, {"base": {"position_m": [0, 0, 1]}, "tool": {"position_m": [0, 0, 0.1]}}])
def test_recorded_joints_come_back_by_way_of_poses(folder: Path, reference: str, change: Any) -> None:
    spec = arm_spec(action=[joints(6, reference=reference), gripper()])
    if change is not None:
        spec = EmbodimentSpec.model_validate({**spec.model_dump(exclude_unset=True), "frame_changes": [change]})
    binding = Binding(spec, EE6D, "rot6d_interleaved", folder=folder)
    states, raw = recorded()
    origin = {"absolute": 0 * states[:, :6], "relative": states[:, :6], "relative_to_first": states[:1, :6]}[reference]
    raw[:, :6] -= np.radians(origin)
    chunk = binding.encode(binding.targets(states, raw))
    rows = [binding.to_columns(chunk[i : i + 1], states[i], states[0])[0] for i in range(len(raw))]
    assert np.array(rows) == pytest.approx(raw, abs=1e-4)
    whole = binding.decode(chunk, states[0])["joints"]
    assert whole == pytest.approx(motion(13)[1:], abs=1e-4)


def test_the_model_is_told_the_pose_of_the_tip(folder: Path) -> None:
    binding = Binding(arm_spec(), EE6D, "rot6d_columns", folder=folder)
    states, raw = recorded()
    where, turn = Chain(arm_spec().kinematics[0], folder).forward(np.radians(states[:, :6]))
    model = binding.proprio(states)
    assert model[:, :3] == pytest.approx(where, abs=1e-6)
    assert model[:, 3:6] == pytest.approx(turn[:, :, 0], abs=1e-6)
    assert binding.action_mask[:10].all()
    chunk = binding.encode(binding.targets(states, raw))
    assert binding.hold(model)[:, :9] == pytest.approx(model[:, :9], abs=1e-6)  # type: ignore[index]
    shown = binding.quantities(chunk)
    assert set(shown) == set(binding.errors(chunk, chunk)) == {"joints_position", "joints_rotation", "gripper"}
    assert binding.error_units() == {"joints_position": "mm", "joints_rotation": "deg", "gripper": "share of stroke"}
    moved = chunk.copy()
    moved[:, 1] += 0.01
    errors = binding.errors(moved, chunk)
    assert errors["joints_position"] == pytest.approx(10, rel=1e-3)
    assert shown["joints_position"] == pytest.approx(1000 * chunk[:, :3], abs=1e-2)
    assert geodesic_deg(shown["joints_rotation"].reshape(-1, 3, 3)[0], np.eye(3)) > 1


def test_a_base_of_joints_gets_them_as_they_are(folder: Path) -> None:
    for space in (action_space("joint"), action_space("auto", real_dim=7)):
        binding = Binding(arm_spec(), space, "rot6d_columns")
        states, raw = recorded()
        assert binding.proprio(states)[:, :6] == pytest.approx(np.radians(states[:, :6]), abs=1e-6)
        assert binding.to_columns(binding.encode(binding.targets(states, raw)), states[0]) == pytest.approx(
            raw, abs=1e-5
        )
    assert [field.name for field in Conventions(arm_spec()).action] == ["joints", "gripper"]


def test_an_arm_may_be_observed_in_joints_and_driven_by_poses(folder: Path) -> None:
    binding = Binding(arm_spec(action=[position(), rotation(), gripper()]), EE6D, "rot6d_columns", folder=folder)
    states, raw = recorded()[0], np.random.default_rng(0).uniform(0, 0.08, (12, 7))
    assert binding.to_columns(binding.encode(binding.targets(states, raw)), states[0]) == pytest.approx(raw, abs=1e-5)
    assert binding.hold(binding.proprio(states)) is not None


def test_joints_need_the_state_of_the_moment(folder: Path) -> None:
    binding = Binding(arm_spec(), EE6D, "rot6d_columns", folder=folder)
    states, raw = recorded()
    with pytest.raises(XvlaError, match=r"action\.joints: joints are found from where they are now"):
        binding.decode(binding.encode(binding.targets(states, raw)))
    with pytest.raises(XvlaError, match=r"kinematics\[0\]\.file.*folder of its file is not given"):
        Binding(arm_spec(), EE6D, "rot6d_columns")


@pytest.mark.parametrize(
    ("proprio", "action", "match"),
    [
        ([joints(5), gripper()], [joints(6), gripper()], r"kinematics\[0\]\.joints.*names 6 joints.*proprio.*joints 5"),
        ([joints(6), gripper()], [joints(3), joints(3, name="wrist")], r"action needs one.*joints 3, wrist 3"),
        ([joints(6), gripper()], [joints(6, "percent"), gripper()], r"action\.joints\.unit.*found percent"),
        ([joints(6), position()], [joints(6)], r"proprio\.position.*has another one.*kind ignored"),
        ([position(), rotation()], [position(), rotation()], r"proprio\.position.*remove the kinematics"),
        ([gripper()], [position(), rotation()], r"needs one joint field of that size.*found none"),
        ([joints(6), gripper(name="joints_position")], [joints(6)], r"proprio\.joints_position: this name is needed"),
    ],
)
def test_declarations_that_leave_it_open_are_refused(folder: Path, proprio: Any, action: Any, match: str) -> None:
    with pytest.raises(XvlaError, match=match):
        Binding(arm_spec(proprio, action), EE6D, "rot6d_columns", folder=folder)


def test_the_kinematics_travel_as_one_file(folder: Path, tmp_path: Path) -> None:
    """What a record carries is read from its own folder, and gives the same poses."""
    spec, files = carried(arm_spec(), folder)
    (file,) = spec.kinematics
    away = tmp_path / "away"
    away.mkdir()
    for name, text in files.items():
        (away / name).write_text(text)
    shutil.rmtree(folder / "robot")
    assert list(files) == [file.file] == ["kinematics_left.xml"]
    states, raw = recorded()
    found = Binding(spec, EE6D, "rot6d_columns", folder=away)
    assert found.conventions.files == files
    assert np.isfinite(found.encode(found.targets(states, raw))).all()
