"""What every dataset reader gives: metadata, low-dimensional columns and decoded camera frames, by episode.

In: a folder or a file (or a Hub dataset id, brought to a folder first). Out: numpy arrays in recorded units.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import real_path
from xvla_platform.platform.hub_errors import hub_errors
from xvla_platform.specs.embodiment import DatasetSpec

FloatArray = NDArray[np.float64]
Images = NDArray[np.uint8]
Frames = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class FeatureInfo:
    """One declared column or stream: `dtype` is `video` or `image` for cameras, else a numeric type."""

    dtype: str
    shape: tuple[int, ...]
    names: Any = None

    @property
    def is_camera(self) -> bool:
        return self.dtype in ("video", "image")

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels; both [H, W, C] and [C, H, W] declarations are in use."""
        named = {str(name): size for name, size in zip(self.names or (), self.shape, strict=False)}
        if {"height", "width"} <= named.keys():
            return named["height"], named["width"]
        if len(self.shape) == 3 and self.shape[0] in (1, 3, 4) and self.shape[2] not in (1, 3, 4):
            return self.shape[1], self.shape[2]
        padded = (*self.shape, 0, 0)
        return padded[0], padded[1]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """The dataset at a glance; `features` maps every key to its declaration.

    `fps` is None for a format that records no rate; then the declared `control_hz` is all there is.
    """

    fps: float | None
    features: Mapping[str, FeatureInfo]
    episodes: int
    frames: int
    robot_type: str | None = None


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One demonstration. `index` equals its place in `DatasetReader.episodes`; `instruction` may be empty."""

    index: int
    length: int
    instruction: str


class DatasetReader(Protocol):
    """Random access to recorded demonstrations. `episode` is always an `Episode.index`."""

    root: Path
    info: DatasetInfo
    episodes: list[Episode]

    def columns(self, episode: int, keys: Sequence[str]) -> dict[str, FloatArray]:
        """Each key's numbers, float64 [L, D] in recorded units (a scalar column becomes [L, 1])."""

    def timestamps(self, episode: int) -> FloatArray:
        """Recorded time of each frame since the start of the episode, [L] in seconds.

        All NaN where the format records neither times nor a rate: no time is made up.
        """

    def frames(self, episode: int, key: str, indices: Sequence[int] | NDArray[Any]) -> Images:
        """Exactly the frames asked for, in the order asked, RGB uint8 [N, H, W, 3]."""

    def fingerprint(self) -> str:
        """sha256 over names, sizes and contents of the dataset's files."""


@dataclass(frozen=True, kw_only=True)
class ReaderFactory:
    """A dataset format: its name in `dataset.format`, how to open a place, how to recognise one.

    `takes` says whether `dataset.path` names a folder, a file, or either.
    """

    name: str
    open: Callable[[Path], DatasetReader] = field(repr=False)
    detects: Callable[[Path], bool] = field(repr=False)
    takes: Literal["folder", "file", "either"] = "folder"


def open_dataset(factories: Iterable[ReaderFactory], format: str, place: Path) -> DatasetReader:
    """Open the folder or file `place` with the reader registered as `format`."""
    by_name = {factory.name: factory for factory in factories}
    if format not in by_name:
        raise XvlaError("unknown dataset format", field="dataset.format", found=format, allowed=by_name)
    factory = by_name[format]
    if not place.exists():
        kind = "folder or file" if factory.takes == "either" else factory.takes
        raise XvlaError(f"dataset {kind} not found", file=place, field="dataset.path")
    fits = factory.takes == "either" or place.is_dir() == (factory.takes == "folder")
    if not fits or not factory.detects(place):
        others = [name for name, other in by_name.items() if other is not factory and other.detects(place)]
        hint = f"it looks like format {others[0]}" if others else None
        if not fits and hint is None:
            hint = f"the format is read from a {factory.takes}"
        raise XvlaError(f"is not a dataset of format {format}", file=place, hint=hint)
    return factory.open(place)


def locate_dataset(spec: DatasetSpec, plugin_folder: Path) -> Path:
    """The local folder or file of a declared dataset; a Hub dataset is downloaded to the shared cache first."""
    if spec.path is not None:
        place = real_path(plugin_folder / spec.path, "dataset.path")
        if not place.exists():
            kind = "file" if place.suffix in (".json", ".hdf5", ".h5") else "folder"
            raise XvlaError(
                f"dataset {kind} not found",
                file=place,
                field="dataset.path",
                found=spec.path,
                hint="the path is taken from the plugin's folder: put or link the data there, or write where it lies",
            )
        return place
    from huggingface_hub import snapshot_download

    assert spec.repo is not None
    with hub_errors(spec.repo, spec.revision, "download the dataset"):
        return Path(snapshot_download(spec.repo, repo_type="dataset", revision=spec.revision))


# What readers share


def wanted_frames(reader: DatasetReader, episode: int, key: str, indices: Sequence[int] | NDArray[Any]) -> Frames:
    """The request for frames as an array [N], after a check of camera, episode and range."""
    feature = reader.info.features.get(key)
    if feature is None or not feature.is_camera:
        cameras = sorted(name for name, other in reader.info.features.items() if other.is_camera)
        raise XvlaError("is not a camera of the dataset", file=reader.root, field=key, allowed=cameras)
    wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
    length = require_episode(reader, episode).length
    if len(wanted) and (wanted.min() < 0 or wanted.max() >= length):
        raise XvlaError(
            f"episode {episode} has no such frame",
            file=reader.root,
            found=f"{wanted.min()}..{wanted.max()}",
            allowed=f"0..{length - 1}",
        )
    return wanted


def require_episode(reader: DatasetReader, episode: int) -> Episode:
    """The episode of that index, or an error that says which exist."""
    if not 0 <= episode < len(reader.episodes):
        raise XvlaError("no such episode", file=reader.root, found=episode, allowed=f"0..{len(reader.episodes) - 1}")
    return reader.episodes[episode]


def no_frames(feature: FeatureInfo) -> Images:
    """The answer to a request for no frame: [0, H, W, 3]."""
    return np.zeros((0, *feature.image_size, 3), dtype=np.uint8)


def fingerprint_files(root: Path, files: Iterable[Path]) -> str:
    """sha256 over the names below `root`, sizes and contents of `files`."""
    digest = hashlib.sha256()
    named = {path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name: path for path in files}
    for name in sorted(named):
        try:
            with named[name].open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            digest.update(f"{name}\0{named[name].stat().st_size}\0{content}\n".encode())
        except OSError as error:
            raise XvlaError(f"cannot be read: {error.strerror}", file=named[name]) from None
    return digest.hexdigest()


def require_inside(root: Path, file: Path) -> Path:
    """`file`, unless a link takes it out of the dataset: a downloaded folder must not reach into the disk.

    The Hub's cache is the one exception: there each file of a snapshot links to a neighbouring `blobs` folder.
    """
    home, real = real_path(root), real_path(file)
    blobs = home.parent.parent / "blobs"
    if real.is_relative_to(home) or (home.parent.name == "snapshots" and real.is_relative_to(blobs)):
        return file
    raise XvlaError("a link leads out of the dataset", file=file, found=str(real), hint="copy the file there")
