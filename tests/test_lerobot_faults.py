"""Every way in which a LeRobot dataset can be damaged is one clear error that names the file."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_helpers import FRONT, SIDE, edit_json, edit_table, video_of, write_dataset

from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.lerobot_info import to_episode
from xvla_platform.errors import XvlaError

LENGTHS = (12, 9, 15)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", LENGTHS)


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "set"))


def test_truncated_video(folder: Path) -> None:
    path = video_of(folder)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(XvlaError, match=r"file-000\.mp4: video cannot be opened") as caught:
        open_lerobot(folder).frames(0, FRONT, [0])
    assert str(caught.value).count("\n") == 0


def test_damaged_video(folder: Path) -> None:
    path = video_of(folder)
    content = bytearray(path.read_bytes())
    start = content.find(b"mdat") + 900
    content[start : start + 400] = b"\xff" * 400
    path.write_bytes(bytes(content))
    with pytest.raises(XvlaError, match=r"file-000\.mp4: video (is damaged|cannot be opened).*"):
        open_lerobot(folder).frames(0, FRONT, range(12))


def test_video_shorter_than_its_episodes(folder: Path, tmp_path: Path) -> None:
    short = write_dataset(tmp_path / "short", (12, 9))
    shutil.copy(video_of(short), video_of(folder))
    reader = open_lerobot(folder)
    reader.frames(1, FRONT, [8])
    with pytest.raises(XvlaError, match=r"video ends at 2\.000 s, episode 2 needs 3\.500 s"):
        reader.frames(2, FRONT, [0, 14])


def test_missing_files(folder: Path) -> None:
    video_of(folder).unlink()
    reader = open_lerobot(folder)
    with pytest.raises(XvlaError, match=r"file-000\.mp4: video file is missing"):
        reader.frames(0, FRONT, [0])
    (folder / "data" / "chunk-000" / "file-000.parquet").unlink()
    with pytest.raises(XvlaError, match=r"file-000\.parquet: data file is missing"):
        reader.columns(0, ["action"])
    shutil.rmtree(folder / "meta" / "episodes")
    with pytest.raises(XvlaError, match="episodes table is missing"):
        open_lerobot(folder)
    shutil.rmtree(folder / "meta")
    with pytest.raises(XvlaError, match=r"info\.json: dataset metadata is missing"):
        open_lerobot(folder)


@pytest.mark.parametrize("table", ["data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"])
def test_damaged_parquet(folder: Path, table: str) -> None:
    content = (folder / table).read_bytes()
    (folder / table).write_bytes(content[: len(content) // 2])
    with pytest.raises(XvlaError, match=r"file-000\.parquet: data file is damaged"):
        open_lerobot(folder).columns(0, ["action"])


def test_missing_key_and_camera(pristine: Path) -> None:
    reader = open_lerobot(pristine)
    with pytest.raises(XvlaError, match=r"actions: column is missing; allowed: action, episode_index"):
        reader.columns(0, ["actions"])
    with pytest.raises(XvlaError, match=f"not a camera.*{FRONT}"):
        reader.frames(0, "action", [0])
    with pytest.raises(XvlaError, match=r"no such frame.*allowed: 0\.\.11"):
        reader.frames(0, FRONT, [12])
    with pytest.raises(XvlaError, match="no such episode"):
        reader.columns(3, ["action"])
    assert reader.frames(0, FRONT, []).shape == (0, SIDE, SIDE, 3)


def test_length_mismatch(folder: Path) -> None:
    edit_table(folder / "data" / "chunk-000" / "file-000.parquet", lambda table: table.slice(0, 30))
    reader = open_lerobot(folder)
    reader.columns(1, ["action"])
    with pytest.raises(XvlaError, match="episode 2 has 9 rows, the episodes table says 15"):
        reader.columns(2, ["action"])


def test_ragged_and_textual_columns(folder: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        rows = table.num_rows
        table = table.append_column("ragged", pa.array([[1.0] * (1 + i % 2) for i in range(rows)]))
        table = table.append_column("gap", pa.array([None] + [[1.0]] * (rows - 1)))
        return table.append_column("text", pa.array(["a"] * rows))

    edit_table(folder / "data" / "chunk-000" / "file-000.parquet", change)
    reader = open_lerobot(folder)
    for key, message in (("ragged", "different lengths"), ("gap", "without a value"), ("text", "not a numeric")):
        with pytest.raises(XvlaError, match=message):
            reader.columns(0, [key])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v1.6"}, "unknown version of the LeRobot format; found v1.6; allowed: v3.0"),
        ({"fps": 0}, "frame rate must be positive"),
        ({"fps": None}, "fps: required entry is missing"),
        ({"features": {}}, "features: required entry is missing"),
        ({"features": {"action": {"dtype": "float32"}}}, "metadata is damaged: KeyError"),
        ({"total_episodes": 0}, "dataset has no episode"),
        ({"total_episodes": 4}, "total_episodes: disagrees with the episodes table, which has 3; found 4"),
        ({"total_frames": 99}, "total_frames: disagrees with the episodes table, which has 36"),
        ({"data_path": "../{chunk_index}.parquet"}, "must stay inside the dataset"),
        ({"data_path": "/etc/{chunk_index}"}, "must stay inside the dataset"),
        ({"video_path": "{nothing}.mp4"}, "path template is not valid"),
        ({"video_path": None}, "video_path: required entry is missing"),
    ],
)
def test_bad_metadata(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_json(folder / "meta" / "info.json", **changes)
    with pytest.raises(XvlaError, match=message):
        open_lerobot(folder)


def test_unreadable_metadata(folder: Path) -> None:
    (folder / "meta" / "info.json").write_text("{")
    with pytest.raises(XvlaError, match="metadata is damaged"):
        open_lerobot(folder)


def test_bad_episodes_table(folder: Path) -> None:
    path = folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    original = pq.read_table(path)
    key = f"videos/{FRONT}/from_timestamp"
    pq.write_table(original.drop_columns([key]), path)
    with pytest.raises(XvlaError, match=f"{key}: column is missing"):
        open_lerobot(folder)
    pq.write_table(original.slice(1), path)
    edit_json(folder / "meta" / "info.json", total_episodes=2)
    with pytest.raises(XvlaError, match="episode 0 is missing"):
        open_lerobot(folder)


def test_an_episode_of_two_tasks_is_refused() -> None:
    """The second half would be trained with the first half's words."""
    row = {"episode_index": 1, "length": 3, "tasks": ["lift", "place"]}
    with pytest.raises(XvlaError, match=r"episode 1 changes its task half way.*found \['lift', 'place'\]"):
        to_episode(row)
    assert to_episode({**row, "tasks": ["lift", "lift "]}).instruction == "lift"
