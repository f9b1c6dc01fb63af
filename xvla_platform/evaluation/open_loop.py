"""Open-loop measurement: predicted against recorded action chunks, per field in physical units.

In: samples with cached features and a model. Out: mean error of every declared action field over the held-out
frames. The noise is fixed by a seed, so the same weights give the same numbers on the same machine.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xvla_platform.data.binding import Binding
from xvla_platform.modelling.xvla import PUBLISHED_TIMES, XVLA

BATCH = 64


@torch.inference_mode()
def predict_chunks(
    model: XVLA,
    *,
    features: tuple[Tensor, Tensor],
    proprio: Tensor,
    domain_id: int,
    seed: int,
    times: Sequence[float] = PUBLISHED_TIMES,
) -> NDArray[np.float32]:
    """Action chunks [N, T, real_dim] in model units for N observations.

    Args:
        features: vlm_features [N, ...] and aux_visual_inputs [N, ...]. proprio: [N, P] model units.
        times: The sampler's flow times.
    """
    device = next(model.parameters()).device
    count = proprio.shape[0]
    noise = chunk_noise(model, count, seed)
    out = []
    model.eval()
    for start in range(0, count, BATCH):
        part = slice(start, start + BATCH)
        out.append(
            model.generate(
                domain_id=torch.tensor([domain_id], device=device),
                features=(features[0][part].to(device), features[1][part].to(device)),
                proprio=proprio[part].to(device),
                noise=noise[part].to(device),
                times=times,
            ).cpu()
        )
    return torch.cat(out).numpy()


def chunk_noise(model: XVLA, count: int, seed: int) -> Tensor:
    """The noise [N, T, A] that fixes N chunks, drawn on the CPU, so that every device starts from the same."""
    shape = (count, model.config.num_actions, model.config.dim_action)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def field_errors(binding: Binding, predicted: NDArray[Any], target: NDArray[Any]) -> dict[str, float]:
    """Mean error of each action field over all frames and anchors, in `binding.error_units()`."""
    return {name: float(values.mean()) for name, values in binding.errors(predicted, target).items()}


def relative_error(errors: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """One number to compare checkpoints by: the mean over fields of error / reference error."""
    ratios = [errors[name] / max(reference[name], 1e-9) for name in errors]
    return float(np.mean(ratios))
