"""The example robot's recording with its frames kept in memory, and readers that change what its cameras show."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from xvla_platform.check.findings import CheckContext
from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.reader import DatasetInfo, Episode
from xvla_platform.measure.recording import load_recording
from xvla_platform.specs.embodiment import EmbodimentSpec

PLUGIN = Path(__file__).parent.parent / "plugins" / "my_arm"
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
EPISODES = 30
Change = Callable[[Any, int, str, np.ndarray], np.ndarray]


@cache
def example_spec() -> EmbodimentSpec:
    return EmbodimentSpec.model_validate(yaml.safe_load((PLUGIN / "plugin.yaml").read_text()))


class Kept:
    """The first episodes of the example recording; each is decoded once for all tests."""

    def __init__(self) -> None:
        self._reader = open_lerobot(PLUGIN / "demonstrations")
        self.root, self.info = self._reader.root, self._reader.info
        self.episodes = self._reader.episodes[:EPISODES]
        self._frames: dict[tuple[int, str], np.ndarray] = {}

    def columns(self, episode: int, keys: Any) -> Any:
        return self._reader.columns(episode, keys)

    def timestamps(self, episode: int) -> Any:
        return self._reader.timestamps(episode)

    def fingerprint(self) -> str:
        return self._reader.fingerprint()

    def frames(self, episode: int, key: str, indices: Any) -> np.ndarray:
        if (episode, key) not in self._frames:
            length = self.episodes[episode].length
            self._frames[episode, key] = self._reader.frames(episode, key, np.arange(length))
        return self._frames[episode, key][np.asarray(indices)]


@dataclass
class Changed:
    """A recording whose frames are changed: of some episodes, or of one camera, or of all."""

    inner: Kept
    change: Change
    episodes_changed: tuple[int, ...] | None = None
    key: str | None = None
    episodes: list[Episode] | None = None

    def __post_init__(self) -> None:
        self.episodes = self.episodes or self.inner.episodes

    @property
    def root(self) -> Path:
        return self.inner.root

    @property
    def info(self) -> DatasetInfo:
        return self.inner.info

    def columns(self, episode: int, keys: Any) -> Any:
        return self.inner.columns(episode, keys)

    def timestamps(self, episode: int) -> Any:
        return self.inner.timestamps(episode)

    def fingerprint(self) -> str:
        return self.inner.fingerprint()

    def frames(self, episode: int, key: str, indices: Any) -> np.ndarray:
        concerned = self.episodes_changed is None or episode in self.episodes_changed
        if concerned and self.key in (None, key):
            return self.change(self.inner, episode, key, np.asarray(indices))
        return self.inner.frames(episode, key, indices)


@cache
def kept() -> Kept:
    return Kept()


def mirrored(reader: Any, episode: int, key: str, indices: np.ndarray) -> np.ndarray:
    return reader.frames(episode, key, indices)[:, :, ::-1]


def upended(reader: Any, episode: int, key: str, indices: np.ndarray) -> np.ndarray:
    return reader.frames(episode, key, indices)[:, ::-1]


def black(reader: Any, episode: int, key: str, indices: np.ndarray) -> np.ndarray:
    return reader.frames(episode, key, indices) // 50


def white(reader: Any, episode: int, key: str, indices: np.ndarray) -> np.ndarray:
    return np.full_like(reader.frames(episode, key, indices), 255)


def frozen(reader: Any, episode: int, key: str, indices: np.ndarray) -> np.ndarray:
    return reader.frames(episode, key, np.minimum(indices, 4))


def slow(reader: Any, episode: int, key: str, indices: np.ndarray) -> np.ndarray:
    return reader.frames(episode, key, indices // 3 * 3)


def swapped(reader: Any, episode: int, key: str, indices: np.ndarray) -> np.ndarray:
    return reader.frames(episode, WRIST if key == FRONT else FRONT, indices)


def copied(reader: Any, episode: int, key: str, indices: np.ndarray) -> np.ndarray:
    return reader.frames(episode, FRONT, indices)


def bgr(reader: Any, episode: int, key: str, indices: np.ndarray) -> np.ndarray:
    return reader.frames(episode, key, indices)[..., ::-1]


def late(frames: int) -> Change:
    def change(reader: Any, episode: int, key: str, indices: np.ndarray) -> np.ndarray:
        return reader.frames(episode, key, np.clip(indices - frames, 0, reader.episodes[episode].length - 1))

    return change


def context(
    change: Change | None = None,
    *,
    episodes: tuple[int, ...] | None = None,
    key: str | None = None,
    spec: EmbodimentSpec | None = None,
) -> CheckContext:
    """What checks see of the example recording after a change."""
    spec = spec or example_spec()
    reader: Any = kept() if change is None else Changed(kept(), change, episodes, key)
    return CheckContext(spec=spec, reader=reader, recording=load_recording(reader, spec))


def camera(name: str, **changes: Any) -> EmbodimentSpec:
    """The example's declaration with other words for one camera."""
    spec = example_spec()
    cameras = tuple(one.model_copy(update=changes) if one.name == name else one for one in spec.cameras)
    return spec.model_copy(update={"cameras": cameras})
