"""What names say: of single numbers, of whole columns, of GR00T's slices; and columns cut by their numbers alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from formats import FORMATS, Format
from hypothesis import given, settings
from hypothesis import strategies as st
from lerobot_v2_writer import write_groot
from scipy.spatial.transform import Rotation

from xvla_platform.errors import XvlaError
from xvla_platform.platform.plugins import build_manager, contributions
from xvla_platform.scaffold.infer import infer
from xvla_platform.scaffold.names import Segment, read_names
from xvla_platform.scaffold.partition import partition
from xvla_platform.scaffold.sources import Source, open_source

ALOHA = [
    f"{side}_{joint}"
    for side in ("left", "right")
    for joint in ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
]
SO101 = [
    f"{name}.pos" for name in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
]


def short(segments: list[Segment] | None) -> str | None:
    """`position3 rotation4:quaternion_xyzw gripper1`, with the arm in front where one is named."""
    if segments is None:
        return None
    parts = []
    for part in segments:
        form = part.facts.get("format")
        arm = f"{part.arm}." if part.arm else ""
        parts.append(f"{arm}{part.kind}{part.size}{':' + form.value if form else ''}")
    return " ".join(parts)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("x y z roll pitch yaw gripper", "position3 rotation3:euler_xyz_extrinsic gripper1"),
        ("x y z yaw pitch roll gripper", "position3 rotation3:euler_zyx_intrinsic gripper1"),
        ("x y z qx qy qz qw gripper", "position3 rotation4:quaternion_xyzw gripper1"),
        ("x y z qw qx qy qz gripper", "position3 rotation4:quaternion_wxyz gripper1"),
        ("x y z rx ry rz gripper", "position3 rotation3:axis_angle gripper1"),
        ("x y z roll pitch yaw pad gripper", "position3 rotation3:euler_xyz_extrinsic ignored1 gripper1"),
        ("ee.x ee.y ee.z ee.wx ee.wy ee.wz ee.gripper_pos", "position3 rotation3:axis_angle gripper1"),
        ("pos_x pos_y pos_z rot6d_0 rot6d_1 rot6d_2 rot6d_3 rot6d_4 rot6d_5 grip", "position3 rotation6 gripper1"),
        ("joint_0 joint_1 joint_2 joint_3 joint_4 joint_5 joint_6 gripper", "joint7 gripper1"),
        ("panda_joint1 panda_joint2 panda_finger_joint1 panda_finger_joint2", "joint2 gripper1 ignored1"),
        ("j1.pos j1.vel j2.pos j2.vel", "joint1 ignored1 joint1 ignored1"),
        ("a b c d e f g", None),
        ("motor_0 motor_1 motor_2", None),
        ("x y", None),
        ("y x z gripper", "None3 gripper1"),
    ],
)
def test_names_of_numbers(names: str, expected: str | None) -> None:
    listed = names.split()
    assert short(read_names("observation.state", len(listed), listed)) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (SO101, "joint5 gripper1"),
        ({"motors": SO101}, "joint5 gripper1"),
        ([SO101], "joint5 gripper1"),
        ({"motors": ALOHA}, "left.joint6 left.gripper1 right.joint6 right.gripper1"),
        (SO101[:-1], None),
        ([1, 2, 3, 4, 5, 6], None),
        ("shoulder", None),
        (None, None),
    ],
)
def test_forms_in_which_names_are_kept(names: Any, expected: str | None) -> None:
    width = 14 if expected and "left" in expected else 6
    assert short(read_names("action", width, names)) == expected


@pytest.mark.parametrize(
    ("key", "width", "expected"),
    [
        ("obs/robot0_eef_pos", 3, "position3"),
        ("obs/robot0_eef_quat", 4, "rotation4:quaternion_xyzw"),
        ("obs/robot0_gripper_qpos", 2, "gripper1 ignored1"),
        ("obs/robot0_joint_pos", 7, "joint7"),
        ("obs/robot0_joint_pos_cos", 7, "ignored7"),
        ("obs/ee_ori", 3, "rotation3:axis_angle"),
        ("obs/ee_states", 6, "position3 rotation3:axis_angle"),
        ("obs/gripper_states", 2, "gripper1 ignored1"),
        ("obs/joint_states", 7, "joint7"),
        ("observations/qpos", 14, "left.joint6 left.gripper1 right.joint6 right.gripper1"),
        ("observations/qvel", 14, "ignored14"),
        ("steps/observation/EEF_state", 6, "position3 rotation3"),
        ("observation.state.cartesian_position", 6, "position3 rotation3:euler_xyz_extrinsic"),
        ("observation.state.gripper_position", 1, "gripper1"),
        ("action.joint_position", 7, "joint7"),
        ("observation.left_ee_pose", 7, "left.position3 left.rotation4"),
        ("observation.state", 7, None),
        ("action", 7, None),
    ],
)
def test_names_of_columns(key: str, width: int, expected: str | None) -> None:
    assert short(read_names(key, width)) == expected


@settings(max_examples=120, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=20), st.text(max_size=30))
def test_any_names_give_a_partition(names: list[str], key: str) -> None:
    for segments in (read_names(key, len(names), names), read_names(key, len(names))):
        if segments is not None:
            assert [part.start for part in segments] == list(np.cumsum([0, *(part.size for part in segments)])[:-1])
            assert segments[-1].stop == len(names)


# Numbers alone.


def motion(rng: np.random.Generator, length: int) -> tuple[np.ndarray, Rotation, np.ndarray]:
    """A smooth reach: position in metres, orientation, gripper."""
    time = np.linspace(0, 1, length)[:, None]
    ends = rng.uniform([0.3, -0.3, 0.1], [0.6, 0.3, 0.5], (2, 3))
    position = ends[0] + time * (ends[1] - ends[0])
    turns = Rotation.from_rotvec(rng.normal(0, 0.4, 3) * time) * Rotation.from_euler("x", 170, degrees=True)
    return position, turns, np.where(time > 0.6, 0.0, 1.0)


def columns_of(part: tuple[np.ndarray, Rotation, np.ndarray], layout: str) -> np.ndarray:
    position, turns, jaw = part
    matrices = turns.as_matrix()
    forms = {
        "q": turns.as_quat(),
        "w": turns.as_quat(scalar_first=True),
        "s": np.concatenate([matrices[:, :, 0], matrices[:, :, 1]], axis=1),
        "i": matrices[:, :, :2].reshape(-1, 6),
        "m": matrices.reshape(-1, 9),
        "p": position,
        "g": jaw,
        "f": np.concatenate([jaw * 0.04, -jaw * 0.04], axis=1),
    }
    return np.concatenate([forms[letter] for letter in layout], axis=1)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("pqg", "position3 rotation4 gripper1"),
        ("pwg", "position3 rotation4 gripper1"),
        ("psg", "position3 rotation6 gripper1"),
        ("pig", "position3 rotation6 gripper1"),
        ("pmg", "position3 rotation9:matrix gripper1"),
        ("pq", "position3 rotation4"),
        ("pqf", "position3 rotation4 gripper1 ignored1"),
        ("pqgpqg", "left.position3 left.rotation4 left.gripper1 right.position3 right.rotation4 right.gripper1"),
        ("psgpsg", "left.position3 left.rotation6 left.gripper1 right.position3 right.rotation6 right.gripper1"),
    ],
)
def test_rotations_with_a_shape_betray_the_layout(layout: str, expected: str) -> None:
    rng = np.random.default_rng(1)
    episodes = [columns_of(motion(rng, 40), layout) for _ in range(20)]
    found = partition(episodes)
    assert short(found) == expected
    assert found is not None
    # Which of two arms is the left one, no number tells.
    assert all((part.confidence >= 0.9) == (part.arm is None) for part in found)


def test_noise_is_no_layout() -> None:
    rng = np.random.default_rng(2)
    assert partition([rng.normal(0, 1, (50, 7)) for _ in range(10)]) is None
    assert partition([np.full((50, 7), np.nan)]) is None
    assert partition([np.zeros((50, 7))]) is None
    assert partition([]) is None


# Whole datasets of every format.


def opened(place: Path) -> Source:
    readers = contributions(build_manager(), "register_dataset_readers")
    return open_source(str(place), None, readers.values())


@pytest.mark.parametrize("layout", FORMATS, ids=[layout.name for layout in FORMATS])
def test_every_format_gives_a_draft_of_its_own_columns(layout: Format, tmp_path: Path) -> None:
    source = opened(layout.write(tmp_path / "data"))
    assert source.format == layout.reader
    draft = infer(source, "robot").draft
    assert {camera["key"] for camera in draft["cameras"]} == set(layout.cameras)
    assert draft["cameras"][0]["key"] == layout.cameras[0]
    for vector, keys in (("proprio", layout.state), ("action", (layout.action,))):
        entries = draft[vector]["fields"]
        assert tuple(dict.fromkeys(entry.get("key") or draft[vector]["key"] for entry in entries)) == keys
        assert sum(entry["size"] for entry in entries) == 7


def modality(tmp_path: Path, **changes: Any) -> Path:
    folder = write_groot(tmp_path / "data")
    path = folder / "meta" / "modality.json"
    raw = json.loads(path.read_text())
    for vector, parts in changes.items():
        raw[vector] = parts
    path.write_text(json.dumps(raw))
    return folder


def test_groot_slices_are_read_by_their_names_and_types(tmp_path: Path) -> None:
    folder = modality(
        tmp_path,
        state={
            "end_effector_position": {"start": 0, "end": 3},
            "end_effector_rotation": {"start": 3, "end": 6, "rotation_type": "axis_angle"},
            "gripper_close": {"start": 6, "end": 7},
        },
        action={"left_arm": {"start": 0, "end": 6, "absolute": False}},
    )
    stated = opened(folder / "meta" / "modality.json").stated
    assert short(stated["observation.state"]) == "position3 rotation3:axis_angle gripper1"
    assert short(stated["action"]) == "left.joint6 ignored1"
    assert stated["action"][0].facts["reference"].value == "relative"


@pytest.mark.parametrize(
    ("state", "field"),
    [
        ({"a": {"start": 0, "end": 4}, "b": {"start": 3, "end": 7}}, "b"),
        ({"a": {"start": 0, "end": 9}}, "state.a.end"),
        ({"a": {"start": 3, "end": 3}}, "state.a"),
        ({"a": {"start": 0}}, "state.a"),
        ({"a": 3}, "state.a"),
        ([1], "state"),
    ],
)
def test_groot_slices_that_do_not_fit_are_refused(tmp_path: Path, state: Any, field: str) -> None:
    with pytest.raises(XvlaError) as caught:
        opened(modality(tmp_path, state=state))
    assert caught.value.field == field
    assert "modality.json" in str(caught.value.file)


def test_the_rules_and_the_examples_agree() -> None:
    """The robots shipped here are read by the table without a word left unknown."""
    for path in (REPOSITORY / "plugins").glob("*/demonstrations/meta/info.json"):
        for key in ("observation.state", "action"):
            feature = json.loads(path.read_text())["features"][key]
            segments = read_names(key, feature["shape"][0], feature["names"])
            assert segments is not None
            assert all(part.kind is not None for part in segments)
