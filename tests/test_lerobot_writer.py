"""The dataset writer: what goes in comes out through pyarrow and PyAV, all or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xvla_platform.errors import XvlaError

pytest.importorskip("pyarrow", exc_type=ImportError)
av = pytest.importorskip("av")

import pyarrow.parquet as pq  # noqa: E402

from xvla_platform.data.lerobot_meta import CameraColumn, VectorColumn, next_file  # noqa: E402
from xvla_platform.data.lerobot_writer import LeRobotWriter  # noqa: E402

FPS = 20
CAMERA = "observation.images.front"
LENGTHS = (7, 1, 60)


def writer(root: Path, **options: object) -> LeRobotWriter:
    return LeRobotWriter(
        root,
        fps=FPS,
        vectors=[VectorColumn("observation.state", ("x", "y")), VectorColumn("action", ("x", "y", "z"))],
        cameras=[CameraColumn(CAMERA, 64, 48)],
        robot_type="test_arm",
        **options,  # type: ignore[arg-type]
    )


def images(length: int, seed: int) -> NDArray[np.uint8]:
    """A bright square that wanders over a flat background."""
    frames = np.full((length, 64, 48, 3), 90, dtype=np.uint8)
    colour = np.random.default_rng(seed).integers(0, 256, size=3)
    for i in range(length):
        frames[i, 10 + i % 20 : 30 + i % 20, 8:32] = colour
    return frames


def episode(length: int, seed: int) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.uint8]]]:
    rng = np.random.default_rng(seed)
    vectors = {
        "observation.state": rng.normal(size=(length, 2)).astype(np.float32),
        "action": rng.normal(size=(length, 3)).astype(np.float32),
    }
    return vectors, {CAMERA: images(length, seed)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    with writer(root) as out:
        for seed, length in enumerate(LENGTHS):
            vectors, frames = episode(length, seed)
            out.add_episode(f"task {seed % 2}", vectors, frames)
    return root


def column(table: object, name: str) -> NDArray[np.float32]:
    return np.stack(table[name].to_numpy(zero_copy_only=False))  # type: ignore[index]


def test_values_come_back_exactly(dataset: Path) -> None:
    table = pq.read_table(dataset / "data/chunk-000/file-000.parquet")
    expected = [episode(length, seed)[0] for seed, length in enumerate(LENGTHS)]
    for key in ("observation.state", "action"):
        np.testing.assert_array_equal(column(table, key), np.concatenate([e[key] for e in expected]))
    assert table.schema.field("action").type.list_size == 3
    np.testing.assert_array_equal(table["index"].to_numpy(), np.arange(sum(LENGTHS)))
    np.testing.assert_array_equal(table["episode_index"].to_numpy(), np.repeat([0, 1, 2], LENGTHS))
    np.testing.assert_array_equal(table["task_index"].to_numpy(), np.repeat([0, 1, 0], LENGTHS))
    frame = np.concatenate([np.arange(length) for length in LENGTHS])
    np.testing.assert_allclose(table["timestamp"].to_numpy(), frame / FPS, atol=1e-6)


def test_frames_come_back_in_place(dataset: Path) -> None:
    rows = pq.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    with av.open(str(dataset / f"videos/{CAMERA}/chunk-000/file-000.mp4")) as container:
        decoded = {round(frame.time * FPS): frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)}
    assert len(decoded) == sum(LENGTHS)
    for seed, (row, length) in enumerate(zip(rows, LENGTHS, strict=True)):
        start = round(row[f"videos/{CAMERA}/from_timestamp"] * FPS)
        assert round(row[f"videos/{CAMERA}/to_timestamp"] * FPS) - start == length
        for i, image in enumerate(images(length, seed)):
            error = np.abs(decoded[start + i].astype(int) - image.astype(int))
            assert error.mean() < 6.0
            # Inside the square, away from the edges that chroma subsampling blurs, the colour survives.
            assert error[14 + i % 20 : 26 + i % 20, 12:28].mean() < 10.0


def test_metadata_is_complete(dataset: Path) -> None:
    info = json.loads((dataset / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, sum(LENGTHS), 2)
    assert info["features"]["action"] == {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
    assert info["features"][CAMERA]["shape"] == [64, 48, 3]
    for key in ("data_path", "video_path"):
        path = info[key].format(chunk_index=0, file_index=0, video_key=CAMERA)
        assert (dataset / path).is_file()
    tasks = pq.read_table(dataset / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "task": ["task 0", "task 1"]}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    rows = pq.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["length"] for row in rows] == list(LENGTHS)
    assert [row["dataset_from_index"] for row in rows] == [0, 7, 8]
    assert rows[1]["tasks"] == ["task 1"]


def test_statistics(dataset: Path) -> None:
    stats = json.loads((dataset / "meta/stats.json").read_text())
    values = np.concatenate([episode(length, seed)[0]["action"] for seed, length in enumerate(LENGTHS)])
    np.testing.assert_allclose(stats["action"]["mean"], values.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["q99"], np.quantile(values, 0.99, axis=0), atol=1e-6)
    assert stats["action"]["count"] == [sum(LENGTHS)]
    picture = np.concatenate([images(length, seed) for seed, length in enumerate(LENGTHS)]) / 255.0
    assert np.shape(stats[CAMERA]["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(np.ravel(stats[CAMERA]["mean"]), picture.mean(axis=(0, 1, 2)), atol=1e-9)
    np.testing.assert_allclose(np.ravel(stats[CAMERA]["std"]), picture.std(axis=(0, 1, 2)), atol=1e-9)
    row = pq.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[0]
    assert np.shape(row[f"stats/{CAMERA}/q50"]) == (3, 1, 1)
    assert row["stats/action/count"] == [LENGTHS[0]]


def test_a_crash_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "set"

    def interrupted() -> None:
        with writer(root) as out:
            out.add_episode("task", *episode(60, 0))
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_dataset_is_kept(dataset: Path) -> None:
    before = (dataset / "meta/info.json").read_bytes()
    with pytest.raises(XvlaError, match="exists already"):
        writer(dataset)
    assert (dataset / "meta/info.json").read_bytes() == before


def test_overwrite_replaces_at_the_end_only(tmp_path: Path) -> None:
    root = tmp_path / "set"
    with writer(root) as out:
        out.add_episode("old", *episode(3, 0))
    with pytest.raises(RuntimeError), writer(root, overwrite=True):
        raise RuntimeError
    assert pq.read_table(root / "meta/tasks.parquet").to_pydict()["task"] == ["old"]
    with writer(root, overwrite=True) as out:
        out.add_episode("new", *episode(3, 0))
    assert pq.read_table(root / "meta/tasks.parquet").to_pydict()["task"] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("fault", ["shape", "nan", "images", "task", "columns"])
def test_bad_episodes_are_refused(tmp_path: Path, fault: str) -> None:
    vectors, frames = episode(5, 0)
    task = "task"
    if fault == "shape":
        vectors["action"] = vectors["action"][:, :2]
    elif fault == "nan":
        vectors["action"][2, 1] = np.nan
    elif fault == "images":
        frames[CAMERA] = frames[CAMERA][:4]
    elif fault == "task":
        task = " "
    else:
        del frames[CAMERA]
    with pytest.raises(XvlaError), writer(tmp_path / "set") as out:
        out.add_episode(task, vectors, frames)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(XvlaError, match="no episode"), writer(tmp_path / "set"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_files_fill_a_chunk() -> None:
    assert next_file((0, 0)) == (0, 1)
    assert next_file((0, 999)) == (1, 0)
