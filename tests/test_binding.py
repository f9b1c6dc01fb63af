"""The binding in both directions: units, polarity, relative actions, layouts, normalization, refusals."""

from typing import Any

import numpy as np
import pytest
from data_helpers import gripper, joints, make_spec, position, rotation
from scipy.spatial.transform import Rotation

from xvla_platform.data.binding import Binding
from xvla_platform.data.canonical import Trajectory
from xvla_platform.data.rotations import from_matrix, geodesic_deg
from xvla_platform.errors import XvlaError
from xvla_platform.specs.action_space import action_space
from xvla_platform.specs.fields import ANGLE_FORMATS, ROTATION_SIZE

EE6D = action_space("ee6d")
LAYOUT = "rot6d_interleaved"
RELATIVE = {"reference": "relative"}


def poses(length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions [L, 3] m, rotations [L, 3, 3], closedness [L, 1]."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.3, (length, 3)), Rotation.random(length, rng=rng).as_matrix(), rng.random((length, 1))


def bind(proprio: Any = None, action: Any = None, space: Any = EE6D, **more: Any) -> Binding:
    return Binding(make_spec(proprio, action), space, LAYOUT, **more)


def both(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"proprio": list(fields), "action": list(fields)}


def test_single_arm_layout_of_ee6d() -> None:
    binding = bind()
    where, turn, shut = poses(4)
    raw = np.concatenate([where, from_matrix(turn, "euler_xyz_extrinsic", "rad"), 0.08 * (1 - shut)], axis=1)
    model = binding.proprio(raw)
    assert model.shape == (4, 20)
    assert model.dtype == np.float32
    assert model[:, :3] == pytest.approx(where, abs=1e-6)
    assert model[:, 3:9] == pytest.approx(from_matrix(turn, LAYOUT), abs=1e-6)
    assert model[:, 9:10] == pytest.approx(shut, abs=1e-5)
    assert not model[:, 10:].any()
    assert binding.action_mask.tolist() == [True] * 10 + [False] * 10
    assert binding.encode(binding.targets(raw, raw)) == pytest.approx(model, abs=1e-6)


def test_rotation_layout_is_that_of_the_base() -> None:
    raw = np.array([[0, 0, 0, 0, 0, np.pi / 2, 0.0]])
    spec = make_spec()
    assert Binding(spec, EE6D, "rot6d_columns").proprio(raw)[0, 3:9] == pytest.approx([0, 1, 0, -1, 0, 0], abs=1e-6)
    assert Binding(spec, EE6D, LAYOUT).proprio(raw)[0, 3:9] == pytest.approx([0, -1, 1, 0, 0, 0], abs=1e-6)
    with pytest.raises(XvlaError, match="rotation layout"):
        Binding(spec, EE6D, "matrix")


def test_right_arm_takes_the_second_half() -> None:
    fields = [
        {**field, "arm": arm, "name": f"{arm}_{field['name']}"}
        for arm in ("right", "left")
        for field in (gripper(), position(), rotation())
    ]
    binding = bind(**both(*fields))
    raw = np.arange(14.0)[None] / 100
    model = binding.proprio(raw)
    assert model[0, 10:13] == pytest.approx(raw[0, 1:4])
    assert model[0, 0:3] == pytest.approx(raw[0, 8:11])
    assert model[0, 19] == pytest.approx(1 - raw[0, 0] / 0.08, abs=1e-5)
    decoded = binding.decode(binding.encode(binding.targets(raw, raw)))
    assert decoded["right_position"] == pytest.approx(raw[:, 1:4], abs=1e-6)
    assert list(decoded) == [field["name"] for field in fields]


@pytest.mark.parametrize(("unit", "per_metre"), [("m", 1), ("cm", 100), ("mm", 1000)])
def test_units_differ_and_the_model_vector_does_not(unit: str, per_metre: float) -> None:
    where, turn, shut = poses(5)
    euler = from_matrix(turn, "euler_xyz_extrinsic", "deg")
    grip = gripper(open=0.08 * per_metre, closed=0, unit=unit)
    binding = bind(**both(position(unit), rotation(unit="deg"), grip))
    raw = np.concatenate([where * per_metre, euler, (1 - shut) * 0.08 * per_metre], axis=1)
    reference = np.concatenate([where, from_matrix(turn, LAYOUT), shut], axis=1)
    assert binding.proprio(raw)[:, :10] == pytest.approx(reference, abs=1e-5)
    chunk = binding.encode(binding.targets(raw, raw))
    assert binding.to_columns(chunk, raw[0]) == pytest.approx(raw, rel=1e-4, abs=1e-4)
    assert binding.error_units()["position"] == unit
    moved = chunk.copy()
    moved[:, 0] += 0.01
    assert binding.errors(moved, chunk)["position"] == pytest.approx(0.01 * per_metre, rel=1e-3)


@pytest.mark.parametrize(("open", "closed"), [(0.08, 0.0), (0.0, 0.8), (1.0, -1.0), (100.0, 0.0)])
def test_polarity_comes_from_the_declared_ends(open: float, closed: float) -> None:
    binding = bind(**both(position(), rotation(), gripper(open, closed, "normalized")))
    raw = np.zeros((3, 7))
    raw[:, 6] = [open, (open + closed) / 2, closed]
    chunk = binding.encode(binding.targets(raw, raw))
    assert chunk[:, 9] == pytest.approx([0, 0.5, 1])
    assert binding.decode(chunk)["gripper"][:, 0] == pytest.approx(raw[:, 6])


def test_only_gripper_targets_are_clipped() -> None:
    raw = np.zeros((2, 7))
    raw[:, 6] = [0.084, -0.004]
    binding = bind()
    assert binding.proprio(raw)[:, 9] == pytest.approx([-0.05, 1.05], abs=1e-5)
    assert binding.targets(raw, raw).values["gripper"][:, 0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("format", ["axis_angle", "quaternion_wxyz", "rot6d_columns"])
def test_relative_actions_compose_on_the_group(format: str) -> None:
    unit = "deg" if format == "axis_angle" else None
    action = [position("mm", axes="frame", **RELATIVE), rotation(format, unit, axes="tool", **RELATIVE), gripper()]
    binding = bind([position(), rotation("quaternion_xyzw", None), gripper()], action)
    (where, turn, shut), (goal, goal_turn, _) = poses(6), poses(6, seed=1)
    states = np.concatenate([where, from_matrix(turn, "quaternion_xyzw"), 0.08 * (1 - shut)], axis=1)
    step = from_matrix(np.swapaxes(turn, -1, -2) @ goal_turn, format, unit)
    actions = np.concatenate([(goal - where) * 1000, step, 0.08 * (1 - shut)], axis=1)
    targets = binding.targets(states, actions).values
    assert targets["position"] == pytest.approx(goal)
    assert geodesic_deg(targets["rotation"], goal_turn).max() < 1e-4
    chunk = binding.encode(binding.targets(states, actions))
    for frame in range(6):  # what the dataset would have recorded for that frame, from that frame's state
        row = binding.to_columns(chunk[frame : frame + 1], states[frame])[0]
        assert row == pytest.approx(actions[frame], abs=2e-2 if unit else 1e-3)
    assert binding.decode(chunk)["position"] == pytest.approx(goal * 1000, abs=1e-2)


def test_relative_joints_refer_to_the_field_of_their_name() -> None:
    state = [joints(3, name="arm"), joints(3, name="wrist")]
    action = [joints(3, "deg", name="wrist", **RELATIVE), joints(3, name="arm", **RELATIVE)]
    binding = bind(state, action, space=action_space("auto", dim=20, real_dim=6))
    raw_state, raw_action = np.arange(6.0)[None] / 10, np.array([[10, 20, 30, 0.1, 0.2, 0.3]])
    targets = binding.targets(raw_state, raw_action).values
    assert targets["wrist"] == pytest.approx(raw_state[:, 3:] + np.radians([10, 20, 30]))
    assert targets["arm"] == pytest.approx(raw_state[:, :3] + [0.1, 0.2, 0.3])
    with pytest.raises(XvlaError, match="exactly one proprio field"):
        bind(state, [joints(3, name="other", **RELATIVE)], space=action_space("auto", real_dim=3))


@pytest.mark.parametrize("format", ROTATION_SIZE)
def test_decode_inverts_encode_in_every_format(format: str) -> None:
    unit = "deg" if format in ANGLE_FORMATS else None
    binding = bind(**both(position("mm"), rotation(format, unit), gripper()))
    where, turn, shut = poses(8)
    raw = np.concatenate([where * 1000, from_matrix(turn, format, unit), 0.08 * (1 - shut)], axis=1)
    chunk = binding.encode(binding.targets(raw, raw))
    assert all(error.max() < 1e-2 for error in binding.errors(chunk, chunk).values())
    again = binding.encode(binding.targets(raw, binding.to_columns(chunk, raw[0])))
    assert again == pytest.approx(chunk, abs=1e-5)


def test_auto_concatenates_in_declared_order() -> None:
    fields = [joints(7, "deg"), gripper(), rotation("quaternion_xyzw", None)]
    binding = bind(**both(*fields), space=action_space("auto", dim=20, real_dim=14))
    raw = np.concatenate([np.full((2, 7), 90.0), np.full((2, 1), 0.08), np.tile([0, 0, 0, 1.0], (2, 1))], axis=1)
    expected = [np.pi / 2] * 7 + [0] + [1, 0, 0, 1, 0, 0] + [0] * 6
    assert binding.proprio(raw)[0] == pytest.approx(expected, abs=1e-6)
    assert binding.to_columns(binding.encode(binding.targets(raw, raw)), raw[0]) == pytest.approx(raw, abs=1e-4)
    with pytest.raises(XvlaError, match=r"14 numbers.*has 13"):
        bind(**both(*fields), space=action_space("auto", dim=20, real_dim=13))


def test_joint_space() -> None:
    binding = bind(**both(joints(), gripper()), space=action_space("joint"))
    raw = np.linspace(0.01, 0.07, 7)[None]
    model = binding.proprio(raw)[0]
    assert model[:6] == pytest.approx(raw[0, :6])
    assert model[6] == pytest.approx(1 - 0.07 / 0.08, abs=1e-5)
    split = bind(**both(joints(4, name="arm"), joints(2, name="wrist"), gripper()), space=action_space("joint"))
    assert split.proprio(raw)[0] == pytest.approx(model)


@pytest.mark.parametrize(
    ("space", "proprio", "action", "match"),
    [
        ("ee6d", [position(), rotation()], [position(), rotation(), joints(3)], "no place for a joint.*kinematics"),
        ("agibot_ee6d", [joints(7)], [joints(7)], r"proprio\.\w+: .*no place for a joint.*kinematics"),
        ("ee6d", [position(), rotation()], [position()], "action: .*needs a rotation field for the left arm"),
        ("ee6d", [position()], [position(), rotation()], "proprio: .*needs a rotation field"),
        ("agibot_ee6d", [position(), rotation()], [position(), rotation(), gripper()], "proprio: .*needs a gripper"),
        ("joint", [joints(7), gripper()], [joints(7), gripper()], "takes 6 numbers of joint.*found 7"),
        ("joint", [joints()], [joints()], "needs a gripper field"),
        ("joint", [position(), rotation()], [position(), rotation()], "no place for a position|needs a"),
        ("ee6d", [position(), rotation(), position(name="p2", arm="right")], [position(), rotation()], "right arm"),
    ],
)
def test_fields_that_do_not_fit_the_space_are_refused(space: str, proprio: Any, action: Any, match: str) -> None:
    with pytest.raises(XvlaError, match=match):
        bind(proprio, action, space=action_space(space))


def test_hidden_gripper_may_be_missing_from_proprio() -> None:
    binding = bind([position(), rotation()], [position(), rotation(), gripper()])
    assert binding.proprio_mask.sum() == 9
    assert binding.action_mask.sum() == 10


ENTRY = {
    "mean": [0.1, 0.2, 0.3],
    "std": [0.5, 1e-9, 2.0],
    "min": [-1, 0.2, 0.3],
    "max": [1, 0.2, 4.3],
    "q01": [0, 0.2, 0.5],
    "q99": [1, 0.2, 4],
    "floor": 0.005,
}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mean_std", lambda x: (x - [0.1, 0.2, 0.3]) / [0.5, 0.005, 2]),
        ("min_max", lambda x: (x - [0, 0.2, 2.3]) / [1, 0.005, 2]),
        ("quantile", lambda x: (x - [0.5, 0.2, 2.25]) / [0.5, 0.005, 1.75]),
    ],
)
def test_normalization_is_canonical_guarded_and_inverted(kind: str, expected: Any) -> None:
    statistics = {"canonical": {"proprio": {"position": ENTRY}, "action": {"position": ENTRY}}}
    fields = both(position("mm", normalization=kind), rotation(), gripper())
    binding = bind(**fields, statistics=statistics)
    raw = np.concatenate([poses(5)[0] * 1000, np.zeros((5, 4))], axis=1)
    chunk = binding.encode(binding.targets(raw, raw))
    assert chunk[:, :3] == pytest.approx(expected(raw[:, :3] / 1000), rel=1e-4, abs=1e-5)
    assert binding.proprio(raw)[:, :3] == pytest.approx(chunk[:, :3])
    assert binding.decode(chunk)["position"] == pytest.approx(raw[:, :3], abs=1e-2)
    with pytest.raises(XvlaError, match="needs the dataset's statistics"):
        bind(**fields)


def test_errors_have_physical_units() -> None:
    binding = bind(**both(position("mm"), rotation(), gripper(0.08, 0.0)))
    turn = np.stack([np.eye(3), Rotation.from_rotvec([0, 0, np.radians(30)]).as_matrix()])
    chunks = []
    for rotated, offset, shut in zip(turn, (0.0, 0.003), (0.2, 0.7), strict=True):
        values = {
            "position": np.full((4, 3), offset),
            "rotation": np.repeat(rotated[None], 4, axis=0),
            "gripper": np.full((4, 1), shut),
        }
        kinds = {"position": "position", "rotation": "rotation", "gripper": "gripper"}
        chunks.append(binding.encode(Trajectory(values=values, kinds=kinds)))
    errors = binding.errors(np.stack([chunks[0], chunks[1]]), np.stack([chunks[0], chunks[0]]))
    assert errors["position"] == pytest.approx([0, 3 * np.sqrt(3)], abs=1e-4)
    assert errors["rotation"] == pytest.approx([0, 30], abs=1e-4)
    assert errors["gripper"] == pytest.approx([0, 0.5], abs=1e-6)
    assert binding.error_units() == {"position": "mm", "rotation": "deg", "gripper": "share of stroke"}


def test_an_untrained_prediction_can_be_measured_but_not_sent_to_a_robot() -> None:
    binding, nothing = bind(), np.zeros((30, 20))
    assert np.isfinite(
        binding.errors(nothing, binding.encode(binding.targets(np.zeros((30, 7)), np.zeros((30, 7)))))["rotation"]
    )
    with pytest.raises(XvlaError, match="not a rotation"):
        binding.decode(nothing)


def test_wrong_sizes_are_refused() -> None:
    binding = bind()
    for call in (lambda: binding.proprio(np.zeros((2, 6))), lambda: binding.decode(np.zeros((30, 14)))):
        with pytest.raises(XvlaError, match="expected"):
            call()
