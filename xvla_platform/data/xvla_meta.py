"""Reader of the meta files of the public X-VLA code: one JSON file that lists episodes stored as HDF5.

`datalist` names the files, `observation_key` their cameras (the main view first), `language_instruction_key` the
dataset with the command. Keys are paths inside the episodes' files. Optional entries that the public handlers know
are used where present: `freq` is the rate, `left_time_key` and `right_time_key` the recorded times. A meta file that
is a LeRobot dataset's `info.json` opens that dataset.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xvla_platform.data.hdf5 import Hdf5Reader, read_features
from xvla_platform.data.hdf5_file import episode_length, find_dataset, open_file
from xvla_platform.data.hdf5_layout import ENDINGS, Recorded, read_text
from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.reader import DatasetReader, ReaderFactory, require_inside
from xvla_platform.data.rlds_features import read_json
from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import real_path

LANGUAGE, OBSERVATIONS, LIST = "language_instruction_key", "observation_key", "datalist"
TIMES = ("left_time_key", "right_time_key")


def open_xvla_meta(file: Path) -> DatasetReader:
    """Open the episodes that a meta file lists."""
    meta = read_json(file)
    if "codebase_version" in meta:
        return open_lerobot(_lerobot_root(meta, file))
    cameras = _strings(meta, OBSERVATIONS, file)
    recorded = [_recorded(path, cameras[0], meta, file) for path in _episode_files(meta, file)]
    features = read_features(recorded[0])
    for key in cameras:
        if key not in features or not features[key].is_camera:
            pictures = [name for name, feature in features.items() if feature.is_camera]
            raise XvlaError(
                "is not a camera of the episodes", file=file, field=OBSERVATIONS, found=key, allowed=pictures
            )
    times = [str(meta[name]) for name in TIMES if meta.get(name)]
    for key in times:
        if key not in features:
            raise XvlaError("is not a column of the episodes", file=file, found=key, allowed=sorted(features))
    return Hdf5Reader(
        file,
        recorded,
        features,
        fps=_rate(meta, file),
        robot_type=str(meta["dataset_name"]) if meta.get("dataset_name") else None,
        times=times,
        described=[file],
    )


def detects_xvla_meta(place: Path) -> bool:
    """Whether the file is a meta file of the public code."""
    if place.suffix != ".json" or not place.is_file():
        return False
    try:
        meta = read_json(place)
    except XvlaError:
        return True  # opening it says what is wrong with it
    return LIST in meta or "codebase_version" in meta


XVLA_META = ReaderFactory(name="xvla_meta", open=open_xvla_meta, detects=detects_xvla_meta, takes="file")


def _lerobot_root(meta: Mapping[str, Any], file: Path) -> Path:
    root = meta.get("root_path")
    home = real_path(file).parent
    folder = home.parent if root is None else real_path(home / str(root), "root_path")
    if not folder.is_dir():
        raise XvlaError("dataset folder not found", file=file, field="root_path", found=str(folder))
    return folder


def _episode_files(meta: Mapping[str, Any], file: Path) -> list[Path]:
    """The listed files. A relative path is below the meta file's folder; an absolute one is taken as it is."""
    entries = meta.get(LIST)
    if not isinstance(entries, list) or not entries:
        raise XvlaError("lists no episode", file=file, field=LIST)
    paths = []
    for number, entry in enumerate(entries):
        field = f"{LIST}[{number}]"
        name = entry[0] if isinstance(entry, list) and entry else entry
        if not isinstance(name, str) or "\0" in name or not name.endswith(ENDINGS):
            raise XvlaError("is not the path of an HDF5 file", file=file, field=field, found=name, allowed=ENDINGS)
        path = Path(name)
        if not path.is_absolute():
            if ".." in path.parts:
                raise XvlaError("a relative path must stay below the meta file", file=file, field=field, found=name)
            path = require_inside(file.parent, file.parent / path)
        if not path.is_file():
            raise XvlaError("episode's file is missing", file=file, field=field, found=str(path))
        paths.append(path)
    return paths


def _recorded(path: Path, camera: str, meta: Mapping[str, Any], file: Path) -> Recorded:
    content = open_file(path)
    try:
        length = episode_length(find_dataset(content, camera, path), path, camera)
        key = meta.get(LANGUAGE)
        if key is not None and not isinstance(key, str):
            raise XvlaError("is not the name of a dataset", file=file, field=LANGUAGE, found=key)
        text = read_text(find_dataset(content, key, path), path, key) if key else ""
    finally:
        content.close()
    return Recorded(file=path, group="", length=length, instruction=text, fps=None)


def _strings(meta: Mapping[str, Any], name: str, file: Path) -> Sequence[str]:
    values = meta.get(name)
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise XvlaError("must be a list of names", file=file, field=name, found=values)
    return values


def _rate(meta: Mapping[str, Any], file: Path) -> float | None:
    stated = meta.get("freq")
    if stated is None:
        return None
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 < stated < 10_000:
        raise XvlaError("frame rate must be positive", file=file, field="freq", found=stated)
    return float(stated)
