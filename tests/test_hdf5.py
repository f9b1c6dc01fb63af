"""HDF5 recordings in place: both layouts, exact numbers and frames, and one clear error for each way to be damaged."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from data_helpers import SIDE, columns, grey, images
from formats import encode, write_aloha, write_robomimic
from lerobot_v2_writer import LENGTHS

from xvla_platform.data.hdf5 import open_hdf5
from xvla_platform.data.plugin import register_dataset_readers
from xvla_platform.data.reader import DatasetReader, open_dataset
from xvla_platform.errors import XvlaError

FRONT, WRIST = "observations/images/front", "observations/images/wrist"


def read_everything(place: Path, state: tuple[str, ...], action: str, cameras: tuple[str, str]) -> None:
    reader = open_hdf5(place)
    for episode in reader.episodes:
        found = reader.columns(episode.index, [*state, action])
        assert all(len(column) == episode.length for column in found.values())
        for camera in cameras:
            reader.frames(episode.index, camera, range(episode.length))


def check_motion(reader: DatasetReader, state: tuple[str, ...], action: str, cameras: tuple[str, str]) -> None:
    """The recording is `data_helpers`' motion, and any frame is the one asked for."""
    assert [episode.length for episode in reader.episodes] == list(LENGTHS)
    assert reader.info.frames == sum(LENGTHS)
    for episode, length in enumerate(LENGTHS):
        found, truth = reader.columns(episode, [*state, action]), columns(length, episode)
        joined = np.concatenate([found[key] for key in state], axis=1)
        assert joined.dtype == np.float64
        assert np.array_equal(joined, truth["observation.state"].astype(np.float32))
        assert np.array_equal(found[action], truth["action"].astype(np.float32))
        for number, key in enumerate(cameras):
            assert reader.info.features[key].image_size == (SIDE, SIDE)
            wanted = [length - 1, 0, 4, 4]
            expected = images(length, episode, number)[wanted]
            assert np.abs(reader.frames(episode, key, wanted).astype(int) - expected).max() <= 1
    assert reader.frames(0, cameras[0], []).shape == (0, SIDE, SIDE, 3)


@pytest.mark.parametrize("encoding", [None, "jpeg", "png"])
def test_aloha(tmp_path: Path, encoding: Any) -> None:
    reader = open_hdf5(write_aloha(tmp_path / "set", encoding=encoding))
    check_motion(reader, ("observations/qpos",), "action", (FRONT, WRIST))
    assert reader.info.fps is None
    assert np.isnan(reader.timestamps(1)).all()
    assert [episode.instruction for episode in reader.episodes] == [f"lift the cube {i}" for i in range(3)]
    assert "compress_len" not in reader.info.features


def test_robomimic(tmp_path: Path) -> None:
    reader = open_hdf5(write_robomimic(tmp_path / "set.hdf5", hz=20))
    cameras = ("obs/agentview_rgb", "obs/eye_in_hand_rgb")
    check_motion(reader, ("obs/ee_pos", "obs/ee_ori", "obs/gripper_states"), "actions", cameras)
    assert reader.info.fps == 20
    assert reader.timestamps(0) == pytest.approx(np.arange(LENGTHS[0]) / 20)
    assert {episode.instruction for episode in reader.episodes} == {"lift the cube"}


def test_a_folder_of_robomimic_files_and_natural_order(tmp_path: Path) -> None:
    for number in (10, 2):
        write_robomimic(tmp_path / "set" / f"task_{number}.hdf5", [3] * 11, instruction=f'"task {number}"')
    reader = open_hdf5(tmp_path / "set")
    assert [episode.instruction for episode in reader.episodes] == ["task 2"] * 11 + ["task 10"] * 11
    for episode in (2, 10, 13):  # demo_2 and demo_10 are the third and the eleventh of their file
        truth = columns(3, episode % 11)["action"]
        assert reader.columns(episode, ["actions"])["actions"] == pytest.approx(truth, abs=1e-6)
    write_robomimic(tmp_path / "set" / "other.hdf5", [3], hz=5)
    with pytest.raises(XvlaError, match=r"different rates.*10 Hz, 5 Hz"):
        open_hdf5(tmp_path / "set")


def test_language_of_robocasa_and_pictures_of_variable_length(tmp_path: Path) -> None:
    file = write_robomimic(tmp_path / "set.hdf5", [5])
    with h5py.File(file, "a") as content:
        demo = content["data/demo_0"]
        demo.attrs["ep_meta"] = json.dumps({"lang": "open the drawer"})
        rows = demo.create_dataset("obs/side", (5,), dtype=h5py.vlen_dtype(np.uint8))
        for index, frame in enumerate(images(5, 3, 0)):
            rows[index] = np.frombuffer(encode(frame, "png"), dtype=np.uint8)
    reader = open_hdf5(file)
    assert reader.episodes[0].instruction == "open the drawer"
    assert np.array_equal(reader.frames(0, "obs/side", [4, 1]), images(5, 3, 0)[[4, 1]])


def test_a_reader_survives_pickling_and_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    folder = write_aloha(tmp_path / "set")
    reader = open_hdf5(folder)
    expected = reader.frames(1, WRIST, [2, 5])
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).frames(1, WRIST, [2, 5]), expected)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert open_hdf5(copy).fingerprint() == reader.fingerprint()
    with h5py.File(copy / "episode_1.hdf5", "a") as content:
        content["action"][0, 0] += 1
    assert open_hdf5(copy).fingerprint() != reader.fingerprint()


def test_the_format_is_found_by_name_for_a_file_and_a_folder(tmp_path: Path) -> None:
    factories = register_dataset_readers()
    file = write_robomimic(tmp_path / "one.hdf5")
    assert open_dataset(factories, "hdf5", file).info.episodes == 3
    assert open_dataset(factories, "hdf5", write_aloha(tmp_path / "set")).info.episodes == 3
    with pytest.raises(XvlaError, match=r"not a dataset of format lerobot\. It looks like format hdf5"):
        open_dataset(factories, "lerobot", file)
    with pytest.raises(XvlaError, match="dataset folder or file not found"):
        open_dataset(factories, "hdf5", tmp_path / "gone.hdf5")


def cut(file: Path, share: float) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def edit(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def apply(file: Path) -> None:
        with h5py.File(file, "a") as content:
            change(content)

    return apply


def replace(key: str, value: Any) -> Callable[[Path], None]:
    def change(content: h5py.File) -> None:
        del content[key]
        content[key] = value

    return edit(change)


def link_out(content: h5py.File) -> None:
    del content["action"]
    content["action"] = h5py.ExternalLink("episode_0.hdf5", "/action")


def soft_link_out(content: h5py.File) -> None:
    del content["action"]
    content["away"] = h5py.ExternalLink("episode_0.hdf5", "/")
    content["action"] = h5py.SoftLink("/away/action")


def virtual(content: h5py.File) -> None:
    del content["action"]
    layout = h5py.VirtualLayout(shape=(9, 7), dtype="f4")
    layout[:] = h5py.VirtualSource("episode_0.hdf5", "action", shape=(12, 7))[:9]
    content.create_virtual_dataset("action", layout)


def external(content: h5py.File) -> None:
    del content["action"]
    content.create_dataset("action", shape=(9, 7), dtype="f4", external=[("/etc/hostname", 0, 252)])


def huge(content: h5py.File) -> None:
    del content["observations/qpos"]
    content.create_dataset("observations/qpos", shape=(9, 1 << 40), dtype="f4", chunks=(1, 1 << 20))


def endless(content: h5py.File) -> None:
    del content["action"]
    content.create_dataset("action", shape=(1 << 50, 7), dtype="f4", chunks=(64, 7))


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (lambda file: file.write_bytes(b""), "damaged or not readable as HDF5"),
    "text": (lambda file: file.write_text("not hdf5"), "damaged or not readable as HDF5"),
    "truncated header": (lambda file: cut(file, 0.1), "damaged or not readable as HDF5"),
    "truncated": (lambda file: cut(file, 0.7), "damaged or not readable as HDF5"),
    "no action": (edit(lambda content: content.pop("action")), "holds no actions"),
    "no camera": (edit(lambda content: content.pop(WRIST)), "has no such key"),
    "no state": (edit(lambda content: content.pop("observations/qpos")), "has no such key"),
    "short state": (replace("observations/qpos", np.zeros((8, 7))), "has 8 rows, its episode has 9"),
    "short camera": (replace(WRIST, np.zeros((8, SIDE, SIDE, 3), np.uint8)), "has 8 rows, episode 1 has 9"),
    "no frame": (replace("action", np.zeros((0, 7))), "has no frame"),
    "scalar action": (replace("action", 1.0), "has no frame"),
    "text action": (replace("action", [b"a"] * 9), "not a numeric column"),
    "floats for pictures": (replace(WRIST, np.zeros((9, SIDE, SIDE, 3))), "holds no pictures"),
    "no pictures": (replace(WRIST, np.zeros((9, 50), np.uint8)), "frame 0 of episode 1 is not a readable image"),
    "numbers for language": (replace("language_instruction", 3), "is not text"),
    "external link": (edit(link_out), "a link leads to another file"),
    "soft link out": (edit(soft_link_out), "a link leads to another file"),
    "dangling link": (
        edit(lambda content: (content.pop("action"), content.__setitem__("action", h5py.SoftLink("/gone")))[0]),
        "link leads nowhere",
    ),
    "virtual": (edit(virtual), "its numbers lie in other files"),
    "external storage": (edit(external), "its numbers lie in other files"),
    "endless": (edit(endless), "too long for an episode"),
    "terabytes": (edit(huge), "too large for a column"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_error_that_names_the_file(tmp_path: Path, fault: str) -> None:
    plant, message = FAULTS[fault]
    folder = write_aloha(tmp_path / "set")
    plant(folder / "episode_1.hdf5")
    with pytest.raises(XvlaError, match=message) as caught:
        read_everything(folder, ("observations/qpos",), "action", (FRONT, WRIST))
    assert caught.value.file == str(folder / "episode_1.hdf5")
    assert "\n" not in str(caught.value)


def test_damaged_pictures_and_other_sizes(tmp_path: Path) -> None:
    folder = write_aloha(tmp_path / "set", encoding="jpeg")
    with h5py.File(folder / "episode_2.hdf5", "a") as content:
        content[FRONT][3, 200:] = 0
        row = np.frombuffer(encode(np.zeros((16, 16, 3), np.uint8), "jpeg"), np.uint8)
        content[WRIST][5, : len(row)] = row
    reader = open_hdf5(folder)
    reader.frames(2, FRONT, [2, 4])
    with pytest.raises(XvlaError, match=r"episode_2\.hdf5: .*frame 3 of episode 2 is not a readable image"):
        reader.frames(2, FRONT, [2, 3])
    with pytest.raises(XvlaError, match="frames of different sizes"):
        reader.frames(2, WRIST, [4, 5])


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("env_args", "{", "env_args: attribute is not valid JSON"),
        ("env_args", "[1]", "not a JSON mapping"),
        ("env_args", '{"env_kwargs": {"control_freq": -1}}', "frame rate must be positive"),
        ("env_args", '{"env_kwargs": {"control_freq": "fast"}}', "frame rate must be positive"),
        ("problem_info", "nonsense", "problem_info: attribute is not valid JSON"),
    ],
)
def test_json_that_lies(tmp_path: Path, attribute: str, value: str, message: str) -> None:
    file = write_robomimic(tmp_path / "set.hdf5")
    with h5py.File(file, "a") as content:
        content["data"].attrs[attribute] = value
    with pytest.raises(XvlaError, match=message):
        open_hdf5(file)


def test_groups_that_hold_themselves_and_links_out_of_the_folder(tmp_path: Path) -> None:
    folder = write_aloha(tmp_path / "set")
    with h5py.File(folder / "episode_0.hdf5", "a") as content:
        content["observations/again"] = content["observations"]
    assert grey(open_hdf5(folder).frames(0, FRONT, [1]))[0] == images(12, 0, 0)[1].mean()
    outside = write_robomimic(tmp_path / "outside.hdf5")
    os.symlink(outside, folder / "episode_3.hdf5")
    with pytest.raises(XvlaError, match="a link leads out of the dataset"):
        open_hdf5(folder)


def test_no_file_and_no_demonstration(tmp_path: Path) -> None:
    with pytest.raises(XvlaError, match="holds no HDF5 file"):
        open_hdf5(tmp_path)
    with h5py.File(tmp_path / "a.hdf5", "w") as content:
        content.create_group("data")
    with pytest.raises(XvlaError, match="holds no demonstration"):
        open_hdf5(tmp_path)
