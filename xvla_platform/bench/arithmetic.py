"""Floating-point operations of one sample, counted on the step itself over torch's meta device: nothing is computed.

A multiply-add is two. Gradients of frozen weights do not exist and are not counted, recomputed activations are.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from xvla_platform.adapt.recompute import set_recompute
from xvla_platform.adapt.trainables import select_trainables
from xvla_platform.bench.ours import FULL, every_linear, stage_of
from xvla_platform.bench.sizes import tokens_of_view
from xvla_platform.modelling import florence
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.sampling import find_sampler
from xvla_platform.modelling.slot import SLOT_MODULES, open_slot
from xvla_platform.modelling.xvla import DENOISING_STEPS, XVLA
from xvla_platform.policy.adapter import inject_lora
from xvla_platform.specs.plan import LoraSpec

CACHED = ("prompt", "lora")
PUBLIC = ("public", "public_lora")
STEPS = ("prompt", "prompt_uncached", "lora", "lora_everywhere", *FULL, *PUBLIC)
PEER_CHUNK = "inference.lerobot"


def count(config: XVLAConfig, image_size: tuple[int, int], kinds: Iterable[str]) -> dict[str, int]:
    """Operations of what is asked for.

    What stands for others' work counts every token in the last block and projects the observation at every denoising
    step, as they do.

    Args:
        kinds: Kinds of steps (a sample's), `encode` (a frame's), `inference.SAMPLER` and LeRobot's (a chunk's).
    """
    with torch.device("meta"):
        model = XVLA(config).eval()
    encoding = _counted(lambda: _encode(model, image_size)[0])
    found: dict[str, int] = {}
    for kind in kinds:
        what, _, sampler = kind.partition(".")
        if kind == "encode":
            found[kind] = encoding
        elif what != "inference":
            found[kind] = count_step(kind, deepcopy(model), image_size)
        elif kind != PEER_CHUNK:
            found[kind] = encoding + _counted(partial(_generate, model, image_size, find_sampler(sampler).times))
    if PEER_CHUNK in kinds:
        _read_every_token(model)
        once = _counted(lambda: _predict(model, *_features(model, image_size)))
        found[PEER_CHUNK] = encoding + DENOISING_STEPS * once
    return found


def count_step(kind: str, model: XVLA, image_size: tuple[int, int]) -> int:
    """One sample through a step of this kind: forward, and backward as far as something below is trained."""
    _prepare(model, kind)
    model.train()

    def step() -> None:
        features = _features(model, image_size) if kind in CACHED else _encode(model, image_size)
        _predict(model, *features).sum().backward()

    return _counted(step, gradients=True)


class _EveryToken(nn.Module):
    """A last block that computes what nobody reads."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        *condition, keep = rest
        out: Tensor = self.block(x, *condition)
        return out[:, :keep]


def _read_every_token(model: XVLA) -> None:
    model.transformer.blocks[-1] = _EveryToken(model.transformer.blocks[-1])


def _prepare(model: XVLA, kind: str) -> None:
    """Make the model's gradients those of a step of this kind."""
    if kind in PUBLIC:
        if kind == "public_lora":
            inject_lora(model, LoraSpec(targets=every_linear(model)), seed=0)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(kind == "public" or ".lora_" in name or name.startswith(SLOT_MODULES))
        _read_every_token(model)
        return
    stage = stage_of(kind, model, batch=1)
    if stage.lora is not None:
        inject_lora(model, stage.lora, seed=0)
    open_slot(model, 0)
    select_trainables(model, stage)
    if stage.checkpointing:
        assert model.vlm is not None
        model.transformer.checkpointing = True
        set_recompute(model.vlm, True)


def _counted(work: Callable[[], Any], *, gradients: bool = False) -> int:
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward}
    )
    with torch.device("meta"), torch.set_grad_enabled(gradients), counter:
        work()
    return int(counter.get_total_flops())


def _convolution_backward(
    grad: Any, x: Any, weight: Any, _b: Any, _s: Any, _p: Any, _d: Any, transposed: bool, *rest: Any, out_shape: Any
) -> int:
    """Each gradient costs what the forward pass did; torch's own count takes depthwise convolutions for dense ones."""
    mask = rest[-1]
    return int(conv_flop_count(x, weight, grad, transposed=transposed) * sum(mask[:2]))


def _encode(model: XVLA, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """`florence.encode` with every view there, without the selection of views, which the meta device cannot make."""
    vlm, config = model.vlm, model.config
    assert isinstance(vlm, nn.Module)
    views = florence.image_features(vlm, torch.zeros(config.num_views, 3, *image_size))
    words = vlm.language_model.shared(torch.zeros(1, config.language_max_length, dtype=torch.long))  # type: ignore[operator, union-attr]
    language = vlm.language_model.encoder  # type: ignore[union-attr]
    main: Tensor = language(inputs_embeds=torch.cat([views[:1], words], dim=1)).last_hidden_state  # type: ignore[operator]
    return main, views[1:].flatten(0, 1).unsqueeze(0)


def _features(model: XVLA, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    config = model.config
    tokens = tokens_of_view(config.florence, image_size)
    width = int(config.florence["projection_dim"])
    main = torch.zeros(1, tokens + config.language_max_length, width)
    return main, torch.zeros(1, tokens * (config.num_views - 1), width)


def _predict(model: XVLA, main: Tensor, aux: Tensor) -> Tensor:
    config = model.config
    return model.predict(
        domain_id=torch.zeros(1, dtype=torch.long),
        vlm_features=main,
        aux_visual_inputs=aux,
        proprio=torch.zeros(1, config.dim_proprio),
        noisy_action=torch.zeros(1, config.num_actions, config.dim_action),
        t=torch.zeros(1),
    )


def _generate(model: XVLA, image_size: tuple[int, int], times: tuple[float, ...]) -> Tensor:
    config = model.config
    return model.generate(
        domain_id=torch.zeros(1, dtype=torch.long),
        features=_features(model, image_size),
        proprio=torch.zeros(1, config.dim_proprio),
        noise=torch.zeros(1, config.num_actions, config.dim_action),
        times=times,
    )
