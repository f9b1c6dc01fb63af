"""What measures look at: the low-dimensional numbers of some episodes, in recorded units.

In: an open reader and a declaration. Out: a `Recording`. Camera frames are not part of it; whoever measures
them reads them from `recording.reader`, for `recording.episodes` only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xvla_platform.data.reader import DatasetReader, FloatArray
from xvla_platform.data.vectors import read_vectors
from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import EmbodimentSpec

MAX_EPISODES = 60


@dataclass(frozen=True, kw_only=True)
class EpisodeData:
    """One episode's numbers, as recorded.

    Attributes:
        index: The reader's episode index.
        proprio: [L, P] in declared order.
        action: [L, A] in declared order.
        timestamps: [L] in seconds.
    """

    index: int
    length: int
    instruction: str
    proprio: FloatArray
    action: FloatArray
    timestamps: FloatArray


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Some episodes of a dataset, chosen at random but the same for the same seed.

    Attributes:
        hz: Frames per second, as recorded, else as declared.
        episodes: In the order of their indices; those that could not be read are left out.
        faults: Why episodes could not be read.
    """

    spec: EmbodimentSpec
    reader: DatasetReader
    hz: float
    episodes: tuple[EpisodeData, ...]
    faults: tuple[XvlaError, ...] = ()

    def column(self, vector: str, field: str) -> list[FloatArray]:
        """Per episode, the recorded numbers [L, size] of one field of `proprio` or `action`."""
        declared = self.spec.proprio if vector == "proprio" else self.spec.action
        slot = declared.slices()[field]
        return [getattr(episode, vector)[:, slot] for episode in self.episodes]

    def vector(self, name: str) -> list[FloatArray]:
        """Per episode, the whole of `proprio` [L, P] or `action` [L, A]."""
        return [getattr(episode, name) for episode in self.episodes]


def load_recording(
    reader: DatasetReader,
    spec: EmbodimentSpec,
    *,
    max_episodes: int = MAX_EPISODES,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Recording:
    """The numbers of at most `max_episodes` episodes; what cannot be read becomes one of `faults`.

    `progress` is called with 1 for each episode read.
    """
    episodes, faults = [], []
    for index in sampled_episodes(len(reader.episodes), max_episodes, seed):
        try:
            episodes.append(_read(reader, spec, index))
        except XvlaError as error:
            faults.append(error)
        if progress is not None:
            progress(1)
    return Recording(
        spec=spec,
        reader=reader,
        hz=reader.info.fps or spec.control_hz,
        episodes=tuple(episodes),
        faults=tuple(faults),
    )


def sampled_episodes(count: int, wanted: int, seed: int) -> list[int]:
    """At most `wanted` of `count` episode indices, ascending; the first and the last are always among them."""
    if count <= wanted:
        return list(range(count))
    ends = [0, count - 1][:wanted]
    between = np.random.default_rng(seed).choice(np.arange(1, count - 1), size=wanted - len(ends), replace=False)
    return sorted({*ends, *(int(index) for index in between)})


def _read(reader: DatasetReader, spec: EmbodimentSpec, index: int) -> EpisodeData:
    vectors = read_vectors(reader, index, (("proprio", spec.proprio), ("action", spec.action)))
    episode = reader.episodes[index]
    return EpisodeData(
        index=episode.index,
        length=len(vectors["proprio"]),
        instruction=episode.instruction,
        proprio=vectors["proprio"],
        action=vectors["action"],
        timestamps=np.asarray(reader.timestamps(index), dtype=np.float64),
    )
