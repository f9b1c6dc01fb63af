"""In which numbers the encoder runs: bfloat16 where the GPU really has it, float32 elsewhere.

Training, measuring and acting go through here, so that one machine always gives one answer.
"""

import torch
from torch import Tensor

from xvla_platform.modelling import florence
from xvla_platform.modelling.xvla import XVLA


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself; emulation is slower than float32 and no more precise."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def computes_bf16(device: torch.device) -> bool:
    """Whether bfloat16 pays at all: a GPU that has it, or a CPU with the instructions for it."""
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
    return has_bf16(device)


def device_label(device: torch.device) -> str:
    """`cpu, float32` or `cuda (NVIDIA H100), bfloat16 encoder`."""
    if device.type != "cuda":
        return f"{device.type}, float32"
    return f"cuda ({torch.cuda.get_device_name(device)}), {'bfloat16' if has_bf16(device) else 'float32'} encoder"


@torch.no_grad()
def encode(model: XVLA, *, input_ids: Tensor, pixel_values: Tensor, image_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The features of `XVLA.encode`, as float32 on the model's device; the inputs may lie anywhere."""
    device = next(model.parameters()).device
    with _autocast(device):
        vlm, aux = model.encode(
            input_ids=input_ids.to(device), pixel_values=pixel_values.to(device), image_mask=image_mask.to(device)
        )
    return vlm.float(), aux.float()


@torch.no_grad()
def encode_views(model: XVLA, pixels: Tensor) -> Tensor:
    """Normalised images [n, 3, H, W] → [n, N, D] on the model's device, before any word."""
    device = next(model.parameters()).device
    with _autocast(device):
        return florence.image_features(model.encoder, pixels.to(device))


@torch.no_grad()
def encode_words(model: XVLA, views: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Features of all views [B, V, N, D] (zeros for missing ones) and tokens [B, L] → what `encode` returns."""
    device = next(model.parameters()).device
    with _autocast(device):
        vlm, aux = florence.with_words(model.encoder, views, input_ids.to(device))
    return vlm.float(), aux.float()


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bf16(device))
