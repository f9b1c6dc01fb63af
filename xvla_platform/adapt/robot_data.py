"""A robot's demonstrations, split by episode and made ready for training and measuring.

Three splits: training, validation (chooses the checkpoint) and test (measures it, once). The slot's
initialisation sees training episodes only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from xvla_platform.adapt.arrays import allocate
from xvla_platform.adapt.features import encode_source
from xvla_platform.adapt.sources import Progress, Source, build_source, decode_frames, frames_shape
from xvla_platform.data.binding import Binding
from xvla_platform.data.reader import DatasetReader
from xvla_platform.data.samples import SPLIT_SEED, Samples, split_episodes
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.specs.records import EmbodimentRecord

ProgressFactory = Callable[[str, int], Progress]


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split's samples and their training form."""

    name: str
    episodes: tuple[int, ...]
    samples: Samples
    source: Source


def split_samples(
    record: EmbodimentRecord,
    reader: DatasetReader,
    binding: Binding,
    num_actions: int,
    demonstrations: int | None = None,
) -> dict[str, tuple[tuple[int, ...], Samples]]:
    """Episodes and samples of `train`, `validation` and `test`.

    Args:
        demonstrations: How many episodes `train` has; absent: all that are not held out.
    """
    train, *held_out = split_episodes(len(reader.episodes), record.spec.dataset.held_out, SPLIT_SEED)
    parts = [some_episodes(train, demonstrations), *held_out]
    return {
        name: (episodes, Samples(reader, record.spec, binding, episodes, num_actions))
        for name, episodes in zip(("train", "validation", "test"), parts, strict=True)
    }


def some_episodes(train: tuple[int, ...], count: int | None) -> tuple[int, ...]:
    """`count` of the training episodes, drawn so that fewer are always among more; more than there are is refused."""
    if count is None:
        return train
    if count > len(train):
        raise XvlaError(
            "there are not so many demonstrations to learn from",
            field="demonstrations",
            found=count,
            allowed=f"at most {len(train)}, as the others are held out",
        )
    order = np.random.default_rng(SPLIT_SEED).permutation(train).tolist()
    return tuple(sorted(order[:count]))


def bare_split(
    name: str,
    episodes: Sequence[int],
    samples: Samples,
    *,
    record: EmbodimentRecord,
    processor: Processor,
    config: XVLAConfig,
) -> Split:
    """A split's numbers and words; its source has neither frames nor features yet."""
    source = build_source(
        samples,
        None,
        name=record.spec.name,
        domain_id=record.slot.domain_id,
        processor=processor,
        config=config,
    )
    return Split(name=name, episodes=tuple(episodes), samples=samples, source=source)


def with_frames(split: Split, processor: Processor, scratch: Path, progress: ProgressFactory | None = None) -> Split:
    """The split with its frames decoded at model size; what exceeds memory goes to `scratch`."""
    samples = split.samples
    frames = allocate(frames_shape(samples, processor), np.uint8, scratch / f"{split.name}-frames.npy")
    advance = progress(f"decode {split.name}", len(samples)) if progress else None
    decode_frames(samples, processor, frames, advance)
    return replace(split, source=replace(split.source, frames=frames))


def with_features(
    split: Split, model: XVLA, processor: Processor, scratch: Path, progress: ProgressFactory | None = None
) -> Split:
    """The split, which has frames, with features of the encoder as it is."""
    advance = progress(f"encode {split.name}", len(split.samples)) if progress else None
    features = encode_source(model, split.source, processor, scratch / split.name, advance)
    return replace(split, source=replace(split.source, features=features))
