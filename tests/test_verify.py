"""The check of a dataset against a declaration: each fault is one error with field, found and allowed."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_helpers import FRONT, WRIST, edit_table, make_spec, position, rotation, write_dataset

from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.verify import check_dataset
from xvla_platform.errors import XvlaError


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", (12, 9, 15))


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "set"))


def check(folder: Path, **more: Any) -> None:
    check_dataset(open_lerobot(folder), make_spec(**more), plugin=Path("plugin.yaml"))


def fault(folder: Path, **more: Any) -> XvlaError:
    with pytest.raises(XvlaError) as caught:
        check(folder, **more)
    return caught.value


def test_a_sound_dataset_passes(pristine: Path) -> None:
    check(pristine)


def test_missing_camera_lists_what_exists(pristine: Path) -> None:
    error = fault(pristine, cameras=("observation.images.top", FRONT))
    assert error.field == "cameras[0].key"
    assert error.file == "plugin.yaml"
    assert error.found == "observation.images.top"
    assert error.allowed == f"{FRONT}, {WRIST}"


def test_a_column_is_no_camera(pristine: Path) -> None:
    assert "is a column of float32, not a video" in str(fault(pristine, cameras=(FRONT, "action")))


def test_rate(pristine: Path) -> None:
    assert str(fault(pristine, hz=20.0)) == (
        "plugin.yaml: control_hz: the dataset is recorded at 10 frames per second; found 20; allowed: 10"
    )


def test_sizes(pristine: Path) -> None:
    error = fault(pristine, action=[position(), rotation()])
    assert error.field == "action.fields"
    assert "take 6 numbers, column 'action' has 7" in error.message


def test_several_faults_are_counted(pristine: Path) -> None:
    text = str(fault(pristine, hz=20.0, cameras=(FRONT, "nothing"), proprio=[position(), rotation()]))
    assert "control_hz" in text
    assert "2 more faults: cameras[1].key, proprio.fields" in text


def test_resolution_and_numeric_key(folder: Path) -> None:
    info = json.loads((folder / "meta" / "info.json").read_text())
    info["features"][WRIST]["shape"] = [48, 64, 3]
    info["features"]["act"] = info["features"].pop("action")
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    text = str(fault(folder))
    assert "cameras[1].resolution" in text
    assert "found [32, 32]; allowed: [48, 64]" in text
    assert "1 more fault: action.key" in text


def test_frames_of_another_size_than_stated(folder: Path, pristine: Path) -> None:
    import av

    path = next((folder / "videos" / WRIST).rglob("*.mp4"))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(36):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    error = fault(folder)
    assert error.field == "cameras[1].resolution"
    assert "the frames of episode 0 have another size" in error.message


def test_missing_instruction(folder: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        tasks = [["lift"], [""], ["lift"]]
        return table.set_column(table.schema.get_field_index("tasks"), "tasks", pa.array(tasks))

    edit_table(folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet", change)
    assert "episode 1 has no instruction" in str(fault(folder))


def test_numbers_and_times(folder: Path) -> None:
    path = folder / "data" / "chunk-000" / "file-000.parquet"
    original = pq.read_table(path)

    def broken(table: pa.Table) -> pa.Table:
        values = np.array(table["action"].to_pylist())
        values[14, 6] = np.nan
        return table.set_column(table.schema.get_field_index("action"), "action", pa.array(values.tolist()))

    edit_table(path, broken)
    assert "action.gripper[0]: is not a finite number in episode 1, frame 2" in str(fault(folder))

    times = np.array(original["timestamp"].to_pylist())
    times[30:36] += 0.2
    place = original.schema.get_field_index("timestamp")
    pq.write_table(original.set_column(place, "timestamp", pa.array(times)), path)
    assert "episode 2 is not evenly timed at 10 frames per second" in str(fault(folder))


def test_videos_are_opened(folder: Path, tmp_path: Path) -> None:
    short = write_dataset(tmp_path / "short", (12, 9))
    video = next((folder / "videos" / WRIST).rglob("*.mp4"))
    shutil.copy(next((short / "videos" / WRIST).rglob("*.mp4")), video)
    assert "video ends at 2.000 s, episode 2 needs 3.500 s" in str(fault(folder))
    video.write_bytes(video.read_bytes()[:-500])
    assert "video cannot be opened" in str(fault(folder))
