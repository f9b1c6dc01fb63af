"""Activations computed again in the backward pass instead of kept: block by block, of the encoder and of the policy.

The encoder's own switch (transformers) leaves the vision tower out, which holds most of them.
"""

from collections.abc import Iterator
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """Every block of every stack: the members of the innermost lists of modules."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) and not isinstance(module[0], nn.ModuleList):
            yield from module


def set_recompute(model: nn.Module, wanted: bool) -> None:
    """Let every block keep its inputs alone, or all that it computes."""
    for block in blocks_of(model):
        block.__dict__.pop("forward", None)
        if wanted:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
