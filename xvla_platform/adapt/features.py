"""Florence-2's output, computed once a frame.

The domain never enters Florence-2, so while it is frozen its features are constants. Stages that train only the
slot, or LoRA inside the policy transformer, read them from memory and never run the encoder again.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xvla_platform.adapt.arrays import allocate
from xvla_platform.adapt.feature_store import BLOCK, FeatureStore, StoreKey
from xvla_platform.adapt.sources import VARIANT_SEED, Jitter, Progress, Source, frames_of, pixels
from xvla_platform.data.samples import Samples
from xvla_platform.modelling.precision import encode, has_bf16
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.specs.records import EmbodimentRecord

ENCODE_BATCH = BLOCK


@torch.no_grad()
def encode_source(
    model: XVLA, source: Source, processor: Processor, scratch: Path, progress: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """(vlm_features [N, ...], aux_visual_inputs [N, ...]) of every sample, in sample order, on the CPU.

    The batches are the same whatever else runs, so a rebuilt cache has the same bits. What exceeds the memory
    budget is mapped from files in the folder `scratch`.
    """
    assert source.frames is not None
    cache: list[NDArray[np.float32]] = []
    for start in range(0, len(source), ENCODE_BATCH):
        rows = np.arange(start, min(start + ENCODE_BATCH, len(source)))
        features = encode_batch(model, source.frames[rows], source.tokens[source.instruction_of[rows]], processor)
        if not cache:
            cache = [
                allocate((len(source), *part.shape[1:]), np.float32, scratch / f"{source.name}-{kind}.npy")
                for kind, part in zip(("vlm", "aux"), features, strict=True)
            ]
        for out, part in zip(cache, features, strict=True):
            out[rows] = part.numpy()
        if progress is not None:
            progress(len(rows))
    return torch.from_numpy(cache[0]), torch.from_numpy(cache[1])


@torch.no_grad()
def encode_batch(
    model: XVLA,
    frames: NDArray[np.uint8],
    tokens: Tensor,
    processor: Processor,
    jitter: Jitter | None = None,
    factors: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Features of uint8 frames [B, V', h, w, 3] with their tokens [B, L], float32 on the CPU, as if in evaluation.

    Equal frames with equal words are encoded once; with `jitter` by `factors` [B, V', 3], those of equal factors too.
    """
    place: dict[bytes, int] = {}
    first: list[int] = []
    of: list[int] = []
    for row in range(len(frames)):
        look = b"" if factors is None else factors[row].numpy().tobytes()
        content = hashlib.sha256(frames[row].tobytes() + tokens[row].numpy().tobytes() + look).digest()
        if content not in place:
            place[content] = len(first)
            first.append(row)
        of.append(place[content])
    training, views = model.training, model.config.num_views
    model.eval()
    mask = torch.zeros(len(first), views, dtype=torch.bool)
    mask[:, : frames.shape[1]] = True
    images = pixels(frames[first], processor, views, jitter, None if factors is None else factors[first])
    found = encode(model, input_ids=tokens[first], pixel_values=images, image_mask=mask)
    model.train(training)
    vlm, aux = (part.cpu() for part in found)
    return (vlm, aux) if len(first) == len(frames) else (vlm[of], aux[of])


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One split's features on disk: where they are, and how a block of them is made."""

    store: FeatureStore
    encode: Callable[[XVLA, Sequence[int]], tuple[Tensor, Tensor]]


def stored_features(
    root: Path,
    record: EmbodimentRecord,
    samples: Samples,
    source: Source,
    processor: Processor,
    device: torch.device,
    *,
    jitter: Jitter | None = None,
    variant: int = 0,
) -> Stored:
    """The store below `root` for these samples under the record's base; nothing is read or written yet.

    Args:
        source: The samples' tokens; its frames are not needed, blocks decode their own.
        device: Where the encoder runs: its precision is part of what features are.
        jitter, variant: Which variant of the frames: 0 as they are, 1, 2, … jittered.
    """
    rows = np.stack([samples.episode_of, samples.frame_of], axis=1).astype(np.int64)
    transform = _transform(record, processor, source)
    if jitter is not None:
        transform["jitter"] = {"strength": list(jitter.strength), "variant": variant, "seed": VARIANT_SEED}
    key = StoreKey(
        base=record.base.fingerprint,
        data=record.data.fingerprint,
        transform=transform,
        rows=hashlib.sha256(rows.tobytes()).hexdigest(),
        count=len(samples),
        dtype="bfloat16" if has_bf16(device) else "float32",
        kernels=_kernels(device),
    )

    def encode_rows(model: XVLA, wanted: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = np.asarray(wanted, dtype=np.int64)
        frames = frames_of(samples, processor, chosen)
        factors = None if jitter is None else jitter.factors(rows[chosen], frames.shape[1], variant)
        return encode_batch(model, frames, source.tokens[source.instruction_of[chosen]], processor, jitter, factors)

    return Stored(store=FeatureStore(root / key.digest, key), encode=encode_rows)


def _kernels(device: torch.device) -> str:
    """What decides how features are rounded; other machines of a shared folder may differ in it."""
    import transformers

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, transformers {transformers.__version__}, {device.type} {where}"


def _transform(record: EmbodimentRecord, processor: Processor, source: Source) -> dict[str, Any]:
    """Everything between a recorded frame and the encoder's input."""
    cameras = [
        camera.model_dump(mode="json", include={"key", "flip", "channels"}) for camera in record.spec.ordered_cameras
    ]
    return {
        "size": list(processor.size),
        "resample": processor.resample,
        "mean": list(processor.mean),
        "std": list(processor.std),
        "cameras": cameras,
        "views": source.num_views,
        "tokens": hashlib.sha256(source.tokens.numpy().tobytes()).hexdigest(),
        "instruction_of": hashlib.sha256(source.instruction_of.numpy().tobytes()).hexdigest(),
    }
