"""Memory of a step beside the weights: what it leaves for its backward pass, and what encoding frames takes at once.

What a stage keeps is counted as autograd keeps it: the forward pass runs on tensors without memory, and every saved
tensor's bytes are added up, once each. So recomputation, frozen parts and LoRA are counted as they are.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from xvla_platform.adapt.features import ENCODE_BATCH
from xvla_platform.adapt.recompute import set_recompute
from xvla_platform.modelling import florence, objective
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.precision import has_bf16
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.specs.plan import Stage

FLOAT32 = 4  # bytes
BF16_SHARE = 0.6  # of the bytes that float32 would keep: norms and the residual stream stay in it


def kept_for_backward(
    model: XVLA,
    stage: Stage,
    config: XVLAConfig,
    image_size: tuple[int, int],
    samples: int,
    device: torch.device,
    *,
    encodes: bool,
) -> int:
    """Bytes that a micro-batch leaves for its backward pass, and those of the largest step of that pass."""
    model.train()
    model.transformer.set_dropout(stage.dropout)
    model.transformer.checkpointing = stage.checkpointing
    if encodes and model.vlm is not None:
        set_recompute(model.vlm, stage.checkpointing)
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, int] = {}
    held: list[Any] = []  # or an address would be used twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage.nbytes()
            held.append(storage)
        return tensor

    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), _FusedAttention():
        _forward(model, config, image_size, samples, encodes=encodes)
    total = sum(saved.values()) + 3 * max(saved.values(), default=0)
    return int(total * BF16_SHARE) if has_bf16(device) else total


class _Attended(torch.autograd.Function):
    """Attention as a fused kernel keeps it: its inputs and its output."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Shapes only."""
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out)
        return out


class _FusedAttention(TorchFunctionMode):
    """Shapes have no device, so torch would count the slow path, which keeps every attention weight."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention and not kwargs.get("dropout_p"):
            return _Attended.apply(*args[:3])
        return func(*args, **kwargs)


def encoding_peak(config: XVLAConfig, image_size: tuple[int, int], device: torch.device) -> int:
    """The largest step of encoding a block of frames: the widest layer's inputs, outputs and what lies between."""
    vision = config.florence["vision_config"]
    stride, width = vision["patch_stride"][0], vision.get("dim_embed", vision.get("embed_dim"))[0]
    pixels = -(-image_size[0] // stride) * -(-image_size[1] // stride)
    numbers = ENCODE_BATCH * config.num_views * pixels * width
    return numbers * 8 * (2 if has_bf16(device) else FLOAT32)


def _forward(
    model: XVLA, config: XVLAConfig, image_size: tuple[int, int], samples: int, *, encodes: bool
) -> dict[str, Tensor]:
    """The losses of one micro-batch of shapes, as `XVLA.forward` has them, all views there."""
    if encodes:
        assert model.vlm is not None
        images = torch.empty(samples * config.num_views, 3, *image_size)
        views = florence.image_features(model.vlm, images)
        views = views.view(samples, config.num_views, *views.shape[1:])
        words = torch.zeros(samples, config.language_max_length, dtype=torch.long)
        main, aux = florence.with_words(model.vlm, views, words)
    else:
        tokens = _tokens(config, image_size)
        width = int(config.florence["projection_dim"])
        main = torch.empty(samples, tokens + config.language_max_length, width)
        aux = torch.empty(samples, tokens * (config.num_views - 1), width)
    predicted = model.predict(
        domain_id=torch.zeros(1, dtype=torch.long),
        vlm_features=main,
        aux_visual_inputs=aux,
        proprio=torch.empty(samples, config.space.dim),
        noisy_action=torch.empty(samples, config.num_actions, config.space.dim),
        t=torch.empty(samples),
    )
    return objective.losses(model.space, predicted, torch.empty_like(predicted))


def _tokens(config: XVLAConfig, image_size: tuple[int, int]) -> int:
    """Image tokens of one view: the pooled one, and the grid that the strides leave."""
    vision = config.florence["vision_config"]
    height, width = image_size
    sizes = vision["patch_size"], vision["patch_stride"], vision["patch_padding"]
    for kernel, stride, padding in zip(*sizes, strict=True):
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    return 1 + height * width
