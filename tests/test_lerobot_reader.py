"""Reading LeRobot datasets: exact frames in any order, many files, old versions, and one clear error per fault."""

import io
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from data_helpers import (
    FRONT,
    SIDE,
    WRIST,
    columns,
    edit_json,
    edit_table,
    grey,
    images,
    read_dataset,
    write_dataset,
)
from PIL import Image

from xvla_platform.data import lerobot_writer
from xvla_platform.data.lerobot import LEROBOT, open_lerobot
from xvla_platform.data.plugin import register_dataset_readers
from xvla_platform.data.reader import FeatureInfo, locate_dataset, open_dataset
from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import DatasetSpec

LENGTHS = (12, 9, 15)
NOISE = 3  # grey levels that H.264 and the change of colour space cost a flat image


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", LENGTHS)


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "set"))


def test_metadata_and_columns(pristine: Path) -> None:
    reader = open_lerobot(pristine)
    assert (reader.info.fps, reader.info.episodes, reader.info.frames) == (10.0, 3, sum(LENGTHS))
    assert [(e.index, e.length, e.instruction) for e in reader.episodes] == [
        (i, length, f"lift the cube {i}") for i, length in enumerate(LENGTHS)
    ]
    assert reader.info.features[FRONT].image_size == (SIDE, SIDE)
    for episode, length in enumerate(LENGTHS):
        found = reader.columns(episode, ["observation.state", "action", "frame_index"])
        for key, values in columns(length, episode).items():
            assert found[key].dtype == np.float64
            assert found[key] == pytest.approx(values, abs=1e-6)
        assert found["frame_index"].tolist() == [[i] for i in range(length)]
        assert reader.timestamps(episode) == pytest.approx(np.arange(length) / 10)


@pytest.mark.parametrize(("fps", "gop"), [(10, 4), (30, 12), (10, 1)])
def test_random_access_equals_sequential_frames(tmp_path: Path, fps: int, gop: int) -> None:
    reader = read_dataset(tmp_path / "set", LENGTHS, fps=fps, gop=gop)
    rng = np.random.default_rng(0)
    for camera, key in enumerate((FRONT, WRIST)):
        whole = [reader.frames(e, key, range(length)) for e, length in enumerate(LENGTHS)]
        for episode, length in enumerate(LENGTHS):
            assert whole[episode].shape == (length, SIDE, SIDE, 3)
            assert grey(whole[episode]) == pytest.approx(grey(images(length, episode, camera)), abs=NOISE)
        for _ in range(20):
            episode = int(rng.integers(3))
            wanted = rng.integers(0, LENGTHS[episode], size=4)
            assert np.array_equal(reader.frames(episode, key, wanted), whole[episode][wanted])


def test_ascending_requests_do_not_seek(pristine: Path) -> None:
    reader = open_lerobot(pristine)
    reader.frames(0, FRONT, [0])
    video = reader._videos._files.values()[0]  # type: ignore[attr-defined]
    seeks, container = [], video._container

    class Counting:
        def seek(self, *args: Any, **kwargs: Any) -> None:
            seeks.append(args)
            container.seek(*args, **kwargs)

        def decode(self, stream: Any) -> Any:
            return container.decode(stream)

    video._container = Counting()
    for episode, length in enumerate(LENGTHS):
        for frame in range(length):
            reader.frames(episode, FRONT, [frame])
    assert len(seeks) == 1  # the very first request, for the frame that was decoded before
    reader.frames(0, FRONT, [3])
    assert len(seeks) == 2


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_writer, "VIDEO_FILE_MB", -1)
    monkeypatch.setattr(lerobot_writer, "DATA_FILE_MB", 0)
    lengths = tuple(range(3, 16))
    reader = read_dataset(tmp_path / "set", lengths)
    assert len(list((tmp_path / "set").rglob("*.mp4"))) == 2 * len(lengths)
    assert len(list((tmp_path / "set" / "data").rglob("*.parquet"))) == len(lengths)
    for episode, length in enumerate(lengths):
        assert reader.columns(episode, ["action"])["action"] == pytest.approx(
            columns(length, episode)["action"], abs=1e-6
        )
        assert grey(reader.frames(episode, WRIST, [length - 1]))[0] == pytest.approx(
            images(length, episode, 1)[-1].mean(), abs=NOISE
        )
    assert len(reader._videos._files.values()) <= 8  # type: ignore[attr-defined]


def test_a_reader_survives_pickling_and_a_fork(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = open_lerobot(pristine)
    expected = reader.frames(1, FRONT, [2, 5])
    cache = reader._videos  # type: ignore[attr-defined]
    monkeypatch.setattr(cache._files, "_process", -1)
    assert np.array_equal(reader.frames(1, FRONT, [2, 5]), expected)
    reader.columns(0, ["action"])
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).frames(1, FRONT, [2, 5]), expected)


def test_fingerprint_is_of_the_content(pristine: Path, folder: Path) -> None:
    assert open_lerobot(pristine).fingerprint() == open_lerobot(folder).fingerprint()
    edit_json(folder / "meta" / "info.json", robot_type="another")
    assert open_lerobot(pristine).fingerprint() != open_lerobot(folder).fingerprint()


def test_image_columns(folder: Path) -> None:
    def with_images(table: pa.Table) -> pa.Table:
        cells = []
        for episode, length in enumerate(LENGTHS):
            for image in images(length, episode, 0):
                stream = io.BytesIO()
                Image.fromarray(image).save(stream, "PNG")
                cells.append({"bytes": stream.getvalue(), "path": None})
        cells[0] = {"bytes": None, "path": "still.png"}
        return table.append_column("observation.images.still", pa.array(cells))

    Image.fromarray(images(1, 0, 0)[0]).save(folder / "still.png")
    edit_table(folder / "data" / "chunk-000" / "file-000.parquet", with_images)
    info = json.loads((folder / "meta" / "info.json").read_text())
    info["features"]["observation.images.still"] = {"dtype": "image", "shape": [SIDE, SIDE, 3], "names": None}
    edit_json(folder / "meta" / "info.json", features=info["features"])
    reader = open_lerobot(folder)
    for episode, length in enumerate(LENGTHS):
        wanted = [length - 1, 0, 3]
        found = reader.frames(episode, "observation.images.still", wanted)
        assert np.array_equal(found, images(length, episode, 0)[wanted])
    (folder / "still.png").unlink()
    with pytest.raises(XvlaError, match="frame 0 of episode 0 is not a readable image"):
        reader.frames(0, "observation.images.still", [0])


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_version_2(pristine: Path, tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_writer, "VIDEO_FILE_MB", -1)
    monkeypatch.setattr(lerobot_writer, "DATA_FILE_MB", 0)
    old, new = tmp_path / "old", write_dataset(tmp_path / "new", LENGTHS)
    (old / "meta").mkdir(parents=True)
    (old / "data" / "chunk-000").mkdir(parents=True)
    for episode in range(3):
        source = new / "data" / "chunk-000" / f"file-{episode:03d}.parquet"
        shutil.copy(source, old / "data" / "chunk-000" / f"episode_{episode:06d}.parquet")
        for key in (FRONT, WRIST):
            (old / "videos" / "chunk-000" / key).mkdir(parents=True, exist_ok=True)
            video = new / "videos" / key / "chunk-000" / f"file-{episode:03d}.mp4"
            shutil.copy(video, old / "videos" / "chunk-000" / key / f"episode_{episode:06d}.mp4")
    shutil.copy(new / "meta" / "info.json", old / "meta" / "info.json")
    edit_json(
        old / "meta" / "info.json",
        codebase_version=version,
        data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    )
    lines = [
        json.dumps({"episode_index": i, "tasks": [f"lift the cube {i}"], "length": length})
        for i, length in enumerate(LENGTHS)
    ]
    (old / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    now, then = open_lerobot(pristine), open_lerobot(old)
    assert then.episodes == now.episodes
    for episode in range(3):
        assert np.array_equal(then.columns(episode, ["action"])["action"], now.columns(episode, ["action"])["action"])
        assert grey(then.frames(episode, FRONT, [5])) == pytest.approx(grey(now.frames(episode, FRONT, [5])), abs=NOISE)
    (old / "meta" / "episodes.jsonl").write_text(lines[0] + "\n{broken\n")
    with pytest.raises(XvlaError, match=r"episodes\.jsonl: line 2 is damaged"):
        open_lerobot(old)


def test_formats_are_found_by_name(pristine: Path, tmp_path: Path) -> None:
    factories = register_dataset_readers()
    assert open_dataset(factories, "lerobot", pristine).info.episodes == 3
    with pytest.raises(XvlaError, match="unknown dataset format; found zarr; allowed: lerobot, hdf5"):
        open_dataset(factories, "zarr", pristine)
    with pytest.raises(XvlaError, match="not a dataset of format lerobot"):
        open_dataset([LEROBOT], "lerobot", tmp_path)
    with pytest.raises(XvlaError, match="dataset folder not found"):
        open_dataset([LEROBOT], "lerobot", tmp_path / "none")


def test_datasets_are_located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demonstrations").mkdir()
    assert locate_dataset(DatasetSpec(path="demonstrations"), tmp_path) == tmp_path / "demonstrations"
    with pytest.raises(XvlaError, match="dataset folder not found"):
        locate_dataset(DatasetSpec(path="elsewhere"), tmp_path)
    calls: list[Any] = []

    def download(repo: str, **kwargs: Any) -> str:
        calls.append((repo, kwargs))
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(XvlaError, match=r"someone/set@v3\.0: could not download the dataset: no network"):
        locate_dataset(DatasetSpec(repo="someone/set", revision="v3.0"), tmp_path)
    assert calls == [("someone/set", {"repo_type": "dataset", "revision": "v3.0"})]


def test_image_size_of_either_order() -> None:
    assert FeatureInfo(dtype="video", shape=(3, 48, 64), names=None).image_size == (48, 64)
    assert FeatureInfo(dtype="video", shape=(48, 64, 3), names=None).image_size == (48, 64)
    named = FeatureInfo(dtype="video", shape=(3, 48, 64), names=["channels", "height", "width"])
    assert named.image_size == (48, 64)
