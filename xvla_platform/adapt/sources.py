"""Training samples of one or several robots as arrays, and the batches drawn from them.

In: `Samples` of a dataset (decoded once, at the model's image size). Out: batches whose content depends on (seed,
stage, step) alone, so that any process can draw its share and any run can be resumed anywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xvla_platform.data.samples import Samples
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import Processor

Progress = Callable[[int], None]
Features = tuple[Tensor, Tensor]
Strength = tuple[float, float, float]
VARIANT_SEED = 0  # the same for every run, so that runs of different seeds share stored variants


@dataclass(frozen=True, kw_only=True)
class Source:
    """One robot's samples, all indexed alike.

    Attributes:
        domain_id: The row this robot owns.
        proprio: [N, P] model units. action: [N, T, A] model units.
        tokens: [K, L] the distinct instructions; `instruction_of` [N] says which is whose.
        frames: uint8 [N, V', h, w, 3] at model size, main view first; None where features are all that is needed.
        features: (vlm_features [N, ...], aux_visual_inputs [N, ...]) when cached.
        variants: For a strength of colour jitter, the features of each frame's further variants; the frame as it is
            is the first one.
        num_views: Image slots V of the model; the missing V - V' are masked.
    """

    name: str
    domain_id: int
    proprio: Tensor
    action: Tensor
    tokens: Tensor
    instruction_of: Tensor
    frames: NDArray[np.uint8] | None
    num_views: int
    features: Features | None = None
    variants: Mapping[Strength, tuple[Features, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.proprio.shape[0]

    def cached_for(self, strength: Strength) -> bool:
        """Whether features stand for the frames, jittered so where any strength is given."""
        return self.features is not None and (not any(strength) or strength in self.variants)


def decode_frames(
    samples: Samples, processor: Processor, out: NDArray[np.uint8], progress: Progress | None = None
) -> None:
    """Fill `out` [N, V', h, w, 3] with every sample's views at model size, main view first.

    `progress` is called with the number of samples decoded since the last call.
    """
    for start in range(0, len(samples), 256):
        indices = np.arange(start, min(start + 256, len(samples)))
        for view, images in enumerate(samples.images(indices)):
            for row, image in zip(indices, images, strict=True):
                out[row, view] = processor.resize(image)
        if progress is not None:
            progress(len(indices))


def frames_of(samples: Samples, processor: Processor, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Some samples' views at model size, uint8 [n, V', h, w, 3], main view first."""
    views = [np.stack([processor.resize(image) for image in images]) for images in samples.images(rows)]
    return np.stack(views, axis=1)


def frames_shape(samples: Samples, processor: Processor) -> tuple[int, ...]:
    """Shape of the array `decode_frames` fills."""
    return (len(samples), len(samples.spec.ordered_cameras), *processor.size, 3)


def build_source(
    samples: Samples,
    frames: NDArray[np.uint8] | None,
    *,
    name: str,
    domain_id: int,
    processor: Processor,
    config: XVLAConfig,
) -> Source:
    """A dataset's samples, with their decoded frames where they are needed, as a `Source`."""
    every = np.arange(len(samples))
    instructions = [samples.instruction(i) for i in range(len(samples))]
    distinct = sorted(set(instructions))
    position = {text: i for i, text in enumerate(distinct)}
    return Source(
        name=name,
        domain_id=domain_id,
        proprio=torch.from_numpy(samples.proprio(every)),
        action=torch.from_numpy(samples.chunks(every)),
        tokens=torch.tensor([processor.tokens(text) for text in distinct], dtype=torch.long),
        instruction_of=torch.tensor([position[text] for text in instructions], dtype=torch.long),
        frames=frames,
        num_views=config.num_views,
    )


def take(source: Source, rows: NDArray[np.int64]) -> Source:
    """Some rows of a source, with the features of the frames as they are where cached."""
    return replace(
        source,
        proprio=source.proprio[rows],
        action=source.action[rows],
        instruction_of=source.instruction_of[rows],
        frames=None if source.frames is None else source.frames[rows],
        features=None if source.features is None else (source.features[0][rows], source.features[1][rows]),
        variants={},
    )


def pixels(
    frames: NDArray[np.uint8],
    processor: Processor,
    num_views: int,
    jitter: "Jitter | None" = None,
    factors: Tensor | None = None,
) -> Tensor:
    """uint8 [B, V', h, w, 3] → normalised float [B, V, 3, h, w]; missing views are zeros.

    `factors` are what `jitter` takes; without them it draws its own.
    """
    images = torch.from_numpy(frames).movedim(-1, -3).float() * (1 / 255)
    if jitter is not None:
        images = jitter(images, factors)
    images = processor.standardise(images)
    missing = num_views - images.shape[1]
    if missing:
        images = torch.cat([images, images.new_zeros(images.shape[0], missing, *images.shape[2:])], dim=1)
    return images


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Brightness, contrast and saturation, drawn for each view on its own (no hue, as published)."""

    strength: Strength

    def __call__(self, images: Tensor, factors: Tensor | None = None) -> Tensor:
        """Float [B, V, 3, h, w] in 0..1 → the same, jittered by `factors` [B, V, 3], else by torch's generator."""
        shape = (*images.shape[:2], 1, 1, 1)
        if factors is None:
            b, c, s = (1 + (torch.rand(shape) * 2 - 1) * strength for strength in self.strength)
        else:
            b, c, s = (factors[..., i].view(shape) for i in range(3))
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
        images = (images * b).clamp(0, 1)
        grey = (images * weights).sum(2, keepdim=True)
        images = (grey.mean((-1, -2), keepdim=True) * (1 - c) + images * c).clamp(0, 1)
        grey = (images * weights).sum(2, keepdim=True)
        return (grey * (1 - s) + images * s).clamp(0, 1)

    def factors(self, frames: NDArray[np.int64], views: int, variant: int) -> Tensor:
        """Factors [n, views, 3] of stored variant 1, 2, …; they follow from `frames` [n, 2] (episode, frame) alone."""
        drawn = [
            np.random.default_rng((VARIANT_SEED, variant, int(episode), int(frame))).random((views, 3))
            for episode, frame in frames
        ]
        return torch.from_numpy(1 + (np.stack(drawn) * 2 - 1) * np.asarray(self.strength)).float()


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Which samples one process takes at one step: parallel arrays of source, row and look.

    Attributes:
        look: Numbers in [0, 1) that choose among a frame's stored variants; None takes every frame as it is.
    """

    source: NDArray[np.int64]
    row: NDArray[np.int64]
    look: NDArray[np.float64] | None = None


def draw(
    sizes: Sequence[int],
    weights: Sequence[float],
    *,
    batch_size: int,
    key: tuple[int, ...],
    rank: int = 0,
    world: int = 1,
) -> Draw:
    """This process's share of the batch that `key` = (seed, stage, step) names.

    The global batch is drawn first and then dealt out, so it does not depend on the number of processes.
    """
    generator = np.random.default_rng(key)
    share = np.asarray(weights, dtype=np.float64)
    source = generator.choice(len(sizes), size=batch_size, p=share / share.sum())
    row = (generator.random(batch_size) * np.asarray(sizes)[source]).astype(np.int64)
    look = generator.random(batch_size)
    return Draw(source=source[rank::world], row=row[rank::world], look=look[rank::world])


def assemble(
    sources: Sequence[Source], drawn: Draw, processor: Processor, jitter: Jitter | None = None
) -> dict[str, Any]:
    """The model's keyword inputs for a draw (without noise and time).

    Samples are grouped by source; a batch of one robot carries one domain id. Features are used where cached; those
    of the drawn variants, where there are any.
    """
    which = [drawn.source == i for i in range(len(sources))]
    parts: list[tuple[Source, NDArray[np.int64]]] = [
        (source, drawn.row[mine]) for source, mine in zip(sources, which, strict=True) if mine.any()
    ]
    single = len({source.domain_id for source, _ in parts}) == 1
    batch: dict[str, Any] = {
        "proprio": torch.cat([source.proprio[rows] for source, rows in parts]),
        "action": torch.cat([source.action[rows] for source, rows in parts]),
        "domain_id": torch.tensor([parts[0][0].domain_id])
        if single
        else torch.cat([torch.full((len(rows),), source.domain_id) for source, rows in parts]),
    }
    strength = (0.0, 0.0, 0.0) if jitter is None else jitter.strength
    if all(source.cached_for(strength) for source, _ in parts):
        found = [
            _features(source, drawn.row[mine], None if drawn.look is None else drawn.look[mine], strength)
            for source, mine in zip(sources, which, strict=True)
            if mine.any()
        ]
        batch["features"] = tuple(torch.cat([features[i] for features in found]) for i in (0, 1))
        return batch
    batch["input_ids"] = torch.cat([source.tokens[source.instruction_of[rows]] for source, rows in parts])
    batch["pixel_values"] = torch.cat(
        [pixels(source.frames[rows], processor, source.num_views, jitter) for source, rows in parts]  # type: ignore[index]
    )
    masks = []
    for source, rows in parts:
        assert source.frames is not None
        mask = torch.zeros(len(rows), source.num_views, dtype=torch.bool)
        mask[:, : source.frames.shape[1]] = True
        masks.append(mask)
    batch["image_mask"] = torch.cat(masks)
    return batch


def _features(
    source: Source, rows: NDArray[np.int64], look: NDArray[np.float64] | None, strength: Strength
) -> Features:
    """Stored features of some rows, of each in the variant that its look chooses."""
    assert source.features is not None
    vlm, aux = (part[rows] for part in source.features)
    others = source.variants.get(strength, ())
    chosen = np.zeros(len(rows)) if look is None else np.floor(look * (1 + len(others)))
    for number, stored in enumerate(others, start=1):
        here = np.flatnonzero(chosen == number)
        for part, kept in zip((vlm, aux), stored, strict=True):
            part[here] = kept[rows[here]]
    return vlm, aux
