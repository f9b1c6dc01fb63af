"""LeRobot 2.0 and 2.1 as their own library writes them, and the GR00T flavour of them, for tests."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from data_helpers import FRONT, SIDE, WRIST, columns, images

from xvla_platform.data.lerobot_stats import image_stats, vector_stats
from xvla_platform.data.lerobot_video import VideoFile, VideoSettings

LENGTHS = (12, 9, 15)
HZ = 10
STATE, ACTION = "observation.state", "action"


def vectors(length: int, episode: int) -> tuple[np.ndarray, np.ndarray]:
    """State and action, float32 [L, 7]: position, Euler angles, opening."""
    motion = columns(length, episode)
    return motion[STATE].astype(np.float32), motion[ACTION].astype(np.float32)


def write_lerobot21(folder: Path, lengths: Sequence[int] = LENGTHS, *, fps: int = HZ, version: str = "v2.1") -> Path:
    """LeRobot 2.1 as its own library writes it: one parquet and one video an episode, tables as JSON lines."""
    names = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
    camera = {
        "dtype": "video",
        "shape": [SIDE, SIDE, 3],
        "names": ["height", "width", "channels"],
        "info": {"video.height": SIDE, "video.width": SIDE, "video.codec": "h264", "video.pix_fmt": "yuv420p",
                 "video.is_depth_map": False, "video.fps": fps, "video.channels": 3, "has_audio": False},
    }  # fmt: skip
    features: dict[str, Any] = {
        STATE: {"dtype": "float32", "shape": [7], "names": names},
        ACTION: {"dtype": "float32", "shape": [7], "names": names},
        FRONT: camera,
        WRIST: camera,
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    }
    features |= {
        name: {"dtype": "int64", "shape": [1], "names": None}
        for name in ("frame_index", "episode_index", "index", "task_index")
    }
    episodes, stats, start = [], [], 0
    for episode, length in enumerate(lengths):
        rows, views = _rows(length, episode, start, fps), {}
        start += length
        path = folder / f"data/chunk-000/episode_{episode:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows), path)
        for number, key in enumerate((FRONT, WRIST)):
            views[key] = images(length, episode, number)
            place = folder / f"videos/chunk-000/{key}/episode_{episode:06d}.mp4"
            video = VideoFile(place, fps, SIDE, SIDE, VideoSettings(gop=4, preset="ultrafast"), (0, episode))
            video.write(views[key])
            video.close()
        numbers = {key: np.array(column.to_pylist(), dtype=np.float64) for key, column in rows.items()}
        measured = {key: vector_stats(values.reshape(length, -1)) for key, values in numbers.items()}
        measured |= {key: image_stats(frames)[0] for key, frames in views.items()}
        stats.append({"episode_index": episode, "stats": measured})
        episodes.append({"episode_index": episode, "tasks": [f"lift the cube {episode}"], "length": length})
    tasks = [{"task_index": number, "task": f"lift the cube {number}"} for number in range(len(lengths))]
    info = {
        "codebase_version": version, "robot_type": "tester", "total_episodes": len(lengths),
        "total_frames": sum(lengths), "total_tasks": len(lengths), "total_videos": 2 * len(lengths),
        "total_chunks": 1, "chunks_size": 1000, "fps": fps, "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }  # fmt: skip
    (folder / "meta").mkdir()
    (folder / "meta/info.json").write_text(json.dumps(info, indent=4))
    for name, table in (("tasks", tasks), ("episodes", episodes), ("episodes_stats", stats)):
        (folder / f"meta/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    return folder


def _rows(length: int, episode: int, start: int, fps: int) -> dict[str, pa.Array]:
    state, action = vectors(length, episode)
    frame = np.arange(length)
    return {
        STATE: pa.array(state.tolist(), type=pa.list_(pa.float32())),
        ACTION: pa.array(action.tolist(), type=pa.list_(pa.float32())),
        "timestamp": pa.array((frame / fps).astype(np.float32)),
        "frame_index": pa.array(frame),
        "episode_index": pa.array(np.full(length, episode)),
        "index": pa.array(frame + start),
        "task_index": pa.array(np.full(length, episode)),
    }


def write_groot(folder: Path, lengths: Sequence[int] = LENGTHS, *, annotated_only: bool = False) -> Path:
    """GR00T-flavoured LeRobot 2: `meta/modality.json` and language as indices in `annotation.*` columns.

    With `annotated_only` the episodes table names no task, so that the annotation is the only language there is.
    """
    write_lerobot21(folder, lengths, version="v2.0")
    info = json.loads((folder / "meta/info.json").read_text())
    annotations = ("annotation.human.task_description", "annotation.human.validity")
    for name in annotations:
        info["features"][name] = {"dtype": "int64", "shape": [1], "names": None}
    (folder / "meta/info.json").write_text(json.dumps(info, indent=4))
    tasks = [{"task_index": 0, "task": "valid"}]
    tasks += [{"task_index": 1 + number, "task": f"lift the cube {number}"} for number in range(len(lengths))]
    (folder / "meta/tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tasks))
    for episode, length in enumerate(lengths):
        path = folder / f"data/chunk-000/episode_{episode:06d}.parquet"
        table = pq.read_table(path)
        table = table.append_column(annotations[0], pa.array(np.full(length, 1 + episode)))
        pq.write_table(table.append_column(annotations[1], pa.array(np.zeros(length, np.int64))), path)
    if annotated_only:
        rows = [json.loads(line) for line in (folder / "meta/episodes.jsonl").read_text().splitlines()]
        text = "".join(json.dumps({**row, "tasks": []}) + "\n" for row in rows)
        (folder / "meta/episodes.jsonl").write_text(text)
    parts = {"position": (0, 3), "rotation": (3, 6), "gripper": (6, 7)}
    ranges = {name: {"start": start, "end": end} for name, (start, end) in parts.items()}
    modality = {
        "state": {name: {**part, "original_key": STATE} for name, part in ranges.items()},
        "action": {name: {**part, "original_key": ACTION, "absolute": True} for name, part in ranges.items()},
        "video": {"front": {"original_key": FRONT}, "wrist": {"original_key": WRIST}},
        "annotation": {"human.task_description": {}, "human.validity": {}},
    }
    (folder / "meta/modality.json").write_text(json.dumps(modality, indent=4))
    return folder
