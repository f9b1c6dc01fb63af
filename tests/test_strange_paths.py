"""Links that lead in a circle and names that no disk can hold: one line of error wherever a path comes from outside."""

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY, ROBOT, write_plugin
from data_helpers import edit_json, video_of, write_dataset
from formats import write_rlds

from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.reader import DatasetReader, locate_dataset, open_dataset
from xvla_platform.data.rlds import RLDS, open_rlds
from xvla_platform.data.xvla_meta import open_xvla_meta
from xvla_platform.errors import XvlaError
from xvla_platform.platform.bases import resolve_base
from xvla_platform.platform.files import real_path
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.embodiment import DatasetSpec

LENGTHS = (9, 8)
LONG = "a" * 300


def circle(path: Path) -> Path:
    """Put a link that points at itself in place of `path`."""
    path.unlink(missing_ok=True)
    path.symlink_to(path)
    return path


def read_all(reader: DatasetReader) -> None:
    for episode in reader.episodes:
        reader.columns(episode.index, ["action"])


def test_a_circle_in_a_lerobot_dataset(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "set", LENGTHS)
    circle(next((root / "data").rglob("*.parquet")))
    with pytest.raises(XvlaError, match=r"file-000\.parquet: is no path that can be followed") as caught:
        read_all(open_lerobot(root))
    assert "\n" not in str(caught.value)


def test_a_circle_in_place_of_a_video(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "set", LENGTHS)
    circle(video_of(root))
    with pytest.raises(XvlaError, match=r"file-000\.mp4: is no path that can be followed"):
        read_all(open_lerobot(root))


def test_a_circle_in_place_of_a_shard(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "set", LENGTHS)
    circle(next(root.glob("*.tfrecord-*")))
    with pytest.raises(XvlaError, match="is no path that can be followed"):
        open_rlds(root)


def test_a_name_that_is_too_long_for_the_disk(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "set", LENGTHS)
    edit_json(root / "meta" / "info.json", data_path=f"{LONG}.parquet")
    with pytest.raises(XvlaError, match="is no path that can be followed: file name too long"):
        read_all(open_lerobot(root))


@pytest.mark.parametrize("name", ["loop", LONG, "a\0b"])
def test_the_declared_place_of_a_dataset(tmp_path: Path, name: str) -> None:
    circle(tmp_path / "loop")
    spec = DatasetSpec.model_construct(format="lerobot", path=name, repo=None)
    with pytest.raises(XvlaError, match=r"dataset\.path: is no path that can be followed"):
        locate_dataset(spec, tmp_path)


def test_a_circle_above_a_meta_file(tmp_path: Path) -> None:
    file = tmp_path / "meta.json"
    file.write_text(json.dumps({"root_path": "loop", "datalist": ["a"], "dataset_name": "x", "robot_type": "lerobot"}))
    circle(tmp_path / "loop")
    with pytest.raises(XvlaError):
        open_xvla_meta(file)


@pytest.mark.parametrize("length", [1e999, -1e999, float("nan")])
def test_a_count_that_is_no_number(tmp_path: Path, length: float) -> None:
    """JSON has no infinity, and Python reads one."""
    root = write_rlds(tmp_path / "rlds", LENGTHS)
    info = root / "dataset_info.json"
    value = json.loads(info.read_text())
    value["splits"][0]["shardLengths"] = [length] * len(value["splits"][0]["shardLengths"])
    info.write_text(json.dumps(value))
    with pytest.raises(XvlaError, match=r"splits: dataset metadata is damaged"):
        open_dataset([RLDS], "rlds", root)
    root = write_dataset(tmp_path / "lerobot", LENGTHS)
    edit_json(root / "meta" / "info.json", total_episodes=length)
    with pytest.raises(XvlaError, match="dataset metadata is damaged"):
        open_lerobot(root)


def test_the_commands_words(tmp_path: Path) -> None:
    """Workspace, plugin and base are paths from outside too."""
    loop = circle(tmp_path / "loop")
    for place in (loop, tmp_path / LONG):
        for refuse in (lambda p: Workspace.find(p), lambda p: load_plugin(p), lambda p: resolve_base(str(p), None)):
            with pytest.raises(XvlaError, match="is no path that can be followed"):
                refuse(place)


def test_what_is_there_or_not_there_is_named_without_links(tmp_path: Path) -> None:
    folder = write_plugin(tmp_path / "plugin", ROBOT)
    (tmp_path / "link").symlink_to(folder)
    assert real_path(tmp_path / "link") == folder.resolve()
    assert real_path(tmp_path / "link" / "not" / "there") == folder.resolve() / "not" / "there"
    assert real_path(REPOSITORY / "README.md" / "below") == REPOSITORY / "README.md" / "below"
