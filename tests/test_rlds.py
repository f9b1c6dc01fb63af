"""RLDS without TensorFlow: a folder that TFDS itself wrote, our own of every variety, and damage of every kind."""

import json
import os
import pickle
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from data_helpers import SIDE, columns, images
from formats import write_rlds
from hypothesis import given, settings
from hypothesis import strategies as st
from lerobot_v2_writer import LENGTHS
from rlds_writer import example, example_class, frame, masked_crc, tensor, text, write_tfds, write_tfrecord

from xvla_platform.data.plugin import register_dataset_readers
from xvla_platform.data.reader import open_dataset
from xvla_platform.data.rlds import open_rlds
from xvla_platform.data.tf_example import bytes_spans, find_features, numbers
from xvla_platform.data.tfrecord import Window, opened, record_spans
from xvla_platform.errors import XvlaError

OFFICIAL = REPOSITORY / "tests" / "data" / "rlds_tfds"  # written by tensorflow-datasets 4.9 with TensorFlow
FRONT, WRIST = "steps/observation/image", "steps/observation/wrist_image"
STATE, ACTION = "steps/observation/state", "steps/action"


def test_a_folder_that_tfds_wrote() -> None:
    """Episode e of the generator has 3 + e steps; TFDS shuffled them, so the instruction says which is which."""
    reader = open_rlds(OFFICIAL)
    assert reader.info.fps is None
    assert reader.info.frames == sum(3 + e for e in range(5))
    assert sorted(episode.instruction for episode in reader.episodes) == [f"lift the cube {e}" for e in range(5)]
    for episode in reader.episodes:
        e, length = int(episode.instruction[-1]), episode.length
        i = np.arange(length, dtype=np.float64)
        assert length == 3 + e
        truth = {
            "steps/observation/state": np.stack([i, i * 0 + e, i + e / 8], axis=1),
            "steps/observation/pose": np.arange(4) + i[:, None],
            "steps/observation/packed": np.arange(5) * i[:, None],
            "steps/observation/raw": np.arange(5) * i[:, None],
            "steps/observation/count": np.stack([-i, i * 0 + 2**20 + e], axis=1),
            "steps/observation/small": np.stack([i, i * 0 + 255], axis=1),
            "steps/observation/label": (i % 2)[:, None],
            "steps/action/world_vector": np.stack([i, i * 0 - e, i * 0 + 0.5], axis=1),
            "steps/action/open": (i % 2)[:, None],
            "steps/is_first": (i == 0)[:, None],
            "steps/reward": (i == length - 1)[:, None],
        }
        for key, values in reader.columns(episode.index, list(truth)).items():
            assert np.array_equal(values, truth[key]), key
        for key, size in (("image", (16, 24)), ("jpeg", (16, 24)), ("any_size", (8, 10))):
            frames = reader.frames(episode.index, f"steps/observation/{key}", range(length))
            assert reader.info.features[f"steps/observation/{key}"].image_size == size
            assert frames.shape == (length, *size, 3)
            assert np.array_equal(frames[:, 3, 4, 1], (20 * i + 3 * e) % 256)
    assert not {"steps/observation/depth", "steps/observation/ragged"} & set(reader.info.features)


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
@pytest.mark.parametrize(("shards", "instruction"), [(1, "steps"), (3, "observation")])
def test_motion_and_frames(tmp_path: Path, encoding: Any, shards: int, instruction: Any) -> None:
    reader = open_rlds(write_rlds(tmp_path / "set", encoding=encoding, shards=shards, instruction=instruction))
    assert [(e.length, e.instruction) for e in reader.episodes] == [
        (length, f"lift the cube {i}") for i, length in enumerate(LENGTHS)
    ]
    for episode, length in enumerate(LENGTHS):
        found, truth = reader.columns(episode, [STATE, ACTION]), columns(length, episode)
        assert np.array_equal(found[STATE], truth["observation.state"].astype(np.float32))
        assert np.array_equal(found[ACTION], truth["action"].astype(np.float32))
        assert np.isnan(reader.timestamps(episode)).all()
        for number, key in enumerate((FRONT, WRIST)):
            wanted = [length - 1, 0, 4, 4]
            apart = reader.frames(episode, key, wanted).astype(int) - images(length, episode, number)[wanted]
            assert np.abs(apart).max() <= 1
    assert reader.frames(0, FRONT, []).shape == (0, SIDE, SIDE, 3)


def test_a_reader_survives_pickling_and_the_format_is_found_by_name(tmp_path: Path) -> None:
    reader = open_dataset(register_dataset_readers(), "rlds", write_rlds(tmp_path / "set"))
    expected = reader.frames(1, WRIST, [2, 5])
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).frames(1, WRIST, [2, 5]), expected)
    assert open_rlds(Path(shutil.copytree(tmp_path / "set", tmp_path / "copy"))).fingerprint() == reader.fingerprint()


def test_one_frame_reads_its_own_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [60]
    reader = open_rlds(write_rlds(tmp_path / "set", lengths, shards=1))
    reader.frames(0, FRONT, [3])
    read, whole = [0], os.pread

    def counting(descriptor: int, size: int, offset: int) -> bytes:
        content = whole(descriptor, size, offset)
        read[0] += len(content)
        return content

    monkeypatch.setattr(os, "pread", counting)
    reader.frames(0, FRONT, [41])
    assert 0 < read[0] <= 4096


@settings(max_examples=80, deadline=None)
@given(
    floats=st.lists(st.floats(width=32, allow_nan=False), max_size=40),
    integers=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40),
    texts=st.lists(st.binary(max_size=300), max_size=12),
)
def test_examples_read_back_as_written(floats: list[float], integers: list[int], texts: list[bytes]) -> None:
    """Against Google's protobuf, through a file."""
    content = example({"f": np.array(floats, np.float32), "i": np.array(integers, np.int64), "b": texts})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records"
        write_tfrecord(path, [b"first", content])
        span = record_spans(path)[1]
        with opened(path) as descriptor:
            record = Window(descriptor, span)
            found = find_features(record)
            assert numbers(record, found["f"]).tolist() == floats
            assert (numbers(record, found["i"]).tolist() if integers else []) == integers
            spans = bytes_spans(record, found["b"])
            assert [record.read(place.start, place.size) for place in spans] == texts


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_examples_raise_valueerror_only(data: st.DataObject) -> None:
    content = bytearray(example({"a": np.arange(9, dtype=np.float32), "b": [b"x" * 40, b"y"], "c": np.arange(300)}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(frame(bytes(content)))
        span = record_spans(Path(file.name))[0]
        with opened(Path(file.name)) as descriptor:
            record = Window(descriptor, span)
            try:
                for feature in find_features(record).values():
                    if feature.kind == "bytes":
                        for place in bytes_spans(record, feature):
                            record.read(place.start, place.size)
                    elif feature.kind:
                        numbers(record, feature)
            except ValueError:
                pass


def shard(folder: Path, number: int = 0) -> Path:
    return sorted(folder.glob("*.tfrecord-*"))[number]


def flip(offset: Callable[[bytes], int]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        content = bytearray(shard(folder).read_bytes())
        content[offset(bytes(content))] ^= 0x40
        shard(folder).write_bytes(content)

    return plant


def cut(share: float) -> Callable[[Path], None]:
    return lambda folder: shard(folder).write_bytes(
        shard(folder).read_bytes()[: int(share * shard(folder).stat().st_size)]
    )


def rewrite(**changes: Any) -> Callable[[Path], None]:
    """The first shard with one record, of which some features are changed (None: left out)."""

    def plant(folder: Path) -> None:
        path = shard(folder)
        with opened(path) as descriptor:
            span = record_spans(path)[0]
            content = os.pread(descriptor, span.size, span.start)
        message = example_class().FromString(content)
        for key, value in changes.items():
            name = key.replace("__", "/")
            del message.features.feature[name]
            if value is not None:
                message.features.feature[name].CopyFrom(
                    example_class().FromString(example({name: value})).features.feature[name]
                )
        write_tfrecord(path, [message.SerializeToString()])
        edit_info(splits=[])(folder)

    return plant


def edit_info(**changes: Any) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = folder / "dataset_info.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return plant


def outside(folder: Path) -> None:
    moved = folder.parent / "elsewhere"
    shutil.move(shard(folder), moved)
    os.symlink(moved, folder / "tester-train.tfrecord-00000-of-00002")


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "checksum of a length": (flip(lambda content: 9), "record 0 is damaged: the checksum of its length is wrong"),
    "a length": (flip(lambda content: 1), "record 0 is damaged: the checksum of its length is wrong"),
    "content": (flip(lambda content: content.index(b"IDAT") + 9), "record 0 is damaged: its checksum is wrong"),
    "truncated": (cut(0.8), "record 1 is damaged: it is cut off"),
    "truncated header": (lambda folder: shard(folder).write_bytes(b"\0" * 7), "record 0 is damaged: it is cut off"),
    "empty shard": (cut(0), "holds 0 records, dataset_info.json says 2"),
    "missing shard": (lambda folder: shard(folder, 1).unlink(), "shards are missing or mixed: 1 of 2 are there"),
    "missing features": (lambda folder: (folder / "features.json").unlink(), "dataset metadata is missing"),
    "damaged features": (lambda folder: (folder / "features.json").write_text("{"), "dataset metadata is damaged"),
    "no steps": (lambda folder: (folder / "features.json").write_text("{}"), "does not describe episodes of steps"),
    "fewer episodes than stated": (
        edit_info(splits=[{"name": "train", "shardLengths": ["3", "1"]}]),
        "holds 2 records, dataset_info.json says 3",
    ),
    "lengths that are none": (
        edit_info(splits=[{"name": "train", "shardLengths": ["many"]}]),
        "dataset metadata is damaged",
    ),
    "another container": (edit_info(fileFormat="array_record"), "shards of this kind cannot be read"),
    "not an example": (lambda folder: shard(folder).write_bytes(frame(b"\xff" * 50) * 2), "record 0 is damaged"),
    "empty records": (lambda folder: shard(folder).write_bytes(frame(b"") * 2), "it holds none of the declared"),
    "no action": (rewrite(steps__action=None), "it has no numbers there"),
    "short action": (rewrite(steps__action=np.zeros(70, np.float32)), "has 70 numbers, 12 steps of 7 are 84"),
    "short camera": (rewrite(steps__observation__image=[b""] * 11), "has 11 frames and 12 steps"),
    "no picture": (rewrite(steps__observation__image=[b"nothing"] * 12), "frame 0 of episode 0 is not a readable"),
    "no camera": (rewrite(steps__observation__image=None), "has 0 frames and 12 steps"),
    "numbers for pictures": (rewrite(steps__observation__image=np.zeros(12, np.float32)), "has 0 frames and 12"),
    "two instructions": (
        rewrite(steps__language_instruction=[b"lift"] * 6 + [b"place"] * 6),
        "changes its instruction half way",
    ),
    "a link out of the folder": (outside, "a link leads out of the dataset"),
}


def read_everything(folder: Path) -> None:
    reader = open_rlds(folder)
    for episode in reader.episodes:
        reader.columns(episode.index, [STATE, ACTION])
        for key in (FRONT, WRIST):
            reader.frames(episode.index, key, range(episode.length))


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_error_that_names_the_file(tmp_path: Path, fault: str) -> None:
    plant, message = FAULTS[fault]
    folder = write_rlds(tmp_path / "set")
    plant(folder)
    with pytest.raises(XvlaError, match=message) as caught:
        read_everything(folder)
    assert str(caught.value.file).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_a_length_of_exabytes_is_not_allocated(tmp_path: Path) -> None:
    folder = write_rlds(tmp_path / "set")
    length = struct.pack("<Q", 1 << 60)
    shard(folder).write_bytes(length + struct.pack("<I", masked_crc(length)) + b"\0" * 64)
    with pytest.raises(XvlaError, match="it is cut off"):
        open_rlds(folder)


def test_packed_tensors_that_unpack_to_too_much(tmp_path: Path) -> None:
    declared = tensor((2,), "float32")
    declared["tensor"]["encoding"] = "zlib"
    bomb = zlib.compress(b"\0" * 10_000_000)
    steps = {"packed": declared, "is_first": tensor((), "bool"), "language_instruction": text()}
    features = {
        "steps/packed": [bomb],
        "steps/is_first": np.array([True]),
        "steps/language_instruction": [b"go"],
    }
    reader = open_rlds(write_tfds(tmp_path / "set", steps, [features], shards=1))
    with pytest.raises(XvlaError, match="a step's tensor has 9 bytes, declared are 8"):
        reader.columns(0, ["steps/packed"])


def test_only_the_train_split_is_read(tmp_path: Path) -> None:
    folder = write_rlds(tmp_path / "set", shards=1)
    file = folder / "tester-train.tfrecord-00000-of-00001"
    shutil.copy(file, folder / "tester-val.tfrecord-00000-of-00001")
    assert open_rlds(folder).info.episodes == 3
    file.unlink()
    with pytest.raises(XvlaError, match="no shard of the split that is read; allowed: val"):
        open_rlds(folder)
