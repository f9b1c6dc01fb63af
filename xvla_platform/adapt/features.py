"""Florence-2's output, computed once a frame.

The domain never enters Florence-2, so while it is frozen its features are constants. Stages that train only the
slot, or LoRA inside the policy transformer, read them from memory and never run the encoder again.
"""

import numpy as np
import torch
from torch import Tensor

from xvla_platform.adapt.sources import Progress, Source, pixels
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.xvla import XVLA

ENCODE_BATCH = 32


def feature_bytes(model: XVLA, source: Source, processor: Processor) -> int:
    """Size of a source's features in float32 bytes."""
    stride = 32
    tokens = (processor.size[0] // stride) * (processor.size[1] // stride) + 1
    width = int(model.config.florence["projection_dim"])
    return len(source) * (tokens * source.num_views + source.tokens.shape[1]) * width * 4


@torch.no_grad()
def encode_source(
    model: XVLA, source: Source, processor: Processor, progress: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """(vlm_features [N, ...], aux_visual_inputs [N, ...]) of every sample, in sample order, on the CPU.

    The batches are the same whatever else runs, so a rebuilt cache has the same bits.
    """
    assert source.frames is not None
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    vlm: list[Tensor] = []
    auxiliary: list[Tensor] = []
    for start in range(0, len(source), ENCODE_BATCH):
        rows = np.arange(start, min(start + ENCODE_BATCH, len(source)))
        mask = torch.zeros(len(rows), source.num_views, dtype=torch.bool)
        mask[:, : source.frames.shape[1]] = True
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            features = model.encode(
                input_ids=source.tokens[source.instruction_of[rows]].to(device),
                pixel_values=pixels(source.frames[rows], processor, source.num_views).to(device),
                image_mask=mask.to(device),
            )
        vlm.append(features[0].float().cpu())
        auxiliary.append(features[1].float().cpu())
        if progress is not None:
            progress(len(rows))
    model.train(training)
    return torch.cat(vlm), torch.cat(auxiliary)
