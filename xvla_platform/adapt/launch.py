"""One accelerator, and a refusal where a launch of several processes silently became one."""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.precision import has_bf16

WATCH_S = 0.5
LINGER_S = 5.0  # a launcher ends all processes when one does: the first one must have said its line by then
Answer = TypeVar("Answer")


def make_accelerator() -> Accelerator:
    """Device, precision (bf16 where the GPU has it) and processes, as launched."""
    cuda = torch.cuda.is_available()
    precision = "bf16" if cuda and has_bf16(torch.device("cuda")) else "no"
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        _watch_launcher()
    accelerator = Accelerator(mixed_precision=precision, cpu=not cuda)
    if accelerator.num_processes != world:
        raise XvlaError(
            "the launcher started several processes and they do not see each other",
            field="WORLD_SIZE",
            found=f"{world} launched, {accelerator.num_processes} joined",
            hint="start with `torchrun --nproc-per-node N -m xvla_platform …`",
        )
    return accelerator


def _watch_launcher() -> None:
    """End this process soon after the one that started it.

    A killed launcher ends nobody, and a run that goes on unseen would write beside the one that is resumed.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def on_first(accelerator: Accelerator, function: Callable[[], Answer]) -> Answer:
    """Run on the first process and give its answer to all; where it fails, all end and only the first speaks."""
    if accelerator.num_processes == 1:
        return function()
    box: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            box = [function(), None]
        except XvlaError as error:
            broadcast_object_list([None, error.exit_code], from_process=0)
            raise
    broadcast_object_list(box, from_process=0)
    if box[1] is not None:
        time.sleep(LINGER_S)
        sys.exit(box[1])
    answer: Answer = box[0]
    return answer
