"""Flow matching on action chunks, over a data-driven action space (arXiv 2510.10274, Sec. 3).

t = 1 is noise, t = 0 is data: x_t = t·noise + (1-t)·action, and the network predicts the clean action itself.
Times and losses are float32 whatever the compute type.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from xvla_platform.specs.action_space import ActionSpace

LARGEST_TIME = 1 - 1e-5


def stratified_times(u: Tensor, batch: int) -> Tensor:
    """u [1] uniform → t [B], one in each of B equal strata."""
    return (u.float() + torch.arange(batch, device=u.device, dtype=torch.float32) / batch) % LARGEST_TIME


def interpolate(action: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = t·noise + (1-t)·action; action, noise [B, T, A], t [B]."""
    t = t.view(-1, 1, 1)
    return noise * t + action * (1 - t)


def mask_inputs(space: ActionSpace, proprio: Tensor, noisy_action: Tensor) -> tuple[Tensor, Tensor]:
    """What the network may see of proprio [B, P] and noisy action [B, T, A].

    Hidden fields (grippers) are zeroed in both. Padding dims of `auto` keep their noise, as published.
    """
    hidden = [slice(field.start, field.stop) for field in space.fields if field.hidden]
    if not hidden:
        return proprio, noisy_action
    proprio, noisy_action = proprio.clone(), noisy_action.clone()
    for part in hidden:
        proprio[..., part].zero_()
        noisy_action[..., part].zero_()
    return proprio, noisy_action


def losses(space: ActionSpace, predicted: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Named loss terms of raw predictions [B, T, A] against targets [B, T, A]; their sum is trained."""
    predicted, target = predicted.float(), target.float()
    terms: dict[str, Tensor] = {}
    for field in space.fields:
        p, a = predicted[..., field.start : field.stop], target[..., field.start : field.stop]
        error = F.binary_cross_entropy_with_logits if field.loss == "bce" else F.mse_loss
        value = field.weight * error(p, a)
        terms[field.loss_name] = terms[field.loss_name] + value if field.loss_name in terms else value
    return terms


def finish(space: ActionSpace, raw: Tensor) -> Tensor:
    """Raw prediction [B, T, A] → action [B, T, real_dim]: logits become probabilities, padding is cut."""
    out = raw[..., : space.real_dim].clone()
    for field in space.fields:
        if field.loss == "bce":
            out[..., field.start : field.stop] = torch.sigmoid(raw[..., field.start : field.stop])
    return out
