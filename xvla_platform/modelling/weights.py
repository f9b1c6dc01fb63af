"""The same model with its weights held otherwise: LoRA added into its layers, linear layers in bfloat16 or in 8 bits.

In: a loaded model. Out: another one that shares every tensor that did not change; the first stays as it was.
"""

import copy
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xvla_platform.modelling.transformer import Mlp
from xvla_platform.modelling.xvla import XVLA

if TYPE_CHECKING:
    from xvla_platform.modelling.sampling import Weights

Leaf = Callable[[nn.Module], nn.Module]


def held_as(model: XVLA, weights: "Weights") -> XVLA:
    """The model with its weights as a sampler asks for them; the same object where nothing changes."""
    if weights == "trained":
        return model
    merged = _mapped(model, _merged)
    if weights == "bfloat16":
        # Action encoder and decoder, time and norms stay in float32; Florence-2 has its own rule (`precision.encode`).
        policy = merged.transformer
        return _mapped(merged, lambda module: _mapped(policy, _bfloat16) if module is policy else module)
    if weights == "int8":
        # Its attention stays in float32: rounded too, it doubles the deviation of the chunk.
        policy = merged.transformer
        narrow = _mapped(policy, lambda module: _mapped(module, _int8) if isinstance(module, Mlp) else module)
        return _mapped(merged, lambda module: narrow if module is policy else _int8(module))
    return merged


class Bfloat16Linear(nn.Module):
    """A linear layer that computes in bfloat16; what adds its output to float32 rounds once."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().bfloat16(), requires_grad=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().bfloat16(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out] in bfloat16."""
        return F.linear(x.to(torch.bfloat16), self.weight, self.bias)


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights, scaled per output, and inputs scaled per call (CPU, oneDNN)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12).double()
        torch.backends.quantized.engine = "onednn"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*are deprecated and will be removed.*")
            rounded = torch.quantize_per_channel(
                weight, scale, torch.zeros(len(scale), dtype=torch.long), 0, torch.qint8
            )
        bias = None if linear.bias is None else linear.bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out] in float32."""
        # Seven bits for inputs: pairs of 8-bit products overflow where the CPU has no VNNI.
        return torch.ops.quantized.linear_dynamic(x, self.packed, True)


def _merged(module: nn.Module) -> nn.Module:
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not isinstance(module, BaseTunerLayer):
        return module
    layer = copy.deepcopy(module)
    layer.merge()
    return layer.get_base_layer()


def _bfloat16(module: nn.Module) -> nn.Module:
    return Bfloat16Linear(module) if type(module) is nn.Linear else module


def _int8(module: nn.Module) -> nn.Module:
    return Int8Linear(module) if type(module) is nn.Linear else module


def _mapped(module: Any, leaf: Leaf) -> Any:
    """The tree of modules with `leaf` applied to each; a subtree without a change is the same object."""
    new = leaf(module)
    if new is not module:
        return new
    children = {name: child if child is None else _mapped(child, leaf) for name, child in module._modules.items()}
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    clone = copy.copy(module)
    clone._modules = children
    return clone
