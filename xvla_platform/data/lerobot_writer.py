"""Writer of LeRobotDataset v3.0 with pyarrow and PyAV alone.

In: episodes (float vectors, uint8 images, one instruction each). Out: a folder that LeRobot 0.6 reads: parquet
tables under ``meta`` and ``data``, one H.264 stream per camera under ``videos``, several episodes a file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xvla_platform.data.lerobot_meta import (
    DATA_FILE_MB,
    DATA_PATH,
    DEFAULT_COLUMNS,
    EPISODES_PATH,
    VIDEO_FILE_MB,
    VIDEO_PATH,
    CameraColumn,
    VectorColumn,
    check_episode,
    dataset_info,
    next_file,
    tasks_table,
)
from xvla_platform.data.lerobot_stats import (
    ImageAccumulator,
    Stats,
    VectorAccumulator,
    image_stats,
    vector_stats,
)
from xvla_platform.data.lerobot_video import VideoFile, VideoSettings
from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import atomic_folder, os_errors, remove_leftovers, sibling

ROWS_PER_GROUP = 4096


class LeRobotWriter:
    """Context manager that writes one dataset, all or nothing.

    Everything goes into a hidden sibling folder that is renamed to ``root`` on a clean exit and removed on an
    exception, so a crash never leaves half a dataset under the final name.

    Args:
        root: Folder of the dataset. It must not exist unless ``overwrite``, in which case it is replaced at the end.
        fps: Frames per second of every stream.
        vectors, cameras: The columns every episode must bring.
        robot_type: Written to ``meta/info.json``.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        fps: float,
        vectors: Sequence[VectorColumn],
        cameras: Sequence[CameraColumn] = (),
        robot_type: str | None = None,
        overwrite: bool = False,
        video: VideoSettings | None = None,
    ) -> None:
        self.root = Path(root)
        if fps != int(fps) or fps <= 0:
            raise XvlaError("a LeRobot dataset has a whole number of frames per second", found=fps)
        if self.root.exists() and not overwrite:
            raise XvlaError("the dataset exists already", file=self.root, hint="pass --overwrite to replace it")
        for key in (*(v.key for v in vectors), *(c.key for c in cameras)):
            if "/" in key:
                raise XvlaError("a LeRobot key holds no '/'", field=key)
        self._fps = int(fps)
        self._vectors, self._cameras = tuple(vectors), tuple(cameras)
        self._robot_type = robot_type
        self._settings = video or VideoSettings()
        self._overwrite = overwrite
        self._work = sibling(self.root, "new")
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._rows: list[dict[str, NDArray[Any]]] = []
        self._pending = 0
        self._frames = 0
        self._data_file = (0, 0)
        self._data_rows = 0
        self._table: pq.ParquetWriter | None = None
        self._videos: dict[str, VideoFile] = {}
        self._vector_sums = {v.key: VectorAccumulator() for v in self._vectors}
        self._default_sums = {name: VectorAccumulator() for name in DEFAULT_COLUMNS}
        self._image_sums = {c.key: ImageAccumulator() for c in self._cameras}

    def __enter__(self) -> Self:
        with os_errors(self.root):
            remove_leftovers(self.root.parent)
            self._work.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with os_errors(self.root):
                    self._finish()
        finally:
            for video in self._videos.values():
                video.abandon()
            if self._table is not None:
                self._table.close()
            shutil.rmtree(self._work, ignore_errors=True)

    @property
    def total_episodes(self) -> int:
        """Episodes added so far."""
        return len(self._episodes)

    @property
    def total_frames(self) -> int:
        """Frames added so far."""
        return self._frames

    def add_episode(
        self, task: str, vectors: Mapping[str, NDArray[Any]], images: Mapping[str, NDArray[np.uint8]]
    ) -> None:
        """Append an episode: ``vectors[key]`` (N, D), ``images[key]`` uint8 (N, H, W, 3)."""
        length = check_episode(self._vectors, self._cameras, task, vectors, images)
        index = len(self._episodes)
        task_index = self._tasks.setdefault(task, len(self._tasks))
        columns: dict[str, NDArray[Any]] = {
            v.key: np.ascontiguousarray(vectors[v.key], dtype=np.float32) for v in self._vectors
        }
        frame = np.arange(length, dtype=np.int64)
        columns |= {
            "timestamp": (frame / self._fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(length, index, dtype=np.int64),
            "index": frame + self._frames,
            "task_index": np.full(length, task_index, dtype=np.int64),
        }
        if self._data_rows * self._row_bytes() > DATA_FILE_MB * 1e6:
            self._roll_data()
        row: dict[str, Any] = {
            "episode_index": index,
            "tasks": [task],
            "length": length,
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + length,
            "data/chunk_index": self._data_file[0],
            "data/file_index": self._data_file[1],
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        self._rows.append(columns)
        self._pending += length
        self._data_rows += length
        for camera in self._cameras:
            row |= self._write_video(camera, images[camera.key])
        row |= self._episode_stats(columns, images)
        self._episodes.append(row)
        self._frames += length
        if self._pending >= ROWS_PER_GROUP:
            self._flush()

    def add_file(self, name: str, content: bytes) -> None:
        """Put another file into the dataset's folder; LeRobot ignores what it does not know."""
        (self._work / name).write_bytes(content)

    # Frames

    def _row_bytes(self) -> int:
        return 4 * sum(len(v.names) for v in self._vectors) + 36

    def _schema(self) -> pa.Schema:
        fields = [pa.field(v.key, pa.list_(pa.float32(), len(v.names))) for v in self._vectors]
        fields.append(pa.field("timestamp", pa.float32()))
        fields += [pa.field(name, pa.int64()) for name in DEFAULT_COLUMNS[1:]]
        return pa.schema(fields)

    def _flush(self) -> None:
        if not self._rows:
            return
        schema = self._schema()
        arrays: list[pa.Array] = []
        for field in schema:
            values = np.concatenate([columns[field.name] for columns in self._rows])
            if pa.types.is_fixed_size_list(field.type):
                arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]))
            else:
                arrays.append(pa.array(values, type=field.type))
        if self._table is None:
            chunk, file = self._data_file
            path = self._work / DATA_PATH.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._table = pq.ParquetWriter(path, schema, compression="snappy")
        self._table.write_table(pa.Table.from_arrays(arrays, schema=schema))
        self._rows, self._pending = [], 0

    def _roll_data(self) -> None:
        self._flush()
        if self._table is not None:
            self._table.close()
            self._table = None
        self._data_file = next_file(self._data_file)
        self._data_rows = 0

    def _write_video(self, camera: CameraColumn, images: NDArray[np.uint8]) -> dict[str, Any]:
        video = self._videos.get(camera.key)
        if video is None or video.bytes_written() > VIDEO_FILE_MB * 1e6:
            position = (0, 0) if video is None else next_file(video.position)
            if video is not None:
                video.close()
            path = VIDEO_PATH.format(video_key=camera.key, chunk_index=position[0], file_index=position[1])
            video = VideoFile(self._work / path, self._fps, camera.height, camera.width, self._settings, position)
            self._videos[camera.key] = video
        start = video.frames
        video.write(images)
        prefix = f"videos/{camera.key}"
        return {
            f"{prefix}/chunk_index": video.position[0],
            f"{prefix}/file_index": video.position[1],
            f"{prefix}/from_timestamp": start / self._fps,
            f"{prefix}/to_timestamp": video.frames / self._fps,
        }

    def _episode_stats(
        self, columns: Mapping[str, NDArray[Any]], images: Mapping[str, NDArray[np.uint8]]
    ) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for key, values in columns.items():
            matrix = values[:, None] if values.ndim == 1 else values
            (self._vector_sums.get(key) or self._default_sums[key]).add(matrix)
            row |= {f"stats/{key}/{name}": value for name, value in vector_stats(matrix).items()}
        for camera in self._cameras:
            stats, histogram = image_stats(images[camera.key])
            self._image_sums[camera.key].add(histogram, len(images[camera.key]))
            row |= {f"stats/{camera.key}/{name}": value for name, value in stats.items()}
        return row

    # End

    def _finish(self) -> None:
        if not self._episodes:
            raise XvlaError("no episode was recorded, so there is nothing to write", file=self.root)
        self._flush()
        if self._table is not None:
            self._table.close()
            self._table = None
        for video in self._videos.values():
            video.close()
        tasks = self._work / "meta" / "tasks.parquet"
        tasks.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(tasks_table(list(self._tasks)), tasks)
        path = self._work / EPISODES_PATH.format(chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), path, compression="snappy")
        info = dataset_info(
            fps=self._fps,
            vectors=self._vectors,
            cameras=self._cameras,
            robot_type=self._robot_type,
            episodes=len(self._episodes),
            frames=self._frames,
            tasks=len(self._tasks),
        )
        self._write_json("meta/info.json", info)
        self._write_json("meta/stats.json", self._stats())
        self._publish()

    def _publish(self) -> None:
        with atomic_folder(self.root, replace=self._overwrite) as building:
            for path in self._work.iterdir():
                path.rename(building / path.name)

    def _write_json(self, name: str, content: Any) -> None:
        path = self._work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _stats(self) -> dict[str, Stats]:
        sums: dict[str, VectorAccumulator | ImageAccumulator] = {
            **self._vector_sums,
            **self._image_sums,
            **self._default_sums,
        }
        return {key: accumulator.result() for key, accumulator in sums.items()}
