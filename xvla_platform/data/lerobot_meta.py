"""What a LeRobotDataset v3.0 says about itself: file names, ``info.json``, tasks table, and what an
episode must bring."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xvla_platform.errors import XvlaError

CODEBASE_VERSION = "v3.0"
CHUNK_SIZE = 1000  # files a chunk folder
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DEFAULT_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class VectorColumn:
    """A float32 column: dataset key and one name per dimension."""

    key: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class CameraColumn:
    """A video column: dataset key, height and width in pixels."""

    key: str
    height: int
    width: int


def dataset_info(
    *,
    fps: int,
    vectors: Sequence[VectorColumn],
    cameras: Sequence[CameraColumn],
    robot_type: str | None,
    episodes: int,
    frames: int,
    tasks: int,
) -> dict[str, Any]:
    """Content of ``meta/info.json``."""
    features: dict[str, Any] = {
        v.key: {"dtype": "float32", "shape": [len(v.names)], "names": list(v.names)} for v in vectors
    }
    for c in cameras:
        features[c.key] = {
            "dtype": "video",
            "shape": [c.height, c.width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": c.height,
                "video.width": c.width,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": fps,
                "video.channels": 3,
                "has_audio": False,
            },
        }
    for name in DEFAULT_COLUMNS:
        dtype = "float32" if name == "timestamp" else "int64"
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    return {
        "codebase_version": CODEBASE_VERSION,
        "robot_type": robot_type,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": CHUNK_SIZE,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if cameras else None,
        "features": features,
    }


def check_episode(
    vector_columns: Sequence[VectorColumn],
    camera_columns: Sequence[CameraColumn],
    task: str,
    vectors: Mapping[str, NDArray[Any]],
    images: Mapping[str, NDArray[np.uint8]],
) -> int:
    """Length of an episode whose columns, shapes and values are as declared; XvlaError otherwise."""
    if not task.strip():
        raise XvlaError("an episode needs an instruction", field="task")
    wanted = {v.key for v in vector_columns}, {c.key for c in camera_columns}
    if (set(vectors), set(images)) != wanted:
        raise XvlaError(
            "the episode's columns are not those declared",
            found=", ".join(sorted((*vectors, *images))),
            allowed=sorted(wanted[0] | wanted[1]),
        )
    length = len(next(iter(vectors.values())))
    for v in vector_columns:
        shape = np.shape(vectors[v.key])
        if shape != (length, len(v.names)) or length == 0:
            raise XvlaError("wrong shape", field=v.key, found=shape, allowed=f"({max(length, 1)}, {len(v.names)})")
        if not np.isfinite(vectors[v.key]).all():
            raise XvlaError("holds a value that is not finite", field=v.key)
    for c in camera_columns:
        image = images[c.key]
        if image.shape != (length, c.height, c.width, 3) or image.dtype != np.uint8:
            raise XvlaError(
                "wrong images",
                field=c.key,
                found=f"{image.dtype} {image.shape}",
                allowed=f"uint8 {(length, c.height, c.width, 3)}",
            )
    return length


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """Table of ``meta/tasks.parquet`` as pandas would write it: LeRobot reads the instruction from its index."""
    table = pa.table(
        {
            "task_index": pa.array(range(len(tasks)), type=pa.int64()),
            "task": pa.array(tasks, type=pa.string()),
        }
    )
    return table.replace_schema_metadata({"pandas": json.dumps(PANDAS_TASKS)})


def next_file(position: tuple[int, int]) -> tuple[int, int]:
    """(chunk, file) after this one."""
    chunk, file = position
    return (chunk, file + 1) if file + 1 < CHUNK_SIZE else (chunk + 1, 0)


PANDAS_TASKS: dict[str, Any] = {
    "index_columns": ["task"],
    "column_indexes": [
        {
            "name": None,
            "field_name": None,
            "pandas_type": "unicode",
            "numpy_type": "object",
            "metadata": {"encoding": "UTF-8"},
        }
    ],
    "columns": [
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {
            "name": "task",
            "field_name": "task",
            "pandas_type": "unicode",
            "numpy_type": "object",
            "metadata": None,
        },
    ],
    "attributes": {},
    "creator": {"library": "pyarrow", "version": pa.__version__},
    "pandas_version": "2.2.3",
}
