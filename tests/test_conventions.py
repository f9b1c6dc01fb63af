"""Laws of the declared conventions: what was recorded comes back, for every reference, frame, unit and format."""

from typing import Any

import numpy as np
import pytest
from data_helpers import gripper, joints, make_spec, position, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from xvla_platform.data.binding import Binding
from xvla_platform.data.conventions import Conventions
from xvla_platform.data.rotations import from_matrix, geodesic_deg, to_matrix
from xvla_platform.errors import XvlaError
from xvla_platform.specs.action_space import action_space
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import ANGLE_FORMATS, ROTATION_SIZE, UNITS_OF_KIND

EE6D = action_space("ee6d")
LENGTH = 5
REFERENCES = st.sampled_from(["absolute", "relative", "relative_to_first"])
SCALES = st.sampled_from([1.0, 0.05, -2.0])
BASE = {"position_m": [0.1, -0.2, 0.3], "quaternion_xyzw": [0.0, 0.0, 0.6, 0.8]}
TOOL = {"position_m": [0.0, 0.02, 0.15], "quaternion_xyzw": [0.5, 0.5, -0.5, 0.5]}


def changed(spec: EmbodimentSpec, **more: Any) -> EmbodimentSpec:
    return EmbodimentSpec.model_validate({**spec.model_dump(exclude_unset=True), **more})


def bind(spec: EmbodimentSpec, space: Any = EE6D) -> Binding:
    return Binding(spec, space, "rot6d_interleaved")


def recorded_pose(seed: int, state: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Positions [L, 3] and rotations [L, 3, 3] of a random motion, and nothing about how they are recorded."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.4, (LENGTH, 3)), Rotation.random(LENGTH, rng=rng).as_matrix()


def numbers(field: dict[str, Any], matrices: np.ndarray) -> np.ndarray:
    return from_matrix(matrices, field["format"], field.get("unit")) / field.get("scale", 1.0)


def same_rotation(field: dict[str, Any], a: np.ndarray, b: np.ndarray) -> None:
    """Two recorded rotations are one: angles may differ by whole turns, quaternions in sign."""
    scale = field.get("scale", 1.0)
    turns = [to_matrix(values * scale, field["format"], field.get("unit")) for values in (a, b)]
    assert geodesic_deg(*turns).max() < 2e-3


@st.composite
def rotations_of(draw: Any, **more: Any) -> dict[str, Any]:
    format = draw(st.sampled_from(list(ROTATION_SIZE)))
    if format not in ANGLE_FORMATS:
        return rotation(format, None, **more)
    return rotation(format, draw(st.sampled_from(["rad", "deg"])), scale=draw(SCALES), **more)


@st.composite
def relation(draw: Any) -> dict[str, Any]:
    reference = draw(REFERENCES)
    return {"reference": reference, **({} if reference == "absolute" else {"axes": draw(st.sampled_from(AXES))})}


AXES = ["frame", "tool"]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_recorded_end_effector_actions_come_back(data: Any, seed: int) -> None:
    """Recorded → targets → model → recorded, whatever the references, axes, frame changes, units, formats, scales."""
    draw = data.draw
    units = st.sampled_from(["m", "cm", "mm"])
    state = [position(draw(units)), draw(rotations_of()), gripper()]
    action = [
        {"name": "pad", "kind": "ignored", "size": 2, "value": 0.25},
        draw(rotations_of(**draw(relation()))),
        position(draw(units), scale=draw(SCALES), **draw(relation())),
        gripper(-1.0, 1.0, "normalized"),
    ]
    spec = make_spec(state, action)
    change = draw(st.sampled_from([None, {"base": BASE}, {"tool": TOOL}, {"base": BASE, "tool": TOOL}]))
    if change is not None:
        spec = changed(spec, frame_changes=[change])
    binding, rng = bind(spec), np.random.default_rng(seed)
    where, turn = recorded_pose(seed, state)
    step, step_turn = recorded_pose(seed + 1, state)
    raw_state = np.concatenate([where, numbers(state[1], turn), rng.uniform(0, 0.08, (LENGTH, 1))], axis=1)
    shut = rng.uniform(-1, 1, (LENGTH, 1))
    raw = np.concatenate([np.full((LENGTH, 2), 7.0), numbers(action[1], step_turn), step, shut], axis=1)

    chunk = binding.encode(binding.targets(raw_state, raw))
    rows = [binding.to_columns(chunk[i : i + 1], raw_state[i], raw_state[0]) for i in range(LENGTH)]
    back, slots = np.concatenate(rows), spec.action.slices()
    assert (back[:, slots["pad"]] == 0.25).all()
    same_rotation(action[1], back[:, slots["rotation"]], raw[:, slots["rotation"]])
    metres = {"m": 1.0, "cm": 0.01, "mm": 0.001}[action[2]["unit"]] * abs(action[2]["scale"])
    metres_of_state = {"m": 1.0, "cm": 0.01, "mm": 0.001}[state[0]["unit"]]
    rounding = 1e-5 * (1 + np.abs(step).max() * metres + np.abs(where).max() * metres_of_state)
    assert np.abs(back[:, slots["position"]] - raw[:, slots["position"]]).max() * metres < rounding
    assert back[:, slots["gripper"]] == pytest.approx(shut, abs=1e-5)
    assert all(error.max() < 1e-3 for error in binding.errors(chunk[:, None], chunk[:, None]).values())


@settings(max_examples=80, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_recorded_joint_actions_come_back(data: Any, seed: int) -> None:
    units = st.sampled_from(UNITS_OF_KIND["joint"])
    state = [joints(4, data.draw(units), name="arm"), gripper(100.0, 0.0, "percent")]
    action = [
        joints(4, data.draw(units), name="arm", scale=data.draw(SCALES), reference=data.draw(REFERENCES)),
        gripper(0.0, 0.8, "rad"),
    ]
    binding = bind(make_spec(state, action), action_space("auto", dim=20, real_dim=5))
    rng = np.random.default_rng(seed)
    raw_state = np.concatenate([rng.normal(0, 1, (LENGTH, 4)), rng.uniform(0, 100, (LENGTH, 1))], axis=1)
    raw = np.concatenate([rng.normal(0, 1, (LENGTH, 4)), rng.uniform(0, 0.8, (LENGTH, 1))], axis=1)
    chunk = binding.encode(binding.targets(raw_state, raw))
    back = np.concatenate([binding.to_columns(chunk[i : i + 1], raw_state[i], raw_state[0]) for i in range(LENGTH)])
    # float32 holds seven digits of the absolute target, of which a step may be a small part.
    largest = max(1.0, float(np.abs(binding.targets(raw_state, raw).values["arm"]).max()))
    per_unit = np.abs(binding.targets(raw_state[:1] * 0, np.ones((1, 5))).values["arm"][0, 0])
    assert np.abs(back[:, :4] - raw[:, :4]).max() * per_unit < 1e-5 * largest
    assert back[:, 4] == pytest.approx(raw[:, 4], abs=1e-5)


def test_frame_is_added_outside_and_tool_inside() -> None:
    """By hand: the arm looks along y, and is told to go 0.1 m forward and to turn 90° about x."""
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    roll = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    state = [position(), rotation("matrix", None), gripper()]
    raw_state = np.concatenate([[1.0, 2.0, 3.0], quarter.reshape(9), [0.0]])[None]
    raw = np.concatenate([[0.1, 0.0, 0.0], roll.reshape(9), [0.0]])[None]
    for axes, where, turn in (
        ("frame", [1.1, 2.0, 3.0], roll @ quarter),
        ("tool", [1.0, 2.1, 3.0], quarter @ roll),
    ):
        relative = {"reference": "relative", "axes": axes}
        spec = make_spec(state, [position(**relative), rotation("matrix", None, **relative), gripper()])
        targets = bind(spec).targets(raw_state, raw).values
        assert targets["position"][0] == pytest.approx(where)
        assert targets["rotation"][0] == pytest.approx(turn)


def test_relative_to_first_means_the_episodes_first_frame() -> None:
    first = {"reference": "relative_to_first", "axes": "frame"}
    spec = make_spec(action=[position(**first), rotation(), gripper()])
    binding, states, raw = bind(spec), np.zeros((3, 7)), np.zeros((3, 7))
    states[:, 0], raw[:, 0] = [0.5, 0.6, 0.7], 0.01
    assert binding.targets(states, raw).values["position"][:, 0] == pytest.approx([0.51] * 3)
    chunk = binding.encode(binding.targets(states, raw))
    assert binding.to_columns(chunk, states[2], states[0])[:, 0] == pytest.approx([0.01] * 3, abs=1e-6)
    with pytest.raises(XvlaError, match=r"action\.position.*first frame, whose state is not given"):
        binding.to_columns(chunk, states[2])
    with pytest.raises(XvlaError, match="expected 7 numbers"):
        binding.to_columns(chunk, states[2], states[0, :6])


def test_frame_changes_are_base_pose_tool() -> None:
    """Against a product of 4x4 transforms, in proprio and in the action alike."""
    spec = changed(make_spec(), frame_changes=[{"base": BASE, "tool": TOOL}])
    where, turn = recorded_pose(3, [])
    raw = np.concatenate([where, from_matrix(turn, "euler_xyz_extrinsic", "rad"), np.zeros((LENGTH, 1))], axis=1)

    def transform(point: Any, matrix: np.ndarray) -> np.ndarray:
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = matrix, point
        return out

    base, tool = (
        transform(pose["position_m"], Rotation.from_quat(pose["quaternion_xyzw"]).as_matrix()) for pose in (BASE, TOOL)
    )
    expected = np.stack([base @ transform(p, r) @ tool for p, r in zip(where, turn, strict=True)])
    for values in (Conventions(spec).state(raw), Conventions(spec).targets(raw, raw).values):
        assert values["position"] == pytest.approx(expected[:, :3, 3])
        assert values["rotation"] == pytest.approx(expected[:, :3, :3])
    model = bind(spec).proprio(raw)
    assert bind(spec).hold(model) == pytest.approx(model, abs=1e-6)


def test_errors_are_those_of_the_recorded_tool() -> None:
    """A model that turns the tool by 10° about its own tip moves the recorded flange, 0.15 m away, by 26 mm."""
    spec = changed(
        make_spec(*[[position("mm"), rotation(), gripper()]] * 2),
        frame_changes=[{"tool": {"position_m": [0, 0, 0.15]}}],
    )
    binding, raw = bind(spec), np.zeros((1, 7))
    target = binding.encode(binding.targets(raw, raw))
    turned = target.copy()
    turned[:, 3:9] = from_matrix(Rotation.from_euler("x", 10, degrees=True).as_matrix(), "rot6d_interleaved")
    errors = binding.errors(turned, target)
    assert errors["rotation"] == pytest.approx(10, abs=1e-3)
    assert errors["position"] == pytest.approx(2 * 150 * np.sin(np.radians(5)), rel=1e-3)


@pytest.mark.parametrize(
    ("proprio", "action", "change", "match"),
    [
        ([joints(2)], [joints(2)], {"base": BASE}, r"frame_changes\[0\].*no pose to change"),
        ([position()], [position()], {"tool": TOOL}, r"frame_changes\[0\]\.tool: a change of tool needs position and"),
        (None, None, {"arm": "right", "base": BASE}, "no position and no rotation of arm right"),
    ],
)
def test_frame_changes_that_cannot_be_made_are_refused(proprio: Any, action: Any, change: Any, match: str) -> None:
    spec = changed(make_spec(proprio, action), frame_changes=[change])
    with pytest.raises(XvlaError, match=match):
        bind(spec, action_space("auto", real_dim=20))


def test_a_position_alone_can_change_its_base() -> None:
    spec = changed(make_spec([position()], [position()]), frame_changes=[{"base": BASE}])
    binding, raw = bind(spec, action_space("auto", real_dim=3)), np.random.default_rng(0).normal(size=(4, 3))
    assert binding.to_columns(binding.encode(binding.targets(raw, raw)), raw[0]) == pytest.approx(raw, abs=1e-5)


def test_a_tools_axes_need_the_tools_rotation() -> None:
    along = {"reference": "relative", "axes": "tool"}
    with pytest.raises(XvlaError, match=r"action\.position\.axes.*needs the rotation of arm left in proprio"):
        bind(make_spec([position()], [position(**along)]), action_space("auto", real_dim=3))


IGNORED = {"name": "base_velocity", "kind": "ignored", "size": 3}


def test_ignored_numbers_are_nowhere() -> None:
    """Whatever they hold, the model, the errors and the statistics see nothing of them."""
    spec = make_spec([position(), IGNORED, rotation(), gripper()], [{**IGNORED, "value": -1.0}, *make_spec_fields()])
    binding, raw_state, raw = bind(spec), np.zeros((2, 10)), np.zeros((2, 10))
    raw_state[1, 3:6], raw[1, :3] = np.nan, np.inf
    model, targets = binding.proprio(raw_state), binding.targets(raw_state, raw)
    assert np.array_equal(model[0], model[1])
    assert "base_velocity" not in targets.values
    chunk = binding.encode(targets)
    assert np.array_equal(chunk[0], chunk[1])
    assert set(binding.errors(chunk, chunk)) == set(binding.error_units()) == {"position", "rotation", "gripper"}
    assert set(binding.decode(chunk)) == {"position", "rotation", "gripper"}
    assert (binding.to_columns(chunk, raw_state[0])[:, :3] == -1.0).all()


def make_spec_fields() -> list[dict[str, Any]]:
    return [position(), rotation(), gripper()]


@pytest.mark.parametrize(("open", "closed", "threshold"), [(0.0, 1.0, 0.5), (1.0, -1.0, 0.0), (5.0, 0.0, 2.5)])
def test_a_threshold_makes_the_gripper_binary(open: float, closed: float, threshold: float) -> None:
    spec = make_spec(*[[position(), rotation(), gripper(open, closed, "normalized", threshold=threshold)]] * 2)
    binding, raw = bind(spec), np.zeros((4, 7))
    towards = np.sign(closed - open)
    raw[:, 6] = [open, threshold - 1e-3 * towards, threshold + 1e-3 * towards, closed]
    chunk = binding.encode(binding.targets(raw, raw))
    assert chunk[:, 9].tolist() == binding.proprio(raw)[:, 9].tolist() == [0, 0, 1, 1]
    chunk[:, 9] = [0.0, 0.49, 0.51, 1.0]
    assert binding.decode(chunk)["gripper"][:, 0].tolist() == [open, open, closed, closed]
    with pytest.raises(XvlaError, match=r"the state is not finite"):
        binding.proprio(np.where(np.arange(7) == 6, np.nan, raw))


def test_a_scale_is_the_length_of_one_unit() -> None:
    """LIBERO's habit: an action of 1 moves the arm 0.05 m and turns it 0.5 rad."""
    spec = make_spec(
        action=[
            position(scale=0.05, reference="relative", axes="frame"),
            rotation("axis_angle", scale=0.5, reference="relative", axes="frame"),
            gripper(),
        ]
    )
    targets = bind(spec).targets(np.zeros((1, 7)), np.array([[1.0, -1, 0, 0, 0, 1, 0]])).values
    assert targets["position"][0] == pytest.approx([0.05, -0.05, 0])
    assert targets["rotation"][0] == pytest.approx(Rotation.from_rotvec([0, 0, 0.5]).as_matrix())
