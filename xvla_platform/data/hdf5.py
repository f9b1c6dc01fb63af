"""Reader of HDF5 recordings in place: ALOHA/ACT (one file an episode) and robomimic/LIBERO (many in one file).

Keys are paths below the episode's group: `observations/qpos`, `obs/ee_pos`, `actions`. Any dataset with one row a
frame is a column, or a camera where it holds pictures, raw or encoded. The rate is what `env_args` states; ALOHA
files state none.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.hdf5_file import (
    LARGEST_PICTURE,
    datasets_below,
    describe,
    encoded_row,
    find_dataset,
    matrix,
    open_file,
    reading,
)
from xvla_platform.data.hdf5_layout import Recorded, find_episodes, hdf5_files, is_hdf5
from xvla_platform.data.pictures import decode_picture, stack_pictures
from xvla_platform.data.reader import (
    DatasetInfo,
    DatasetReader,
    Episode,
    FeatureInfo,
    FloatArray,
    Images,
    ReaderFactory,
    fingerprint_files,
    no_frames,
    require_episode,
    wanted_frames,
)
from xvla_platform.data.recent import Recent
from xvla_platform.errors import XvlaError

OPEN_FILES = 16


class Hdf5Reader:
    """A `DatasetReader` over episodes in HDF5 files.

    `times` names datasets of seconds, one row a frame; their mean is the frame's time. `described` are further files
    that belong to the dataset.
    """

    def __init__(
        self,
        root: Path,
        recorded: Sequence[Recorded],
        features: Mapping[str, FeatureInfo],
        *,
        fps: float | None,
        robot_type: str | None = None,
        times: Sequence[str] = (),
        described: Sequence[Path] = (),
    ) -> None:
        self.root = root
        self.info = DatasetInfo(
            fps=fps,
            features=dict(features),
            episodes=len(recorded),
            frames=sum(episode.length for episode in recorded),
            robot_type=robot_type,
        )
        self.episodes = [
            Episode(index=index, length=episode.length, instruction=episode.instruction)
            for index, episode in enumerate(recorded)
        ]
        self._recorded = list(recorded)
        self._times = tuple(times)
        self._described = tuple(described)
        self._files: Recent[Path, Any] = Recent(OPEN_FILES, open_file, _close)
        self._fingerprint: str | None = None

    def columns(self, episode: int, keys: Sequence[str]) -> dict[str, FloatArray]:
        """Each key's numbers, float64 [L, D] in recorded units."""
        require_episode(self, episode)
        recorded = self._recorded[episode]
        with self._files.use(recorded.file) as content:
            return {key: self._column(content, recorded, key) for key in keys}

    def timestamps(self, episode: int) -> FloatArray:
        """Recorded time of each frame since the start of the episode, [L] in seconds; all NaN without a rate."""
        length = require_episode(self, episode).length
        if self._times:
            times = np.stack([column[:, 0] for column in self.columns(episode, self._times).values()]).mean(axis=0)
            return np.asarray(times - times[0])
        if self.info.fps is None:
            return np.full(length, np.nan)
        return np.arange(length) / self.info.fps

    def frames(self, episode: int, key: str, indices: Sequence[int] | NDArray[Any]) -> Images:
        """Exactly the frames asked for, in the order asked, RGB uint8 [N, H, W, 3]."""
        wanted = wanted_frames(self, episode, key, indices)
        if not len(wanted):
            return no_frames(self.info.features[key])
        recorded = self._recorded[episode]
        unique, order = np.unique(wanted, return_inverse=True)
        with self._files.use(recorded.file) as content:
            dataset = find_dataset(content, f"{recorded.group}/{key}", recorded.file)
            shape = tuple(dataset.shape or ())
            if not shape or shape[0] != recorded.length:
                raise XvlaError(
                    f"has {shape[0] if shape else 'no'} rows, episode {episode} has {recorded.length}",
                    file=recorded.file,
                    field=key,
                )
            if len(shape) == 4:
                return _raw(dataset, unique, recorded.file, key)[order]
            rows = [encoded_row(dataset, int(index), recorded.file, key) for index in unique]
        images = [
            decode_picture(row, f"frame {int(index)} of episode {episode}", recorded.file, key)
            for row, index in zip(rows, unique, strict=True)
        ]
        return stack_pictures(images, f"episode {episode}", recorded.file, key)[order]

    def fingerprint(self) -> str:
        """sha256 over names, sizes and contents of the dataset's files; computed once."""
        if self._fingerprint is None:
            home = self.root if self.root.is_dir() else self.root.parent
            files = dict.fromkeys([*(recorded.file for recorded in self._recorded), *self._described])
            self._fingerprint = fingerprint_files(home, files)
        return self._fingerprint

    def _column(self, content: Any, recorded: Recorded, key: str) -> FloatArray:
        feature = self.info.features.get(key)
        if feature is None or feature.is_camera:
            numeric = sorted(name for name, other in self.info.features.items() if not other.is_camera)
            raise XvlaError("is not a numeric key of the episodes", file=self.root, field=key, allowed=numeric)
        dataset = find_dataset(content, f"{recorded.group}/{key}", recorded.file)
        return matrix(dataset, recorded.length, recorded.file, f"{recorded.group}/{key}".strip("/"))


def open_hdf5(place: Path) -> DatasetReader:
    """Open a folder of HDF5 files, or one file."""
    recorded = find_episodes(place)
    rates = {episode.fps for episode in recorded}
    if len(rates) > 1:
        raise XvlaError(
            "the files below it are recorded at different rates",
            file=place,
            field="env_args",
            found=", ".join(sorted("no rate" if rate is None else f"{rate:g} Hz" for rate in rates)),
            hint="name the folder or file of one dataset",
        )
    return Hdf5Reader(place, recorded, read_features(recorded[0]), fps=rates.pop())


def read_features(recorded: Recorded) -> dict[str, FeatureInfo]:
    """What an episode holds, by path below its group."""
    content = open_file(recorded.file)
    try:
        with reading(recorded.file):
            group = content[recorded.group] if recorded.group else content
        found = datasets_below(group, recorded.file)
        described = {key: describe(dataset, recorded.length, recorded.file, key) for key, dataset in found.items()}
        return {key: feature for key, feature in described.items() if feature is not None}
    finally:
        content.close()


def detects_hdf5(place: Path) -> bool:
    """Whether the place is an HDF5 file, or a folder with nothing but such files to read."""
    files = hdf5_files(place) if place.exists() else []
    return bool(files) and is_hdf5(files[0]) and not (place / "meta" / "info.json").exists()


HDF5 = ReaderFactory(name="hdf5", open=open_hdf5, detects=detects_hdf5, takes="either")


def _raw(dataset: Any, wanted: NDArray[np.int64], file: Path, key: str) -> Images:
    """Raw pictures of ascending indices; a run of neighbours is one read."""
    if dataset.dtype != np.uint8 or 3 not in (dataset.shape[1], dataset.shape[3]):
        raise XvlaError("holds no pictures", file=file, field=key, found=f"{dataset.dtype} {list(dataset.shape)}")
    if int(np.prod(dataset.shape[1:], dtype=np.int64)) > LARGEST_PICTURE:
        raise XvlaError("pictures are too large", file=file, field=key, found=list(dataset.shape))
    with reading(file, f"'{key}'"):
        first, last = int(wanted[0]), int(wanted[-1])
        if len(wanted) == last - first + 1:
            array = dataset[first : last + 1]
        else:
            array = np.stack([dataset[int(index)] for index in wanted])
    return np.ascontiguousarray(array if array.shape[3] == 3 else np.moveaxis(array, 1, 3))


def _close(content: Any) -> None:
    content.close()
