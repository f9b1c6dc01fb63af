"""One accelerator, and a refusal where a launch of several processes silently became one."""

import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

from xvla_platform import STARTED_BY
from xvla_platform.adapt.spread import launched_kind
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.precision import has_bf16

WATCH_S = 0.5
# What launchers without a rendezvous of their own tell about how many processes they start.
COUNTS = {
    "SLURM_STEP_NUM_TASKS": "srun",
    "SLURM_NTASKS": "SLURM",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun",
    "MV2_COMM_WORLD_SIZE": "mpirun",
}
TIMEOUT = "XVLA_TIMEOUT_MINUTES"
MOST_MINUTES = 100_000
LINGER_S = 5.0  # a launcher ends all processes when one does: the first one must have said its line by then
Answer = TypeVar("Answer")


def make_accelerator(*, together: bool = False) -> Accelerator:
    """Device, precision (bf16 where the GPU has it) and processes, as launched; fewer than launched is an error.

    Args:
        together: The processes are to share the work: then also those are refused that know nothing of each other.
    """
    if together:
        launched_kind()
        _refuse_strangers(joined=None)
    cuda = torch.cuda.is_available()
    precision = "bf16" if cuda and has_bf16(torch.device("cuda")) else "no"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _watch_launcher()
    patience = InitProcessGroupKwargs(timeout=timedelta(minutes=_minutes()))
    accelerator = Accelerator(mixed_precision=precision, cpu=not cuda, kwargs_handlers=[patience])
    if together or "WORLD_SIZE" in os.environ:
        _refuse_strangers(joined=accelerator.num_processes)
    return accelerator


def _minutes() -> float:
    """How long processes wait for each other; one that decodes or encodes keeps the others waiting, too."""
    stated = os.environ.get(TIMEOUT, "60")
    try:
        minutes = float(stated)
    except ValueError:
        minutes = 0.0
    if not 0.0 < minutes <= MOST_MINUTES:
        allowed = f"minutes above 0, at most {MOST_MINUTES}"
        raise XvlaError("how long processes wait for each other", field=TIMEOUT, found=stated, allowed=allowed)
    return minutes


def machine_of(accelerator: Accelerator) -> str:
    """What rounds a run's numbers: the kind of device, and over how many processes a batch is shared."""
    return f"{accelerator.device.type} x {accelerator.num_processes}"


def _watch_launcher() -> None:
    """End this process soon after the one that started it.

    A killed launcher ends nobody, and a run that goes on unseen would write beside the one that is resumed, or wait for
    an hour where processes meet.
    """

    def watch() -> None:
        while os.getppid() == STARTED_BY:
            time.sleep(WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _refuse_strangers(joined: int | None) -> None:
    """Refuse processes of which each would do the whole run for itself.

    Args:
        joined: How many processes see each other; None asks before they try, for those that do not know where to meet.
    """
    told = os.environ
    world = int(told.get("WORLD_SIZE", "1"))
    if joined is None and ("WORLD_SIZE" in told or "MASTER_ADDR" in told):
        return
    if joined is not None and joined != world and "WORLD_SIZE" in told:
        raise _lonely("WORLD_SIZE", f"{world} launched, {joined} joined")
    if joined not in (None, 1):
        return
    for name, launcher in COUNTS.items():
        count = told.get(name, "1")
        if count.isdecimal() and int(count) > 1 and "WORLD_SIZE" not in told:
            raise _lonely(name, f"{count} processes by {launcher}, which do not know where to meet")
    if "ACCELERATE_MIXED_PRECISION" in told and "MASTER_ADDR" in told and "WORLD_SIZE" not in told:
        # On CPUs `accelerate launch --num_processes N` starts one process, and says nothing.
        raise _lonely("--num_processes", "several processes asked of accelerate launch, and one started")


def _lonely(field: str, found: str) -> XvlaError:
    return XvlaError(
        "the launcher started several processes and they do not see each other",
        field=field,
        found=found,
        hint="start with `torchrun --nproc-per-node N -m xvla_platform …`, on a cluster once a node (docs/clusters.md)",
    )


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
