"""Laws of the rotation formats: published vectors, round trips, composition, interpolation, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from xvla_platform.data.rotations import from_matrix, geodesic_deg, interpolate, to_matrix
from xvla_platform.errors import XvlaError
from xvla_platform.specs.fields import ANGLE_FORMATS, EULER_FORMATS, ROTATION_SIZE

FORMATS = [(name, unit) for name in ROTATION_SIZE for unit in (("rad", "deg") if name in ANGLE_FORMATS else (None,))]
ONE_UNIT = [(name, "deg" if name in ANGLE_FORMATS else None) for name in ROTATION_SIZE]
RZ90 = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
AXES = {
    "x": lambda a: np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]),
    "y": lambda a: np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]),
    "z": lambda a: np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]),
}
quaternions = st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1)


def matrices(count: int, seed: int = 0) -> np.ndarray:
    return Rotation.random(count, rng=np.random.default_rng(seed)).as_matrix()


@pytest.mark.parametrize(
    ("format", "identity", "quarter_turn"),
    [
        ("rot6d_columns", [1, 0, 0, 0, 1, 0], [0, 1, 0, -1, 0, 0]),
        ("rot6d_interleaved", [1, 0, 0, 1, 0, 0], [0, -1, 1, 0, 0, 0]),
        ("quaternion_xyzw", [0, 0, 0, 1], [0, 0, np.sqrt(0.5), np.sqrt(0.5)]),
        ("quaternion_wxyz", [1, 0, 0, 0], [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]),
        ("matrix", [1, 0, 0, 0, 1, 0, 0, 0, 1], [0, -1, 0, 1, 0, 0, 0, 0, 1]),
    ],
)
def test_published_vectors(format: str, identity: list[float], quarter_turn: list[float]) -> None:
    assert from_matrix(np.eye(3), format) == pytest.approx(identity)
    assert from_matrix(RZ90, format) == pytest.approx(quarter_turn)
    assert to_matrix(np.array(quarter_turn, float), format) == pytest.approx(RZ90)


@pytest.mark.parametrize("format", ANGLE_FORMATS)
def test_angles_have_units(format: str) -> None:
    matrix = matrices(5)
    assert from_matrix(matrix, format, "deg") == pytest.approx(np.degrees(from_matrix(matrix, format, "rad")))
    assert to_matrix(np.array([0.3, 0.2, 0.1]), format, "rad") == pytest.approx(
        to_matrix(np.degrees([0.3, 0.2, 0.1]), format, "deg")
    )
    with pytest.raises(XvlaError, match="needs a unit"):
        to_matrix(np.zeros(3), format)


@pytest.mark.parametrize("format", EULER_FORMATS)
def test_euler_angles_turn_in_the_order_and_about_the_axes_of_their_name(format: str) -> None:
    _, order, sense = format.split("_")
    angles = np.array([0.3, -0.5, 1.1])
    first, second, third = (AXES[axis](angle) for axis, angle in zip(order, angles, strict=True))
    # About axes that stay, a later turn is multiplied from the left; about axes that turn along, from the right.
    expected = third @ second @ first if sense == "extrinsic" else first @ second @ third
    assert to_matrix(angles, format, "rad") == pytest.approx(expected)


def test_roll_pitch_yaw_is_intrinsic_zyx_backwards() -> None:
    matrix = matrices(50)
    assert from_matrix(matrix, "euler_zyx_intrinsic", "rad")[:, ::-1] == pytest.approx(
        from_matrix(matrix, "euler_xyz_extrinsic", "rad")
    )


def in_every_format(matrix: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] after a way through each format, [F, 3, 3]."""
    return np.stack([to_matrix(from_matrix(matrix, name, unit), name, unit) for name, unit in ONE_UNIT])


def assert_every_pair_keeps(matrix: np.ndarray) -> None:
    """Read from each format and written to each other, it is still the same rotation."""
    read = in_every_format(matrix)
    for name, unit in ONE_UNIT:
        again = to_matrix(from_matrix(read, name, unit), name, unit)
        worst = int(geodesic_deg(again, matrix).argmax())
        assert geodesic_deg(again[worst], matrix) < 1e-4, (ONE_UNIT[worst], name)


@settings(max_examples=30, deadline=None)
@given(quaternion=quaternions)
def test_every_format_to_every_other_holds_every_rotation(quaternion: list[float]) -> None:
    assert_every_pair_keeps(to_matrix(np.array(quaternion), "quaternion_xyzw"))


@settings(max_examples=30, deadline=None)
@given(
    format=st.sampled_from(EULER_FORMATS),
    first=st.floats(-180, 180),
    third=st.floats(-180, 180),
    side=st.booleans(),
    off=st.sampled_from([0.0, 1e-9, 1e-6, 1e-3]),
)
def test_rotations_in_gimbal_lock_come_back(format: str, first: float, third: float, side: bool, off: float) -> None:
    order = format.split("_")[1]
    locked = (90.0 if side else -90.0) if len(set(order)) == 3 else (180.0 if side else 0.0)
    assert_every_pair_keeps(to_matrix(np.array([first, locked + off, third]), format, "deg"))


@settings(max_examples=30, deadline=None)
@given(a=quaternions, b=quaternions)
def test_composition_survives_every_format(a: list[float], b: list[float]) -> None:
    first, second = to_matrix(np.array([a, b]), "quaternion_xyzw")
    assert geodesic_deg(in_every_format(first) @ in_every_format(second), first @ second).max() < 1e-3


def test_the_two_6d_layouts_are_not_interchangeable() -> None:
    matrix = matrices(20)
    crossed = to_matrix(from_matrix(matrix, "rot6d_columns"), "rot6d_interleaved")
    assert geodesic_deg(crossed, matrix).max() > 30


def test_six_numbers_are_orthonormalised_and_scale_free() -> None:
    noisy = from_matrix(matrices(50), "rot6d_columns") * 3 + np.random.default_rng(0).normal(0, 0.1, (50, 6))
    read = to_matrix(noisy, "rot6d_columns")
    assert read @ np.swapaxes(read, -1, -2) == pytest.approx(np.broadcast_to(np.eye(3), read.shape), abs=1e-12)
    assert np.linalg.det(read) == pytest.approx(np.ones(50))


def test_leading_dims_are_kept() -> None:
    many = matrices(24).reshape(2, 3, 4, 3, 3)
    for name, unit in FORMATS:
        values = from_matrix(many, name, unit)
        assert values.shape == (2, 3, 4, ROTATION_SIZE[name])
        assert to_matrix(values, name, unit).shape == many.shape
        assert to_matrix(values[:0], name, unit).shape == (0, 3, 4, 3, 3)


@pytest.mark.parametrize(
    ("format", "values"),
    [
        ("quaternion_xyzw", [0, 0, 0, 0]),
        ("quaternion_wxyz", [0, np.nan, 0, 1]),
        ("rot6d_columns", [0] * 6),
        ("rot6d_columns", [1, 0, 0, 2, 0, 0]),
        ("rot6d_interleaved", [1, 1, 0, 0, 0, 0]),
        ("matrix", [1, 0, 0, 0, 1, 0, 0, 0, -1]),
        ("matrix", [2, 0, 0, 0, 2, 0, 0, 0, 2]),
    ],
)
def test_numbers_that_are_no_rotation_are_refused(format: str, values: list[float]) -> None:
    with pytest.raises(XvlaError, match="not a rotation"):
        to_matrix(np.array([values], float), format)
    assert to_matrix(np.array([values], float), format, strict=False)[0] == pytest.approx(np.eye(3))


def test_wrong_size_and_unknown_format_are_refused() -> None:
    with pytest.raises(XvlaError, match="has 4 numbers"):
        to_matrix(np.zeros((2, 3)), "quaternion_xyzw")
    with pytest.raises(XvlaError, match="unknown rotation format"):
        to_matrix(np.zeros((2, 3)), "euler")


def between(ends: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The path from the first to the second of two rotations [2, 3, 3], at `shares` of the way."""
    first = np.zeros(len(shares), dtype=int)
    return interpolate(ends, first, first + 1, shares)


def test_an_arc_is_turned_at_constant_speed_between_its_ends() -> None:
    start = matrices(1)[0]
    ends = np.stack([start, start @ Rotation.from_rotvec([0, 0, 2.0]).as_matrix()])
    path = between(ends, np.linspace(0, 1, 11))
    assert geodesic_deg(path[:-1], path[1:]) == pytest.approx(np.full(10, np.degrees(0.2)))
    assert path[[0, -1]] == pytest.approx(ends)


def test_numbers_interpolated_one_by_one_are_another_path() -> None:
    """A turn of 150° at constant speed: six numbers or angles mixed linearly lag behind and then overtake it."""
    ends = Rotation.from_rotvec([[0, 0, 0], [0, np.radians(150), 0]]).as_matrix() @ matrices(1)
    shares = np.linspace(0, 1, 31)
    path = between(ends, shares)
    for format in ("rot6d_columns", "rot6d_interleaved", "euler_xyz_extrinsic"):
        unit = "rad" if format in ANGLE_FORMATS else None
        numbers = from_matrix(ends, format, unit)
        mixed = to_matrix(numbers[0] + shares[:, None] * (numbers[1] - numbers[0]), format, unit)
        assert geodesic_deg(mixed[[0, -1]], path[[0, -1]]).max() < 1e-4
        assert geodesic_deg(mixed, path).max() > 5, format


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, np.pi - 1e-6, np.pi])
def test_geodesic_is_accurate_near_both_ends(angle: float) -> None:
    turned = matrices(1)[0] @ Rotation.from_rotvec([angle, 0, 0]).as_matrix()
    assert geodesic_deg(matrices(1)[0], turned) == pytest.approx(np.degrees(angle), abs=1e-6)
