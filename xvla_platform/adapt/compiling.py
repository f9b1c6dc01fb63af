"""Blocks compiled by torch's Inductor: what lies between two matrix products runs as one kernel.

Block by block, not the model as a whole: the blocks of a stack share what is compiled for one of them, weights keep
their names, and what a stage switches (recomputation, shards, another batch size) stays possible.
"""

import torch
from torch import nn

from xvla_platform.adapt.recompute import blocks_of
from xvla_platform.errors import XvlaError


def compile_blocks(model: nn.Module) -> None:
    """Compile every block of every stack when it is first called.

    Raises:
        XvlaError: torch cannot compile for the model's device here.
    """
    device = next(model.parameters()).device
    try:
        torch.compile(_probe)(torch.ones(8, device=device))
    # Whatever a missing compiler, header or driver makes of itself.
    except Exception as error:
        raise XvlaError(
            f"torch cannot compile for {device.type} here: {_first_line(error)}",
            field="compile",
            found="true",
            allowed="false",
            hint="leave `compile` out of the stage, or install what is missing (a C++ compiler; on a GPU triton)",
        ) from error
    # A stack's blocks share one code: every width, batch size and mode of it counts against this limit, beyond which
    # torch would go on uncompiled.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for block in blocks_of(model):
        block.compile(dynamic=False)  # Inductor cannot compile the encoder's windows for every batch size at once


def forget_compiled(model: nn.Module) -> None:
    """Let every block run as it is written again."""
    for block in blocks_of(model):
        block._compiled_call_impl = None


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
