"""Reader of LeRobot datasets in place, with pyarrow and PyAV alone: version 3.0 here, 2.x by `lerobot_v2`.

Frame `i` of an episode lies at `from_timestamp + i / fps` in its video, within half a frame.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.lerobot_info import (
    dataset_info,
    fill_template,
    info_path,
    inside,
    read_info,
    to_episode,
)
from xvla_platform.data.parquet import ParquetColumns, read_rows
from xvla_platform.data.pictures import decode_picture, stack_pictures
from xvla_platform.data.reader import (
    DatasetInfo,
    DatasetReader,
    Episode,
    FloatArray,
    Images,
    ReaderFactory,
    fingerprint_files,
    no_frames,
    require_episode,
    wanted_frames,
)
from xvla_platform.data.recent import Recent
from xvla_platform.data.video_reader import VideoCache
from xvla_platform.errors import XvlaError

OPEN_TABLES = 4
HASHED = (".parquet", ".json", ".jsonl", ".mp4", ".png", ".jpg", ".jpeg")


@dataclass(frozen=True, kw_only=True)
class EpisodeSource:
    """Where one episode lies: its data file, and per camera the video file and the offset in seconds."""

    episode: Episode
    data: Path
    videos: Mapping[str, tuple[Path, float]]


class LerobotReader:
    """A `DatasetReader` over LeRobot's files."""

    def __init__(self, root: Path, info: DatasetInfo, sources: Sequence[EpisodeSource]) -> None:
        self.root = root
        self.info = info
        self.episodes = [source.episode for source in sources]
        self._sources = list(sources)
        self._tables: Recent[Path, ParquetColumns] = Recent(OPEN_TABLES, ParquetColumns)
        self._videos = VideoCache()
        self._fingerprint: str | None = None

    def columns(self, episode: int, keys: Sequence[str]) -> dict[str, FloatArray]:
        """Each key's numbers, float64 [L, D] in recorded units."""
        source = self._source(episode)
        table, rows = self._rows(source)
        return {key: table.matrix(key)[rows] for key in keys}

    def timestamps(self, episode: int) -> FloatArray:
        """Recorded time of each frame since the start of the episode, [L] in seconds."""
        return self.columns(episode, ["timestamp"])["timestamp"][:, 0]

    def frames(self, episode: int, key: str, indices: Sequence[int] | NDArray[Any]) -> Images:
        """Exactly the frames asked for, in the order asked, RGB uint8 [N, H, W, 3]."""
        wanted = wanted_frames(self, episode, key, indices)
        source, feature = self._source(episode), self.info.features[key]
        if len(wanted) == 0:
            return no_frames(feature)
        if feature.dtype == "image":
            return self._stills(source, key, wanted)
        path, offset = source.videos[key]
        assert self.info.fps is not None  # `info.json` without a rate is refused
        times = offset + wanted / self.info.fps
        return self._videos.read(path, times, 0.5 / self.info.fps, what=f"episode {episode}")

    def fingerprint(self) -> str:
        """sha256 over names, sizes and contents of the dataset's files; computed once."""
        if self._fingerprint is None:
            files = (path for path in self.root.rglob("*") if path.suffix in HASHED and path.is_file())
            self._fingerprint = fingerprint_files(self.root, files)
        return self._fingerprint

    def _source(self, episode: int) -> EpisodeSource:
        require_episode(self, episode)
        return self._sources[episode]

    def _rows(self, source: EpisodeSource) -> tuple[ParquetColumns, NDArray[np.int64]]:
        """The episode's data file and its rows there, checked against the episodes table."""
        episode = source.episode
        with self._tables.use(source.data) as opened:
            table = opened
        rows = table.rows_of("episode_index", episode.index)
        if len(rows) != episode.length:
            raise XvlaError(
                f"episode {episode.index} has {len(rows)} rows, the episodes table says {episode.length}",
                file=source.data,
            )
        return table, rows

    def _stills(self, source: EpisodeSource, key: str, wanted: NDArray[np.int64]) -> Images:
        """Images stored as encoded bytes (or a relative path) in the data file."""
        table, rows = self._rows(source)
        cells = table.arrow(key)
        images = []
        for index in wanted:
            what = f"frame {int(index)} of episode {source.episode.index}"
            cell = cells[int(rows[index])].as_py()
            content = cell.get("bytes") if isinstance(cell, dict) else None
            try:
                if content is None:
                    content = inside(self.root, str(cell["path"]), source.data).read_bytes()
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise XvlaError(f"{what} is not a readable image: {error}", file=source.data, field=key) from None
            images.append(decode_picture(content, what, source.data, key))
        return stack_pictures(images, f"episode {source.episode.index}", source.data, key)


def open_lerobot(folder: Path) -> DatasetReader:
    """Open a LeRobot dataset of version 3.0, 2.1 or 2.0."""
    raw = read_info(folder)
    version = str(raw.get("codebase_version"))
    info = dataset_info(folder, raw)
    if version.startswith("v3."):
        sources = _sources_v3(folder, raw, info)
    elif version in ("v2.0", "v2.1"):
        from xvla_platform.data.lerobot_v2 import sources_v2

        sources = sources_v2(folder, raw, info)
    else:
        raise XvlaError(
            "unknown version of the LeRobot format",
            file=info_path(folder),
            field="codebase_version",
            found=version,
            allowed="v3.0, v2.1, v2.0",
        )
    _check_table(folder, info, sources)
    return LerobotReader(folder, info, sources)


def detects_lerobot(folder: Path) -> bool:
    """Whether the folder carries LeRobot's metadata file."""
    return info_path(folder).is_file()


LEROBOT = ReaderFactory(name="lerobot", open=open_lerobot, detects=detects_lerobot)


def _sources_v3(folder: Path, raw: Mapping[str, Any], info: DatasetInfo) -> list[EpisodeSource]:
    table = folder / "meta" / "episodes"
    files = sorted(table.glob("*/*.parquet"))
    if not files:
        raise XvlaError("episodes table is missing", file=table)
    videos = [key for key, feature in info.features.items() if feature.dtype == "video"]
    sources = []
    for file in files:
        for row in read_rows(file, drop_prefix="stats/"):
            try:
                data = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
                sources.append(
                    EpisodeSource(
                        episode=to_episode(row),
                        data=fill_template(folder, raw, "data_path", **data),
                        videos={key: _video_v3(folder, raw, row, key) for key in videos},
                    )
                )
            except KeyError as error:
                raise XvlaError("column is missing", file=file, field=error.args[0], allowed=row) from None
            except (TypeError, ValueError, OverflowError) as error:
                raise XvlaError(f"episodes table is damaged: {error}", file=file) from None
    return sorted(sources, key=lambda source: source.episode.index)


def _video_v3(folder: Path, raw: Mapping[str, Any], row: Mapping[str, Any], key: str) -> tuple[Path, float]:
    prefix = f"videos/{key}"
    place = {"chunk_index": row[f"{prefix}/chunk_index"], "file_index": row[f"{prefix}/file_index"]}
    offset = float(row[f"{prefix}/from_timestamp"])
    return fill_template(folder, raw, "video_path", video_key=key, **place), offset


def _check_table(folder: Path, info: DatasetInfo, sources: Sequence[EpisodeSource]) -> None:
    if not sources or info.episodes == 0:
        raise XvlaError("dataset has no episode", file=info_path(folder), field="total_episodes", found=0)
    lengths = [source.episode.length for source in sources]
    for place, source in enumerate(sources):
        if source.episode.index != place:
            raise XvlaError(f"episode {place} is missing from the episodes table", file=folder / "meta")
        if source.episode.length < 1:
            raise XvlaError(f"episode {place} has no frame", file=folder / "meta")
    for field, stated, counted in (
        ("total_episodes", info.episodes, len(sources)),
        ("total_frames", info.frames, sum(lengths)),
    ):
        if stated != counted:
            raise XvlaError(
                f"disagrees with the episodes table, which has {counted}",
                file=info_path(folder),
                field=field,
                found=stated,
            )
