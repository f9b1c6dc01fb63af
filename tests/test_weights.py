"""Weights held otherwise: the same chunk up to rounding, and the model they came from untouched."""

from typing import Any

import pytest
import torch
from adapt_helpers import generated, small_batch, small_model
from torch import nn

from xvla_platform.modelling.weights import PackedLinear, PackedMlp, held_as
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.policy.adapter import inject_lora
from xvla_platform.specs.plan import LoraSpec


def with_lora(model: XVLA, targets: str, **options: Any) -> XVLA:
    inject_lora(model, LoraSpec(rank=4, alpha=8, targets=targets, **options), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(False)
            if ".lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return model


@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"dora": True}], ids=["lora", "rslora", "dora"])
def test_merged_adapters_compute_the_same(options: dict[str, Any]) -> None:
    """Up to rounding, in both halves of the model, without touching the model they came from."""
    batch = small_batch([1], small_model())
    untouched = generated(small_model(), batch)
    model = with_lora(small_model(), r".*(attn\.qkv|mlp\.fc1|q_proj)", **options)
    before = generated(model, batch)
    merged = held_as(model, "merged")
    assert not [name for name, _ in merged.named_parameters() if ".lora_" in name]
    torch.testing.assert_close(generated(merged, batch), before, atol=2e-6, rtol=1e-5)
    assert float((before - untouched).abs().max()) > 1e-3
    assert torch.equal(generated(model, batch), before)
    assert merged.transformer.soft_prompt_hub is model.transformer.soft_prompt_hub
    assert held_as(model, "trained") is model


def test_packed_layers_compute_the_same() -> None:
    """Every linear layer of the policy transformer, and nothing of the encoder, lies as the CPU multiplies it."""
    model = small_model()
    batch = small_batch([1], model)
    packed = held_as(model, "merged")
    kinds = {type(module) for module in packed.transformer.modules()}
    assert {PackedLinear, PackedMlp} <= kinds
    assert nn.Linear not in kinds
    assert packed.encoder is model.encoder
    torch.testing.assert_close(generated(packed, batch), generated(model, batch), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("weights", "most"), [("bfloat16", 0.03), ("int8", 0.06)])
def test_narrow_weights_stay_near(weights: Any, most: float) -> None:
    """Rounded weights answer nearly the same chunk, and not the same bits."""
    model = small_model()
    batch = small_batch([1], model)
    exact = generated(model, batch)
    narrow = generated(held_as(model, weights), batch)
    difference = float((narrow - exact).norm() / exact.norm())
    assert 0 < difference < most
    assert narrow.dtype == torch.float32
    assert torch.equal(generated(model, batch), exact)
