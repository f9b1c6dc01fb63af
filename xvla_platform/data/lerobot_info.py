"""LeRobot's `meta/info.json`: the dataset at a glance, and the path templates of its files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xvla_platform.data.reader import DatasetInfo, Episode, FeatureInfo, require_inside
from xvla_platform.errors import XvlaError


def info_path(folder: Path) -> Path:
    """The metadata file of the dataset in `folder`."""
    return folder / "meta" / "info.json"


def read_info(folder: Path) -> dict[str, Any]:
    """`meta/info.json` as a mapping."""
    path = info_path(folder)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise XvlaError("dataset metadata is missing", file=path) from None
    except (OSError, ValueError) as error:
        raise XvlaError(f"dataset metadata is damaged: {error}", file=path) from None
    if not isinstance(raw, dict):
        raise XvlaError("dataset metadata is damaged: expected a mapping", file=path)
    return raw


def dataset_info(folder: Path, raw: Mapping[str, Any]) -> DatasetInfo:
    """`DatasetInfo` of the raw metadata."""
    path = info_path(folder)
    for key in ("fps", "features", "data_path"):
        if raw.get(key) in (None, {}, ""):
            raise XvlaError("required entry is missing", file=path, field=key)
    try:
        features = {
            str(key): FeatureInfo(
                dtype=str(feature["dtype"]),
                shape=tuple(int(size) for size in feature["shape"]),
                names=feature.get("names"),
            )
            for key, feature in raw["features"].items()
        }
        fps = float(raw["fps"])
        episodes, frames = int(raw.get("total_episodes", 0)), int(raw.get("total_frames", 0))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise XvlaError(f"dataset metadata is damaged: {type(error).__name__} {error}", file=path) from None
    if not 0 < fps < 10_000:
        raise XvlaError("frame rate must be positive", file=path, field="fps", found=fps)
    robot_type = raw.get("robot_type")
    return DatasetInfo(
        fps=fps,
        features=features,
        episodes=episodes,
        frames=frames,
        robot_type=None if robot_type is None else str(robot_type),
    )


def to_episode(row: Mapping[str, Any]) -> Episode:
    """The row of an episodes table; its one task is the episode's instruction."""
    tasks = row.get("tasks") or [""]
    texts = [tasks] if isinstance(tasks, str) else list(dict.fromkeys(str(task).strip() for task in tasks))
    if len(texts) > 1:
        raise XvlaError(
            f"episode {row['episode_index']} changes its task half way, and one episode has one instruction here",
            field="tasks",
            found=texts,
            hint="split the episode where the task changes",
        )
    return Episode(index=int(row["episode_index"]), length=int(row["length"]), instruction=texts[0].strip())


def fill_template(folder: Path, raw: Mapping[str, Any], name: str, **values: object) -> Path:
    """The file that a path template of `info.json` names; it must stay inside the dataset."""
    template = raw.get(name)
    try:
        relative = str(template).format(**values) if template else ""
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise XvlaError(
            f"path template is not valid: {error}", file=info_path(folder), field=name, found=template
        ) from None
    if not relative:
        raise XvlaError("required entry is missing", file=info_path(folder), field=name)
    return inside(folder, relative, info_path(folder))


def inside(root: Path, relative: str, file: Path) -> Path:
    """`root / relative`, refusing a path that a downloaded file could use to point elsewhere."""
    if Path(relative).is_absolute() or ".." in Path(relative).parts:
        raise XvlaError("a path must stay inside the dataset", file=file, found=relative)
    return require_inside(root, root / relative)
