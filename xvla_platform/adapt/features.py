"""Florence-2's output, computed once a frame.

The domain never enters Florence-2, so while it is frozen its features are constants. Stages that train only the
slot, or LoRA inside the policy transformer, read them from memory and never run the encoder again.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xvla_platform.adapt.arrays import allocate
from xvla_platform.adapt.sources import Progress, Source, pixels
from xvla_platform.modelling.precision import encode
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.xvla import XVLA

ENCODE_BATCH = 32


@torch.no_grad()
def encode_source(
    model: XVLA, source: Source, processor: Processor, scratch: Path, progress: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """(vlm_features [N, ...], aux_visual_inputs [N, ...]) of every sample, in sample order, on the CPU.

    The batches are the same whatever else runs, so a rebuilt cache has the same bits. What exceeds the memory
    budget is mapped from files in the folder `scratch`.
    """
    assert source.frames is not None
    training = model.training
    model.eval()
    cache: list[NDArray[np.float32]] = []
    for start in range(0, len(source), ENCODE_BATCH):
        rows = np.arange(start, min(start + ENCODE_BATCH, len(source)))
        mask = torch.zeros(len(rows), source.num_views, dtype=torch.bool)
        mask[:, : source.frames.shape[1]] = True
        features = encode(
            model,
            input_ids=source.tokens[source.instruction_of[rows]],
            pixel_values=pixels(source.frames[rows], processor, source.num_views),
            image_mask=mask,
        )
        if not cache:
            cache = [
                allocate((len(source), *part.shape[1:]), np.float32, scratch / f"{source.name}-{kind}.npy")
                for kind, part in zip(("vlm", "aux"), features, strict=True)
            ]
        for out, part in zip(cache, features, strict=True):
            out[rows] = part.cpu().numpy()
        if progress is not None:
            progress(len(rows))
    model.train(training)
    return torch.from_numpy(cache[0]), torch.from_numpy(cache[1])
