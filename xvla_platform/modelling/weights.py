"""The same model with its weights held otherwise: LoRA added into its layers, linear layers in bfloat16 or in 8 bits,
those of float32 in the order in which the CPU multiplies them.

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
    # Only the policy transformer is packed: it runs once a step, the encoder once a chunk, and a packed copy is memory.
    policy = merged.transformer
    if weights == "int8":
        # Its attention stays in float32: rounded too, it doubles the deviation of the chunk.
        narrow = _mapped(policy, lambda module: _mapped(module, _int8) if isinstance(module, Mlp) else _packed(module))
        return _mapped(merged, lambda module: narrow if module is policy else _int8(module))
    return _mapped(merged, lambda module: _mapped(policy, _packed) if module is policy else module)


class PackedLinear(nn.Module):
    """A float32 linear layer whose weights lie in blocks as oneDNN reads them (CPU).

    The same products, added in another order: a sixth faster at a chunk's few hundred tokens, half at thirty.
    """

    def __init__(self, linear: nn.Linear, activation: str = "none", algorithm: str = "") -> None:
        """Pack a layer; `activation` is oneDNN's, computed as the product is written."""
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.activation: tuple[str, list[float], str] = (activation, [], algorithm)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, *self.activation)


class PackedMlp(nn.Module):
    """A packed `Mlp` without dropout, its GELU computed in the first layer."""

    def __init__(self, mlp: Mlp) -> None:
        super().__init__()
        self.fc1 = PackedLinear(mlp.fc1, "gelu", "tanh")
        self.fc2 = PackedLinear(mlp.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, H] → [B, L, H]."""
        return self.fc2(self.fc1(x))


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


def _packs(linear: nn.Module) -> bool:
    if type(linear) is not nn.Linear or not torch.backends.mkldnn.is_available():
        return False
    return linear.weight.device.type == "cpu" and linear.weight.dtype == torch.float32


def _packed(module: nn.Module) -> nn.Module:
    if isinstance(module, Mlp) and _packs(module.fc1) and _packs(module.fc2):
        return PackedMlp(module)
    return PackedLinear(module) if isinstance(module, nn.Linear) and _packs(module) else module


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
