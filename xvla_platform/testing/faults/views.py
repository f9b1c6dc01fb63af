"""Readers that answer as another recording would: other numbers, rows, times, images or words, the same files.

Each view changes one thing and passes the rest on, so views can be laid over each other. They obey the reader's
protocol: random access, any order, equal answers to equal questions.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.reader import (
    DatasetReader,
    Episode,
    FeatureInfo,
    FloatArray,
    Images,
    require_episode,
    wanted_frames,
)
from xvla_platform.data.vectors import read_vectors, split_vector
from xvla_platform.specs.embodiment import EmbodimentSpec

Vectors = dict[str, FloatArray]
Rows = NDArray[np.int64]


class View:
    """A dataset as it is; the base of the views that change something."""

    def __init__(self, source: DatasetReader) -> None:
        self.source = source
        self.root = source.root
        self.info = source.info
        self.episodes = list(source.episodes)

    def columns(self, episode: int, keys: Sequence[str]) -> dict[str, FloatArray]:
        """Each key's numbers, float64 [L, D]."""
        return self.source.columns(episode, keys)

    def timestamps(self, episode: int) -> FloatArray:
        """Time of each frame since the start of the episode, [L] in seconds."""
        return self.source.timestamps(episode)

    def frames(self, episode: int, key: str, indices: Sequence[int] | NDArray[Any]) -> Images:
        """The frames asked for, in that order, RGB uint8 [N, H, W, 3]."""
        return self.source.frames(episode, key, indices)

    def fingerprint(self) -> str:
        """That of the source, told apart by what the view changes."""
        return hashlib.sha256(f"{type(self).__name__} {self.source.fingerprint()}".encode()).hexdigest()


class NumbersView(View):
    """Other numbers in the declared vectors, which may be wider or narrower than the recorded ones.

    `edit(episode, {"proprio": [L, P], "action": [L, A]})` gives the vectors as `after` declares them.
    """

    def __init__(
        self,
        source: DatasetReader,
        before: EmbodimentSpec,
        edit: Callable[[int, Vectors], Vectors],
        after: EmbodimentSpec | None = None,
    ) -> None:
        super().__init__(source)
        self._before, self._edit, self._after = before, edit, after or before
        self._kept: tuple[int, dict[str, FloatArray]] = (-1, {})
        features: dict[str, FeatureInfo] = dict(source.info.features)
        for vector in (self._after.proprio, self._after.action):
            for key, fields in vector.columns().items():
                width = sum(field.size for field in fields)
                if tuple(features[key].shape) != (width,):
                    features[key] = FeatureInfo(dtype=features[key].dtype, shape=(width,))
        self.info = replace(source.info, features=features)

    def columns(self, episode: int, keys: Sequence[str]) -> dict[str, FloatArray]:
        """Each key's numbers, float64 [L, D]."""
        changed = self._changed(episode)
        rest = self.source.columns(episode, [key for key in keys if key not in changed])
        return {key: changed[key].copy() if key in changed else rest[key] for key in keys}

    def _changed(self, episode: int) -> dict[str, FloatArray]:
        if self._kept[0] != episode:
            pairs = (("proprio", self._before.proprio), ("action", self._before.action))
            vectors = self._edit(episode, read_vectors(self.source, episode, pairs))
            columns = split_vector(self._after.action, vectors["action"])
            columns |= split_vector(self._after.proprio, vectors["proprio"])
            self._kept = (episode, columns)
        return self._kept[1]


class RowsView(View):
    """Other rows: each episode is a sequence of rows of some recorded episode, dropped, repeated or cut.

    Rows bring their numbers and images with them. Times are those of the kept rows, or, with `renumbered`, even
    ones at the recorded rate, as a converter writes them that counts frames.
    """

    def __init__(self, source: DatasetReader, cuts: Sequence[tuple[int, Rows]], *, renumbered: bool) -> None:
        super().__init__(source)
        self._cuts, self._renumbered = list(cuts), renumbered
        self.episodes = [
            Episode(index=place, length=len(rows), instruction=source.episodes[origin].instruction)
            for place, (origin, rows) in enumerate(self._cuts)
        ]
        frames = sum(len(rows) for _, rows in self._cuts)
        self.info = replace(source.info, episodes=len(self._cuts), frames=frames)

    def columns(self, episode: int, keys: Sequence[str]) -> dict[str, FloatArray]:
        """Each key's numbers, float64 [L, D]."""
        origin, rows = self._cut(episode)
        return {key: values[rows] for key, values in self.source.columns(origin, keys).items()}

    def timestamps(self, episode: int) -> FloatArray:
        """Time of each frame since the start of the episode, [L] in seconds."""
        origin, rows = self._cut(episode)
        times = self.source.timestamps(origin)
        if self._renumbered:
            tick = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
            return np.asarray(np.arange(len(rows)) * tick, dtype=np.float64)
        return times[rows] - times[rows[0]]

    def frames(self, episode: int, key: str, indices: Sequence[int] | NDArray[Any]) -> Images:
        """The frames asked for, in that order, RGB uint8 [N, H, W, 3]."""
        origin, rows = self._cut(episode)
        return self.source.frames(origin, key, rows[wanted_frames(self, episode, key, indices)])

    def _cut(self, episode: int) -> tuple[int, Rows]:
        return self._cuts[require_episode(self, episode).index]


class TimesView(View):
    """Other timestamps; `edit(episode, times [L])` gives times [L]."""

    def __init__(self, source: DatasetReader, edit: Callable[[int, FloatArray], FloatArray]) -> None:
        super().__init__(source)
        self._edit = edit

    def timestamps(self, episode: int) -> FloatArray:
        """Time of each frame since the start of the episode, [L] in seconds."""
        return self._edit(episode, self.source.timestamps(episode))


class ImagesView(View):
    """Other images: `look(episode, key, indices [N])` says which stream and frames are shown, and `paint` changes them.

    `paint(episode, key, indices [N], images [N, H, W, 3])` gives images of the same shape.
    """

    def __init__(
        self,
        source: DatasetReader,
        *,
        look: Callable[[int, str, Rows], tuple[str, Rows]] | None = None,
        paint: Callable[[int, str, Rows, Images], Images] | None = None,
    ) -> None:
        super().__init__(source)
        self._look, self._paint = look, paint

    def frames(self, episode: int, key: str, indices: Sequence[int] | NDArray[Any]) -> Images:
        """The frames asked for, in that order, RGB uint8 [N, H, W, 3]."""
        wanted = wanted_frames(self, episode, key, indices)
        shown, rows = (key, wanted) if self._look is None else self._look(episode, key, wanted)
        images = self.source.frames(episode, shown, rows)
        return images if self._paint is None else self._paint(episode, key, wanted, images)


class WordsView(View):
    """Other instructions, by episode."""

    def __init__(self, source: DatasetReader, instructions: Mapping[int, str]) -> None:
        super().__init__(source)
        self.episodes = [
            replace(episode, instruction=instructions.get(episode.index, episode.instruction))
            for episode in source.episodes
        ]
