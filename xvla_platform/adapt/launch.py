"""One accelerator, and a refusal where a launch of several processes silently became one."""

import os

import torch
from accelerate import Accelerator

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.precision import has_bf16


def make_accelerator() -> Accelerator:
    """Device, precision (bf16 where the GPU has it) and processes, as launched."""
    cuda = torch.cuda.is_available()
    precision = "bf16" if cuda and has_bf16(torch.device("cuda")) else "no"
    accelerator = Accelerator(mixed_precision=precision, cpu=not cuda)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != world:
        raise XvlaError(
            "the launcher started several processes and they do not see each other",
            field="WORLD_SIZE",
            found=f"{world} launched, {accelerator.num_processes} joined",
            hint="start with `torchrun --nproc-per-node N -m xvla_platform …`",
        )
    return accelerator
