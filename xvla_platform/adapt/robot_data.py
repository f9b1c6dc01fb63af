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
from xvla_platform.data.samples import Samples, split_episodes
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.specs.records import EmbodimentRecord

SPLIT_SEED = 0  # the split belongs to the dataset, not to the run: versions stay comparable


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split's samples and their training form."""

    name: str
    episodes: tuple[int, ...]
    samples: Samples
    source: Source


def split_samples(
    record: EmbodimentRecord, reader: DatasetReader, binding: Binding, num_actions: int
) -> dict[str, tuple[tuple[int, ...], Samples]]:
    """Episodes and samples of `train`, `validation` and `test`."""
    parts = split_episodes(len(reader.episodes), record.spec.dataset.held_out, SPLIT_SEED)
    return {
        name: (episodes, Samples(reader, record.spec, binding, episodes, num_actions))
        for name, episodes in zip(("train", "validation", "test"), parts, strict=True)
    }


def load_split(
    name: str,
    episodes: Sequence[int],
    samples: Samples,
    *,
    record: EmbodimentRecord,
    processor: Processor,
    model: XVLA,
    scratch: Path,
    progress: Callable[[str, int], Progress] | None = None,
) -> Split:
    """Decode a split's frames and encode each of them once; what exceeds memory goes to `scratch`."""
    frames = allocate(frames_shape(samples, processor), np.uint8, scratch / f"{name}-frames.npy")
    decode_frames(samples, processor, frames, progress(f"decode {name}", len(samples)) if progress else None)
    source = build_source(
        samples,
        frames,
        name=record.spec.name,
        domain_id=record.slot.domain_id,
        processor=processor,
        config=model.config,
    )
    advance = progress(f"encode {name}", len(samples)) if progress else None
    source = replace(source, features=encode_source(model, source, processor, scratch / name, advance))
    return Split(name=name, episodes=tuple(episodes), samples=samples, source=source)
