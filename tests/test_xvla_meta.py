"""Meta files of the public X-VLA code, GR00T's flavour of LeRobot, and every format behind one protocol."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from data_helpers import SIDE, columns, edit_json, edit_table, images
from formats import FORMATS, Format, write_xvla_meta
from lerobot_v2_writer import LENGTHS, write_groot, write_lerobot21

from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.plugin import register_dataset_readers
from xvla_platform.data.reader import open_dataset
from xvla_platform.data.vectors import read_vectors
from xvla_platform.data.verify import check_dataset
from xvla_platform.data.xvla_meta import open_xvla_meta
from xvla_platform.errors import XvlaError

FRONT, WRIST = "observations/images/front", "observations/images/wrist"


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_every_format_holds_the_same_recording(tmp_path: Path, format: Format) -> None:
    """Numbers exactly, frames within what their codec costs, and the declaration passes the check."""
    reader = open_dataset(register_dataset_readers(), format.reader, format.write(tmp_path / "data"))
    spec = format.spec()
    check_dataset(reader, spec)
    assert [episode.length for episode in reader.episodes] == list(LENGTHS)
    again = pickle.loads(pickle.dumps(reader))
    assert again.fingerprint() == reader.fingerprint()
    for episode, length in enumerate(LENGTHS):
        found = read_vectors(reader, episode, (("proprio", spec.proprio), ("action", spec.action)))
        truth = columns(length, episode)
        assert np.array_equal(found["proprio"], truth["observation.state"].astype(np.float32))
        assert np.array_equal(found["action"], truth["action"].astype(np.float32))
        assert reader.episodes[episode].instruction.startswith("lift the cube")
        for number, key in enumerate(format.cameras):
            wanted = [length - 1, 0, 4, 4]
            apart = reader.frames(episode, key, wanted).astype(int) - images(length, episode, number)[wanted]
            assert np.abs(apart).max() <= 3
            assert np.array_equal(again.frames(episode, key, wanted), reader.frames(episode, key, wanted))
    for wrong in (lambda: reader.frames(0, "nothing", [0]), lambda: reader.columns(0, ["nothing"])):
        with pytest.raises(XvlaError, match="nothing"):
            wrong()
    with pytest.raises(XvlaError, match="no such frame"):
        reader.frames(0, format.cameras[0], [LENGTHS[0]])
    with pytest.raises(XvlaError, match="no such episode"):
        reader.columns(3, [format.action])


@pytest.mark.parametrize("absolute", [False, True])
def test_rate_times_and_paths(tmp_path: Path, absolute: bool) -> None:
    file = write_xvla_meta(tmp_path / "set", absolute=absolute, freq=20)
    reader = open_xvla_meta(file)
    assert (reader.info.fps, reader.info.robot_type) == (20, "tester")
    assert reader.timestamps(0) == pytest.approx(np.arange(12) / 20)
    assert reader.info.features[FRONT].image_size == (SIDE, SIDE)
    for episode, length in enumerate(LENGTHS):
        with h5py.File(tmp_path / "set" / f"episode_{episode}.hdf5", "a") as content:
            content["left"], content["right"] = 100 + np.arange(length) * 0.05, 100 + np.arange(length) * 0.05 + 0.01
    edit_json(file, freq=None, left_time_key="left", right_time_key="right")
    reader = open_xvla_meta(file)
    assert reader.info.fps is None
    assert reader.timestamps(2) == pytest.approx(np.arange(15) * 0.05)


def test_a_meta_file_of_a_lerobot_dataset(tmp_path: Path) -> None:
    folder = write_lerobot21(tmp_path / "set")
    reader = open_xvla_meta(folder / "meta" / "info.json")
    assert reader.episodes == open_lerobot(folder).episodes
    elsewhere = tmp_path / "metas" / "set.json"
    elsewhere.parent.mkdir()
    elsewhere.write_text(json.dumps({"codebase_version": "v2.1", "root_path": str(folder)}))
    assert open_xvla_meta(elsewhere).info == reader.info
    elsewhere.write_text(json.dumps({"codebase_version": "v2.1", "root_path": "gone"}))
    with pytest.raises(XvlaError, match="dataset folder not found"):
        open_xvla_meta(elsewhere)


def drop(key: str) -> Callable[[Path], None]:
    def plant(file: Path) -> None:
        with h5py.File(file.parent / "episode_1.hdf5", "a") as content:
            del content[key]

    return plant


def meta(**changes: Any) -> Callable[[Path], None]:
    return lambda file: edit_json(file, **changes)


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (lambda file: file.write_text("{"), r"meta\.json: dataset metadata is damaged"),
        (lambda file: file.write_text("[]"), r"meta\.json: dataset metadata is damaged: expected a mapping"),
        (meta(datalist=[]), "lists no episode"),
        (meta(datalist="all"), "lists no episode"),
        (meta(datalist=[{"top_path": "x"}]), r"datalist\[0\]: is not the path of an HDF5 file"),
        (meta(datalist=["../other.hdf5"]), "must stay below the meta file"),
        (meta(datalist=["gone.hdf5"]), r"datalist\[0\]: episode's file is missing"),
        (meta(datalist=["/etc/passwd"]), "is not the path of an HDF5 file"),
        (meta(observation_key=None), "observation_key: must be a list of names"),
        (meta(observation_key=["observations/state"]), "is not a camera of the episodes"),
        (meta(observation_key=["gone"]), r"episode_0\.hdf5: gone: has no such key"),
        (meta(language_instruction_key="gone"), r"episode_0\.hdf5: gone: has no such key"),
        (meta(language_instruction_key="action"), "action: is not text"),
        (meta(freq="fast"), "freq: frame rate must be positive"),
        (meta(left_time_key="gone"), "is not a column of the episodes"),
        (drop(FRONT), r"episode_1\.hdf5: .*has no such key"),
        (drop("language_instruction"), r"episode_1\.hdf5: language_instruction: has no such key"),
        (lambda file: (file.parent / "episode_1.hdf5").write_bytes(b"no"), r"episode_1\.hdf5: .*damaged"),
    ],
)
def test_faults_are_one_error(tmp_path: Path, plant: Callable[[Path], None], message: str) -> None:
    file = write_xvla_meta(tmp_path / "set")
    plant(file)
    with pytest.raises(XvlaError, match=message):
        open_xvla_meta(file)


def test_groot_language_is_its_annotation(tmp_path: Path) -> None:
    """With or without tasks in the episodes table; GR00T's table also lists the word `valid`."""
    folder = write_groot(tmp_path / "set", annotated_only=True)
    said = [f"lift the cube {i}" for i in range(3)]
    assert [episode.instruction for episode in open_lerobot(folder).episodes] == said
    table = folder / "meta" / "episodes.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    for row, text in zip(rows, said, strict=True):
        row["tasks"] = [text, "valid"]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [episode.instruction for episode in open_lerobot(folder).episodes] == said


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (np.full(9, 77), "a task that `meta/tasks.jsonl` does not list"),
        (np.repeat([1, 2], [4, 5]), "changes its task half way"),
    ],
)
def test_annotations_that_say_too_little_or_too_much(tmp_path: Path, indices: np.ndarray, message: str) -> None:
    folder = write_groot(tmp_path / "set", annotated_only=True)
    name = "annotation.human.task_description"

    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, pa.array(indices))

    edit_table(folder / "data" / "chunk-000" / "episode_000001.parquet", change)
    with pytest.raises(XvlaError, match=message):
        open_lerobot(folder)
    (folder / "meta" / "tasks.jsonl").unlink()
    with pytest.raises(XvlaError, match=r"tasks\.jsonl: tasks table is missing"):
        open_lerobot(folder)
