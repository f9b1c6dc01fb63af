"""One robot with every convention at once: registered, adapted, moved away from its plugin, and driven."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from adapt_helpers import command, write_place
from conftest import ROBOT
from data_helpers import FRONT, SIDE, WRIST
from test_joint_poses import NAMES, motion, urdf

from xvla_platform.data.images import oriented
from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.lerobot_video import VideoSettings
from xvla_platform.data.lerobot_writer import CameraColumn, LeRobotWriter, VectorColumn
from xvla_platform.data.samples import training_episodes
from xvla_platform.errors import XvlaError
from xvla_platform.evaluation.report import example_difference
from xvla_platform.platform.bases import resolve_base
from xvla_platform.policy.example import load_example
from xvla_platform.policy.policy import Observation, Policy, load_policy
from xvla_platform.specs.embodiment import CameraSpec, EmbodimentSpec

pytest.importorskip("mujoco")
LENGTHS = (12, 9, 15, 10)
COMMAND = "lift the cube 0"
RED, BLUE = (220, 30, 30), (30, 30, 220)


def picture(left: tuple[int, int, int] = RED, right: tuple[int, int, int] = BLUE) -> np.ndarray:
    """Two halves; the upper edge is white."""
    out = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    out[:, : SIDE // 2], out[:, SIDE // 2 :], out[: SIDE // 4] = left, right, 255
    return out


def declaration() -> dict[str, Any]:
    """Joints in degrees over a base of poses, commands from the first frame on, a flipped and a BGR camera."""
    arm = {"name": "arm", "kind": "joint", "size": 6, "unit": "deg"}
    grip = {"name": "gripper", "kind": "gripper", "size": 1, "unit": "percent", "open": 100, "closed": 0}
    pad = {"name": "pad", "kind": "ignored", "size": 1}
    robot = {key: value for key, value in ROBOT.items() if key not in ("cameras", "proprio", "action", "dataset")}
    view = {"resolution": [SIDE, SIDE]}
    return robot | {
        "cameras": [
            {"name": "front", "role": "main", "mount": "fixed", "key": FRONT, "flip": "both", **view},
            {"name": "wrist", "role": "auxiliary", "mount": "wrist", "key": WRIST, "channels": "bgr", **view},
        ],
        "proprio": {"key": "observation.state", "fields": [arm, {**grip, "threshold": 50}, pad]},
        "action": {
            "key": "action",
            "timing": "reached",
            "fields": [
                {**pad, "value": 3.0},
                {**arm, "reference": "relative_to_first"},
                {**grip, "threshold": 50, "reference": "absolute"},
            ],
        },
        "dataset": {"path": "demonstrations", "instruction": COMMAND, "tail_margin": 2, "skip_idle": {}},
        "kinematics": [{"file": "robot/arm.urdf", "joints": NAMES, "tip": "tip"}],
        "frame_changes": [{"base": {"position_m": [0.0, 0.1, 0.0]}, "tool": {"position_m": [0.0, 0.0, 0.1]}}],
    }


def vectors(episode: int) -> dict[str, np.ndarray]:
    length = LENGTHS[episode]
    path = np.degrees(motion(length, episode))
    grip = 100.0 * (np.arange(length)[:, None] < length // 2)
    pad = np.zeros((length, 1))
    return {
        "observation.state": np.concatenate([path, grip, pad], axis=1),
        "action": np.concatenate([pad, path - path[:1], grip], axis=1),
    }


def write_demonstrations(root: Path) -> None:
    names = tuple(f"n{i}" for i in range(8))
    with LeRobotWriter(
        root,
        fps=10,
        vectors=[VectorColumn("observation.state", names), VectorColumn("action", names)],
        cameras=[CameraColumn(FRONT, SIDE, SIDE), CameraColumn(WRIST, SIDE, SIDE)],
        video=VideoSettings(gop=4, preset="ultrafast"),
    ) as writer:
        for episode, length in enumerate(LENGTHS):
            views = {key: np.repeat(picture()[None], length, axis=0) for key in (FRONT, WRIST)}
            writer.add_episode("placeholder", vectors(episode), views)
    forget_commands(root)


def forget_commands(root: Path) -> None:
    """The dataset as one that records no command: its only task is the empty sentence."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in (root / "meta" / "tasks.parquet", *(root / "meta" / "episodes").rglob("*.parquet")):
        table = pq.read_table(file)
        for place, name in enumerate(table.column_names):
            values = table.column(name).to_pylist()
            if "placeholder" in json.dumps(values, default=str):
                empty = [[""] if isinstance(value, list) else "" for value in values]
                table = table.set_column(
                    place, table.schema.field(name), pa.array(empty, table.schema.field(name).type)
                )
        pq.write_table(table, file)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_place(tmp_path_factory.mktemp("conventions") / "place", robot=declaration())
    plugin = root / "plugins" / "my_arm"
    (plugin / "robot").mkdir()
    (plugin / "robot" / "arm.urdf").write_text(urdf())
    shutil.rmtree(plugin / "demonstrations")
    write_demonstrations(plugin / "demonstrations")
    # One still picture serves both cameras, which the checks notice.
    accept = ("--accept", "XV303", "--accept", "XV304")
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", *accept, cwd=root) == 0
    words = ("adapt", "--embodiment", "my_arm", "--then", "none", "--steps", "2", "--batch-size", "4")
    assert command(*words, cwd=root) == 0
    shutil.move(plugin, root / "elsewhere")  # from here on only what was registered is there
    shutil.rmtree(root / "embodiments")
    return root


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    return place / "registry" / "my_arm" / "v1"


@pytest.fixture
def policy(place: Path, folder: Path) -> Policy:
    return load_policy(folder, base=resolve_base(str(place / "base")))


@pytest.fixture
def observation() -> Observation:
    state = vectors(0)["observation.state"][3]
    return Observation(images={"front": picture(), "wrist": picture()}, state=state, instruction=COMMAND)


def test_the_artifact_needs_nothing_of_the_plugin(folder: Path, policy: Policy, observation: Observation) -> None:
    assert (folder / "kinematics_left.xml").is_file()
    assert yaml.safe_load((folder / "embodiment.yaml").read_text())["spec"]["kinematics"][0]["file"] == (
        "kinematics_left.xml"
    )
    assert example_difference(folder, policy)[0] == 0.0
    units = json.loads((folder / "metrics.json").read_text())["units"]
    assert units == {"arm_position": "mm", "arm_rotation": "deg", "gripper": "share of stroke"}


def test_a_chunk_is_in_joints_counted_from_the_first_frame(policy: Policy, observation: Observation) -> None:
    with pytest.raises(XvlaError, match=r"action\.arm: is relative to the episode's first frame.*reset"):
        policy.act(observation)
    first = vectors(0)["observation.state"][0]
    given = policy.act(observation, first_state=first)
    assert given.fields["arm"].shape == (10, 6)
    assert given.columns.shape == (10, 8)
    assert (given.columns[:, 0] == 3.0).all()
    assert set(np.unique(given.columns[:, 7])) <= {0.0, 100.0}
    assert given.columns[:, 1:7] == pytest.approx(given.fields["arm"] - first[:6], abs=1e-9)

    policy.reset()
    policy.act(replace(observation, state=first))
    remembered = policy.act(observation)
    assert np.array_equal(remembered.columns, given.columns)
    policy.reset()
    assert not np.array_equal(policy.act(observation).columns, given.columns)


def test_the_robot_sends_frames_as_it_recorded_them(
    place: Path, folder: Path, policy: Policy, observation: Observation
) -> None:
    """A policy that declares nothing, shown frames already turned, answers the same bits."""
    first = observation.state
    answered = policy.act(observation, first_state=first).model
    cameras = tuple(c.model_copy(update={"flip": "none", "channels": "rgb"}) for c in policy.record.spec.cameras)
    spec = policy.record.spec.model_copy(update={"cameras": cameras})
    plain = Policy(policy.model, policy.processor, policy.binding, policy.record.model_copy(update={"spec": spec}))
    declared = {camera.name: camera for camera in policy.record.spec.cameras}
    turned = {name: oriented(image, declared[name]) for name, image in observation.images.items()}
    assert np.array_equal(plain.act(replace(observation, images=turned), first_state=first).model, answered)
    assert not np.array_equal(plain.act(observation, first_state=first).model, answered)
    stored = load_example(folder).observation.images  # and so it is stored: upright, red to the left
    for image in stored.values():
        assert image[len(image) // 2, 4, 0] > 180 > 80 > image[len(image) // 2, -4, 0]


def test_the_sheet_shows_what_the_model_sees(tmp_path: Path) -> None:
    from PIL import Image

    from xvla_platform.check.contact_sheet import contact_sheet

    write_demonstrations(tmp_path / "set")
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(contact_sheet(open_lerobot(tmp_path / "set"), EmbodimentSpec.model_validate(declaration())))
    pixels = np.asarray(Image.open(sheet).convert("RGB")).astype(int)
    front, wrist = pixels[16:176, :160], pixels[192:352, :160]
    assert front[40, 30, 2] > front[40, 30, 0] + 80  # turned by half a turn: blue is left, the white edge below
    assert front[155, 30].min() > 200
    assert wrist[100, 30, 2] > wrist[100, 30, 0] + 80  # colours the other way round: what was red is blue


def test_statistics_are_of_the_training_episodes(place: Path, folder: Path) -> None:
    statistics = json.loads((folder / "stats.json").read_text())
    train = training_episodes(len(LENGTHS), 0.2)
    assert statistics["episodes"] == len(train) == 2
    states = np.concatenate([vectors(episode)["observation.state"][:, :6] for episode in train])
    assert statistics["proprio"]["arm"]["mean"] == pytest.approx(states.mean(axis=0), rel=1e-4)
    assert set(statistics["canonical"]["action"]) == {"arm_position", "gripper"}
    assert "pad" not in statistics["action"]


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical", "both"])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_a_frame_is_turned_as_declared_and_back(flip: Any, channels: Any) -> None:
    camera = CameraSpec(
        name="c", role="main", mount="fixed", resolution=(SIDE, SIDE), key="k", flip=flip, channels=channels
    )
    image = np.random.default_rng(0).integers(0, 255, (2, 5, 7, 3), dtype=np.uint8)
    turned = oriented(image, camera)
    row, column = (-1 if flip in ("vertical", "both") else 0), (-1 if flip in ("horizontal", "both") else 0)
    assert turned[:, 0, 0].tolist() == image[:, row, column, :: -1 if channels == "bgr" else 1].tolist()
    assert np.array_equal(oriented(turned, camera), image)
    assert np.array_equal(oriented(image[0], camera), turned[0])


def test_a_declared_command_meets_one_that_is_recorded(place: Path) -> None:
    write_own = place / "own"
    names = tuple(f"n{i}" for i in range(8))
    shutil.copytree(place / "elsewhere", write_own)
    shutil.rmtree(write_own / "demonstrations")
    with LeRobotWriter(
        write_own / "demonstrations",
        fps=10,
        vectors=[VectorColumn("observation.state", names), VectorColumn("action", names)],
        cameras=[],
        video=VideoSettings(),
    ) as writer:
        writer.add_episode("open the drawer", vectors(0), {})
    from xvla_platform.platform.embodiments import open_data

    with pytest.raises(XvlaError, match=r"dataset\.instruction: the dataset has instructions of its own; found 'open"):
        open_data(EmbodimentSpec.model_validate(declaration()), write_own)
