"""Recordings in memory for the tests of the scaffold, and the comparison of a draft with a hand-written plugin."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conftest import REPOSITORY

from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.reader import DatasetInfo, DatasetReader, Episode, FeatureInfo
from xvla_platform.errors import XvlaError
from xvla_platform.measure.guess import Guess
from xvla_platform.measure.recording import sampled_episodes
from xvla_platform.scaffold.draft import state_of
from xvla_platform.scaffold.sources import Source

STATE, ACTION = "observation.state", "action"
COMPARED = ("unit", "format", "reference", "axes", "open", "closed")


class Recorded:
    """A `DatasetReader` over columns held in memory: one mapping of key to [L, D] an episode."""

    def __init__(
        self, columns: Sequence[Mapping[str, np.ndarray]], names: Mapping[str, Any], fps: float | None
    ) -> None:
        self.root = Path("memory")
        self._columns = list(columns)
        lengths = [len(next(iter(episode.values()))) for episode in columns]
        self.episodes = [Episode(index=i, length=n, instruction="lift it") for i, n in enumerate(lengths)]
        features = {
            key: FeatureInfo(dtype="float32", shape=(values.shape[1],), names=names.get(key))
            for key, values in columns[0].items()
        }
        self.info = DatasetInfo(fps=fps, features=features, episodes=len(lengths), frames=sum(lengths))

    def columns(self, episode: int, keys: Sequence[str]) -> dict[str, np.ndarray]:
        return {key: np.asarray(self._columns[episode][key], dtype=np.float64) for key in keys}

    def timestamps(self, episode: int) -> np.ndarray:
        length = self.episodes[episode].length
        return np.arange(length) / self.info.fps if self.info.fps else np.full(length, np.nan)

    def frames(self, episode: int, key: str, indices: Any) -> np.ndarray:
        raise XvlaError("is not a camera of the dataset", field=key)

    def fingerprint(self) -> str:
        return "0" * 64


def source_of(
    columns: Sequence[Mapping[str, np.ndarray]], names: Mapping[str, Any] | None = None, *, fps: float | None = 20.0
) -> Source:
    """A source over numbers in memory, without cameras."""
    reader = Recorded(columns, names or {}, fps)
    return Source(label="a test", format="lerobot", features=reader.info.features, reader=reader)


def recorded(robot: str) -> Source:
    """The demonstrations of a simulated robot of this repository."""
    folder = REPOSITORY / "plugins" / robot / "demonstrations"
    reader = open_lerobot(folder)
    return Source(
        label="demonstrations", format="lerobot", features=reader.info.features, reader=reader, place=folder.resolve()
    )


def bare(source: Source, *, names: bool, cameras: bool = False) -> Source:
    """The same recording with fewer clues: without the names of its numbers, or without its cameras."""
    features = {
        key: feature if names or feature.is_camera else replace(feature, names=None)
        for key, feature in source.features.items()
        if cameras or not feature.is_camera
    }
    return replace(source, features=features)


def numbers(robot: str, keys: Sequence[str] = (STATE, ACTION), episodes: int = 20) -> list[dict[str, np.ndarray]]:
    """Columns of some episodes of a simulated robot."""
    reader: DatasetReader = open_lerobot(REPOSITORY / "plugins" / robot / "demonstrations")
    return [reader.columns(index, keys) for index in sampled_episodes(len(reader.episodes), episodes, 0)]


def differences(draft: Mapping[str, Any], truth: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """(written and wrong, written and right, left blank) of a draft against a hand-written plugin.

    Fields, sizes and keys are compared too; a value that is marked `check:` counts as written.
    """
    wrong, right, blank = [], [], []
    for vector in ("proprio", "action"):
        found, told = draft[vector]["fields"], truth[vector]["fields"]
        default = draft[vector].get("key")
        shapes = [(f["size"], f.get("key", default)) for f in found]
        expected = [(f["size"], f.get("key", truth[vector].get("key"))) for f in told]
        if shapes != expected:
            unknown = len(found) == 1 and found[0]["kind"].value is None
            (blank if unknown else wrong).append(f"{vector}.fields: {shapes}, not {expected}")
            continue
        for field, real in zip(found, told, strict=True):
            for name in ("kind", *COMPARED):
                place = f"{vector}.{real['name']}.{name}"
                guess, value = field.get(name), real.get(name)
                if guess is None or not isinstance(guess, Guess):
                    if (guess or value) is not None:
                        wrong.append(f"{place}: missing, {value} expected")
                elif state_of(guess) == "blank":
                    blank.append(place)
                elif _same(guess.value, value):
                    right.append(place)
                else:
                    wrong.append(f"{place}: {guess.value} ({guess.confidence:.2f}), not {value}: {guess.evidence}")
    return wrong, right, blank


def _same(found: Any, told: Any) -> bool:
    if isinstance(found, float) and isinstance(told, (int, float)):
        return abs(found - told) <= 0.02 * max(1e-6, abs(told), 0.02)
    return bool(found == told)
