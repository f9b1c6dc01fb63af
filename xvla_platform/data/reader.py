"""What every dataset reader gives: metadata, low-dimensional columns and decoded camera frames, by episode.

In: a folder (or a Hub dataset id, brought to a folder first). Out: numpy arrays in recorded units.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xvla_platform.errors import XvlaError
from xvla_platform.platform.hub_errors import hub_errors
from xvla_platform.specs.embodiment import DatasetSpec

FloatArray = NDArray[np.float64]
Images = NDArray[np.uint8]


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
        """Recorded time of each frame since the start of the episode, [L] in seconds."""

    def frames(self, episode: int, key: str, indices: Sequence[int] | NDArray[Any]) -> Images:
        """Exactly the frames asked for, in the order asked, RGB uint8 [N, H, W, 3]."""

    def fingerprint(self) -> str:
        """sha256 over names, sizes and contents of the dataset's files."""


@dataclass(frozen=True, kw_only=True)
class ReaderFactory:
    """A dataset format: its name in `dataset.format`, how to open a folder, how to recognise one."""

    name: str
    open: Callable[[Path], DatasetReader] = field(repr=False)
    detects: Callable[[Path], bool] = field(repr=False)


def open_dataset(factories: Iterable[ReaderFactory], format: str, folder: Path) -> DatasetReader:
    """Open `folder` with the reader registered as `format`."""
    by_name = {factory.name: factory for factory in factories}
    if format not in by_name:
        raise XvlaError("unknown dataset format", field="dataset.format", found=format, allowed=by_name)
    if not folder.is_dir():
        raise XvlaError("dataset folder not found", file=folder, field="dataset.path")
    factory = by_name[format]
    if not factory.detects(folder):
        others = [name for name, other in by_name.items() if other.detects(folder)]
        hint = f"it looks like format {others[0]}" if others else None
        raise XvlaError(f"is not a dataset of format {format}", file=folder, hint=hint)
    return factory.open(folder)


def locate_dataset(spec: DatasetSpec, plugin_folder: Path) -> Path:
    """The local folder of a declared dataset; a Hub dataset is downloaded to the shared cache first."""
    if spec.path is not None:
        folder = (plugin_folder / spec.path).resolve()
        if not folder.is_dir():
            raise XvlaError("dataset folder not found", file=folder, field="dataset.path", found=spec.path)
        return folder
    from huggingface_hub import snapshot_download

    assert spec.repo is not None
    with hub_errors(spec.repo, spec.revision, "download the dataset"):
        return Path(snapshot_download(spec.repo, repo_type="dataset", revision=spec.revision))
