"""A dataset as training samples: (frame, proprio, chunk of targets, instruction) behind a flat index.

Low-dimensional columns are small and held in memory; frames are decoded when asked for.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.binding import Binding, ModelArray
from xvla_platform.data.canonical import Trajectory, absolute_targets
from xvla_platform.data.images import read_frames
from xvla_platform.data.reader import DatasetReader, FloatArray, Images
from xvla_platform.data.resampling import idle_frames, sample_chunks, usable_frames
from xvla_platform.data.vectors import read_vectors
from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import DatasetSpec, EmbodimentSpec

Indices = Sequence[int] | NDArray[Any]
SPLIT_SEED = 0  # the split belongs to the dataset, not to the run: versions stay comparable


class Samples:
    """The usable frames of some episodes, in order of episode and frame.

    Attributes:
        episode_of: [N] episode index of each sample.
        frame_of: [N] frame of each sample within its episode.
    """

    def __init__(
        self,
        reader: DatasetReader,
        spec: EmbodimentSpec,
        binding: Binding,
        episodes: Sequence[int],
        num_actions: int,
    ) -> None:
        """`episodes` are indices into `reader.episodes`; `num_actions` is T, the anchors of a chunk."""
        self.reader = reader
        self.spec = spec
        self.binding = binding
        self.num_actions = num_actions
        self._states: dict[int, FloatArray] = {}
        self._trajectories: dict[int, Trajectory] = {}
        episode_of, frame_of = [], []
        for episode in episodes:
            vectors = read_vectors(reader, episode, (("proprio", spec.proprio), ("action", spec.action)))
            self._states[episode] = vectors["proprio"]
            try:
                self._trajectories[episode] = binding.targets(vectors["proprio"], vectors["action"])
            except XvlaError as error:
                raise XvlaError(f"episode {episode}: {error}", file=reader.root) from None
            frames = starting_frames(spec, vectors["proprio"], vectors["action"])
            episode_of.append(np.full(len(frames), episode, dtype=np.int64))
            frame_of.append(frames)
        if not sum(map(len, frame_of)):
            raise XvlaError("no usable frame in the chosen episodes", file=reader.root, hint=_cuts(spec.dataset))
        self.episode_of: NDArray[np.int64] = np.concatenate(episode_of)
        self.frame_of: NDArray[np.int64] = np.concatenate(frame_of)

    def __len__(self) -> int:
        return len(self.frame_of)

    def raw_state(self, indices: Indices) -> FloatArray:
        """Recorded states [n, P] in the dataset's own units."""
        chosen = np.asarray(indices, dtype=np.int64)
        out = np.zeros((len(chosen), self.spec.proprio.size))
        for episode, places in self._by_episode(chosen):
            out[places] = self._states[episode][self.frame_of[chosen[places]]]
        return out

    def proprio(self, indices: Indices) -> ModelArray:
        """Model proprio, float32 [n, dim]."""
        return self.binding.proprio(self.raw_state(indices))

    def chunks(self, indices: Indices) -> ModelArray:
        """Target chunks, float32 [n, T, dim]."""
        chosen = np.asarray(indices, dtype=np.int64)
        out = np.zeros((len(chosen), self.num_actions, self.binding.space.dim), dtype=np.float32)
        for episode, places in self._by_episode(chosen):
            sampled = sample_chunks(
                self._trajectories[episode],
                self.frame_of[chosen[places]],
                self.spec.control_hz,
                self.spec.horizon_s,
                self.num_actions,
                self.spec.dataset.tail,
                self.spec.action.timing,
            )
            out[places] = self.binding.encode(sampled)
        return out

    def instruction(self, index: int) -> str:
        """The language command of the sample's episode."""
        return self.reader.episodes[int(self.episode_of[index])].instruction

    def images(self, indices: Indices, *, as_recorded: bool = False) -> list[Images]:
        """Per ordered camera (main view first) the samples' frames as the model sees them, RGB uint8 [n, H, W, 3].

        `as_recorded` gives them as the robot sends them, without the declared flip and order of colours.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        views = []
        for camera in self.spec.ordered_cameras:
            out = np.zeros((len(chosen), *camera.resolution, 3), dtype=np.uint8)
            for episode, places in self._by_episode(chosen):
                wanted = self.frame_of[chosen[places]]
                out[places] = read_frames(self.reader, episode, camera, wanted, as_recorded=as_recorded)
            views.append(out)
        return views

    def footage(self) -> str:
        """sha256 over what `images` of all samples depends on beside the dataset: cameras, and frames in order."""
        views = [[camera.key, camera.flip, camera.channels] for camera in self.spec.ordered_cameras]
        digest = hashlib.sha256(json.dumps(views).encode())
        digest.update(self.episode_of.tobytes() + self.frame_of.tobytes())
        return digest.hexdigest()

    def _by_episode(self, chosen: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
        """(episode, places in `chosen`) in order of episode, so that a video is opened and read once."""
        episodes = self.episode_of[chosen]
        return [(int(episode), np.flatnonzero(episodes == episode)) for episode in np.unique(episodes)]


def starting_frames(spec: EmbodimentSpec, state: FloatArray, action: FloatArray) -> NDArray[np.int64]:
    """Frames of an episode that a chunk starts from, of its recorded states [L, P] and actions [L, A]."""
    cut, timing = spec.dataset, spec.action.timing
    frames = usable_frames(len(state), cut.tail, timing, cut.tail_margin)
    if cut.skip_idle is not None:
        # Judged by the recorded quantities, so that a robot has the same idle frames over every base.
        frames = frames[~idle_frames(absolute_targets(spec, state, action), cut.skip_idle, timing)[frames]]
    return frames


def _cuts(cut: DatasetSpec) -> str | None:
    """What the declaration leaves out of an episode, for the message when nothing is left."""
    parts = [f"dataset.tail_margin is {cut.tail_margin} frames"] if cut.tail_margin else []
    parts += ["dataset.skip_idle leaves out frames that do not move"] if cut.skip_idle is not None else []
    return "; ".join(parts) or None


def training_episodes(count: int, held_out: float) -> tuple[int, ...]:
    """The episodes of a dataset that training sees: the same for every run and for the statistics."""
    return split_episodes(count, held_out, SPLIT_SEED)[0]


def split_episodes(count: int, held_out: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Episodes 0..count-1 as (train, validation, test), the same for the same seed.

    A share `held_out` is kept out of training, half of it for each purpose, at least one episode each; an odd
    one goes to the test. Whole episodes are split, as neighbouring frames are nearly equal.
    """
    if count < 3:
        raise XvlaError(
            "too few episodes to train, choose a checkpoint and measure on separate ones",
            field="dataset",
            found=count,
            allowed="3 or more",
            hint="record more demonstrations",
        )
    held = min(max(2, round(count * held_out)), count - 1)
    order = np.random.default_rng(seed).permutation(count).tolist()
    validation, test, train = order[: held // 2], order[held // 2 : held], order[held:]
    return tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(test))
