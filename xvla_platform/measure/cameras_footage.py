"""A sample of camera frames, small, beside the motion of the hand: what every camera measure looks at.

In: an open reader, the camera keys, and per episode where the hands were. Out: `Footage`: a few stills of each
episode in colour, and clips of consecutive frames in grey. Frames are decoded once for all measures.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from xvla_platform.data.canonical import to_canonical
from xvla_platform.data.reader import DatasetReader, FloatArray, Images
from xvla_platform.errors import XvlaError
from xvla_platform.measure.recording import Recording

Grey = NDArray[np.float32]

STILLS = 6  # of each episode, first and last among them
STILL_SIDE = 64  # px of the longer side
CLIP_SIDE = 32
LEAST_SIDE = 8  # px, of however long an image
CLIP_FRAMES = 30  # consecutive frames of one episode
CLIP_BUDGET = 1800  # frames a camera at 256 x 256 px and below; fewer where a frame is larger
MIN_CLIPS = 12
TURN_ARM_M = 0.1  # metres of motion that a turn of 1 rad counts for


@dataclass(frozen=True, kw_only=True)
class Hand:
    """One arm through one episode.

    Attributes:
        numbers: [L, n] anything that changes when the arm moves: poses or joints, in any unit.
        position: [L, 3] of the tool in a fixed frame, in any unit of length; None where it is not known.
        rotation: [L, 3, 3] of the tool in that frame; None where it is not known.
    """

    numbers: FloatArray
    position: FloatArray | None = None
    rotation: FloatArray | None = None

    def steps(self, axes: str) -> FloatArray | None:
        """Motion between frames [L - 1, n], along the axes of the `frame` or of the `tool`, or of `numbers`."""
        if axes == "numbers":
            return np.diff(self.numbers, axis=0)
        if self.position is None or (axes == "tool" and self.rotation is None):
            return None
        moved = np.diff(self.position, axis=0)
        if self.rotation is None:
            return moved
        before, after = self.rotation[:-1], self.rotation[1:]
        if axes == "tool":
            moved = np.einsum("lji,lj->li", before, moved)
            turned = Rotation.from_matrix(np.swapaxes(before, 1, 2) @ after).as_rotvec()
        else:
            turned = Rotation.from_matrix(after @ np.swapaxes(before, 1, 2)).as_rotvec()
        return np.concatenate([moved, TURN_ARM_M * turned], axis=1)


Hands = Mapping[int, tuple[Hand, ...]]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Consecutive frames of one episode from frame `start` on: grey float32 [m, h, w], 0 to 255."""

    start: int
    images: Grey


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What was looked at of one camera.

    Attributes:
        sizes: Episode to recorded (height, width) in pixels.
        moments: Episode to the frame indices of its stills [n].
        stills: Episode to RGB uint8 [n, h, w, 3], `STILL_SIDE` px on the longer side.
        clips: Episode to its clip; not every episode has one.
        faults: Episode to why its frames could not be read.
    """

    key: str
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    moments: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    stills: dict[int, Images] = field(default_factory=dict)
    clips: dict[int, Clip] = field(default_factory=dict)
    faults: dict[int, XvlaError] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Footage:
    """Every camera's stream, and the hands in each of the episodes looked at."""

    streams: dict[str, Stream]
    hands: Hands
    instructions: dict[int, str]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.streams)


def hands_of(recording: Recording) -> dict[int, tuple[Hand, ...]]:
    """Each arm of each recorded episode, from the declared proprio; one of all numbers where no pose is declared."""
    spec, slices = recording.spec, recording.spec.proprio.slices()
    out: dict[int, tuple[Hand, ...]] = {}
    for episode in recording.episodes:
        hands = []
        for arm in ("left", "right"):
            fields = {part.kind: part for part in spec.proprio.fields if part.arm == arm}
            if "position" not in fields or fields["position"].frame not in ("base", "world"):
                continue
            position = to_canonical(fields["position"], episode.proprio[:, slices[fields["position"].name]])
            rotation = None
            if "rotation" in fields and fields["rotation"].frame in ("base", "world"):
                try:
                    rotation = to_canonical(fields["rotation"], episode.proprio[:, slices[fields["rotation"].name]])
                except XvlaError:
                    rotation = None  # another check says so; positions alone still tell much
            hands.append(Hand(numbers=position, position=position, rotation=rotation))
        used = [slices[part.name] for part in spec.proprio.fields if part.kind not in ("ignored", "gripper")]
        if not hands and used:
            hands.append(Hand(numbers=np.concatenate([episode.proprio[:, slot] for slot in used], axis=1)))
        whole = len(episode.proprio) == recording.reader.episodes[episode.index].length
        if whole and hands and all(np.isfinite(hand.numbers).all() for hand in hands):
            out[episode.index] = tuple(hands)
    return out


def look(reader: DatasetReader, keys: Sequence[str], hands: Hands, *, quick: bool = False) -> Footage:
    """Decode the frames that measures need, of the episodes in `hands`; what cannot be read is kept as a fault.

    `quick` looks at a third of the frames.
    """
    streams: dict[str, Stream] = {}
    episodes = sorted(hands)
    for key in keys:
        stream = streams[key] = Stream(key=key)
        with_clip: set[int] = set()
        for place, episode in enumerate(episodes):
            length = reader.episodes[episode].length
            moments = np.unique(np.linspace(0, length - 1, STILLS // 2 if quick else STILLS).round().astype(np.int64))
            try:
                frames = reader.frames(episode, key, moments)
                if place == 0 or not with_clip:
                    with_clip = _with_clip(episodes, frames.shape[1:3], quick)
                stream.sizes[episode] = (int(frames.shape[1]), int(frames.shape[2]))
                stream.moments[episode], stream.stills[episode] = moments, shrink(frames, STILL_SIDE)
                if episode in with_clip and length > 2:
                    start, stop = _busiest(hands[episode], length, episode)
                    images = _grey(shrink(reader.frames(episode, key, np.arange(start, stop)), CLIP_SIDE))
                    stream.clips[episode] = Clip(start=start, images=images)
            except XvlaError as error:
                stream.faults[episode] = error
    return Footage(
        streams=streams,
        hands=hands,
        instructions={episode: reader.episodes[episode].instruction for episode in episodes},
    )


def shrink(frames: Images, side: int) -> Images:
    """Frames [N, H, W, 3] with `side` px on the longer side, each new pixel the mean of the ones it covers."""
    height, width = frames.shape[1:3]
    scale = side / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(frames)
    size = (max(LEAST_SIDE, round(width * scale)), max(LEAST_SIDE, round(height * scale)))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in frames])


def _grey(frames: Images) -> Grey:
    return frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _with_clip(episodes: list[int], size: tuple[int, ...], quick: bool) -> set[int]:
    """Episodes evenly spread over those looked at, as many as the budget for frames of this size allows."""
    budget = CLIP_BUDGET * min(1.0, 256 * 256 / (size[0] * size[1])) / (3 if quick else 1)
    count = min(len(episodes), max(MIN_CLIPS, int(budget / CLIP_FRAMES)))
    chosen = np.linspace(0, len(episodes) - 1, count).round().astype(int)
    return {episodes[place] for place in chosen}


def _busiest(hands: tuple[Hand, ...], length: int, episode: int) -> tuple[int, int]:
    """A window of `CLIP_FRAMES` frames: where the arm moves most, and in every other episode anywhere."""
    span = min(CLIP_FRAMES, length)
    if length == span:
        return 0, length
    if episode % 2:
        start = zlib.crc32(str(episode).encode()) % (length - span)
        return start, start + span
    path = np.zeros(length)
    for hand in hands:
        path[1:] += np.linalg.norm(np.diff(hand.numbers, axis=0), axis=1)
    total = np.cumsum(path)
    start = int((total[span - 1 :] - np.r_[0.0, total[: length - span]]).argmax())
    return start, start + span
