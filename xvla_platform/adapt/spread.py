"""How one stage lies over the processes: whole on each of them, or cut into shards.

In: the model of a stage, and how the processes were launched. Out: what a step runs on, beside the plain model.
The plain model and its optimizer are what is measured, hashed, saved and kept, always under the same names; so a
checkpoint does not know how it was made, and may be resumed on another number of processes or without shards.

Sharded by FSDP2 (`fully_shard`), each process holds its part of every weight, gradient and moment, and the plain model
waits in CPU memory. The launcher asks for it (`accelerate launch` with an FSDP configuration). A stage that trains
rows only has nothing worth cutting and stays whole.
"""

import copy
import gc
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xvla_platform.adapt.compiling import compile_blocks, forget_compiled
from xvla_platform.adapt.recompute import blocks_of, set_recompute
from xvla_platform.adapt.snapshot import Snapshot, restore
from xvla_platform.adapt.trainables import Trainable, build_optimizer, select_trainables
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.specs.plan import Stage

Kind = Literal["whole", "fsdp"]
ROWS = {"soft_prompts", "action_heads"}


class Spread:
    """A stage whose model is whole on every process: one process, or several that average their gradients.

    Attributes:
        model, plain, plain_optimizer: What is measured, saved and kept.
        wrapped, inner: What a step calls, and the X-VLA inside it.
        trainables, optimizer: What a step moves, under the same names; here the plain ones themselves.
    """

    def __init__(self, accelerator: Accelerator, model: XVLA, stage: Stage, resume: Snapshot | None) -> None:
        self.accelerator, self.model, self.stage = accelerator, model, stage
        self.plain = select_trainables(model, stage)
        self.plain_optimizer = build_optimizer(self.plain, stage)
        if resume is not None:
            restore(resume, self.plain, self.plain_optimizer)
        self.wrapped: Any = model
        self.inner: XVLA = model
        self.trainables, self.optimizer = self.plain, self.plain_optimizer

    def start(self) -> None:
        """Build what a step runs on; called when the model's switches (dropout, recomputation) are set."""
        if self.stage.compile:
            compile_blocks(self.model)
        if self.accelerator.num_processes > 1:
            # Not `accelerator.prepare_model`: in a launch that shards it refuses a stage that stays whole.
            device = self.accelerator.device
            self.wrapped = DistributedDataParallel(self.model, device_ids=[device] if device.type == "cuda" else None)

    def unsynchronised(self) -> Any:
        """Context of a micro-batch whose gradient need not be averaged yet."""
        return nullcontext() if self.accelerator.num_processes == 1 else self.wrapped.no_sync()

    def backward(self, loss: Tensor) -> None:
        """Add a micro-batch's gradient."""
        # Not `accelerator.backward`: that would divide by a number of accumulation steps of its own.
        loss.backward()

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
        """Clip these parameters' gradient to a norm of `limit`; returns the norm before."""
        return torch.nn.utils.clip_grad_norm_(parameters, limit)

    def agree(self, wish: bool) -> bool:
        """A decision that all processes have to share where it leads to `collect`."""
        return wish

    def collect(self, *, moments: bool = False) -> None:
        """Bring the plain weights, and with `moments` the plain optimizer, to where the last step left them."""

    def forget(self) -> None:
        """Let go of the plain optimizer's copy of the moments."""

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors that lie as the trained weights do, as whole ones."""
        return dict(tensors)

    def part(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors as the trained weights lie."""
        return {t.name: tensors[t.name].to(t.parameter.device) for t in self.trainables}

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """The plain model where it can compute."""
        yield

    def close(self) -> None:
        """Leave the last weights in the plain model, and nothing of what the steps ran on."""
        if self.stage.compile:
            forget_compiled(self.model)
        if self.accelerator.num_processes > 1:
            self.wrapped = self.model
            gc.collect()  # the wrapper's hooks would outlive the stage


class Sharded(Spread):
    """A stage whose weights, gradients and moments are cut over the processes (FSDP2)."""

    def __init__(self, accelerator: Accelerator, model: XVLA, stage: Stage, resume: Snapshot | None) -> None:
        if stage.optimizer != "adamw":
            raise XvlaError(
                "moments of one byte cannot be cut into shards",
                field=f"stage {stage.name}.optimizer",
                found=stage.optimizer,
                allowed="adamw",
            )
        self._home = next(model.parameters()).device
        model.to("cpu")
        super().__init__(accelerator, model, stage, resume)

    def start(self) -> None:
        """Cut a copy of the plain model, module by module, and with it the moments of a resumed run."""
        # Florence-2's blocks hand out views and nobody writes into them.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view", category=UserWarning)
        twin = copy.deepcopy(self.model)
        if self.stage.compile:
            compile_blocks(twin)
        _shard(twin, self.accelerator, checkpointing=self.stage.checkpointing)
        self.wrapped = self.inner = twin
        named = dict(twin.named_parameters())
        self.trainables = [_moved(t, named[t.name]) for t in self.plain]
        self.optimizer = build_optimizer(self.trainables, self.stage)
        for mine, plain in zip(self.trainables, self.plain, strict=True):
            kept = self.plain_optimizer.state.get(plain.parameter)
            if kept:
                self.optimizer.state[mine.parameter] = {
                    key: _cut(value, mine.parameter) if value.ndim else beside(value, mine.parameter)
                    for key, value in kept.items()
                }
        self.forget()

    def unsynchronised(self) -> Any:
        """Every micro-batch's gradient is cut at once: keeping whole ones would take the memory that shards save."""
        return nullcontext()

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
        """As `Spread.clip`; the norm is that over all shards."""
        return _whole(super().clip(parameters, limit))

    def agree(self, wish: bool) -> bool:
        """The first process's wish: the processes' clocks differ."""
        flag = torch.tensor([int(wish)], device=self.accelerator.device)
        return bool(broadcast(flag, from_process=0))

    @torch.no_grad()
    def collect(self, *, moments: bool = False) -> None:
        """Gather, parameter by parameter; every process has to take part."""
        for mine, plain in zip(self.trainables, self.plain, strict=True):
            plain.parameter.copy_(_whole(mine.parameter))
            if moments and mine.parameter in self.optimizer.state:
                state = self.optimizer.state[mine.parameter]
                self.plain_optimizer.state[plain.parameter] = {
                    key: _whole(value).to("cpu", copy=True) for key, value in state.items()
                }

    def forget(self) -> None:
        """Let go of the plain optimizer's copy of the moments."""
        self.plain_optimizer.state.clear()

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gathered into CPU memory; every process has to take part."""
        return {name: _whole(tensor).cpu() for name, tensor in tensors.items()}

    def part(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's shards of whole tensors."""
        return {t.name: _cut(tensors[t.name], t.parameter) for t in self.trainables}

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """The plain model on the device, for as long as it is measured; the first process measures for all."""
        if not self.accelerator.is_main_process:
            yield
            return
        self.model.to(self._home)
        try:
            yield
        finally:
            self.model.to("cpu")

    def close(self) -> None:
        """Gather the last weights and bring the plain model back to the device."""
        self.collect()
        self.wrapped = self.inner = self.model
        self.trainables, self.optimizer = self.plain, self.plain_optimizer
        self.model.to(self._home)


def open_spread(accelerator: Accelerator, model: XVLA, stage: Stage, resume: Snapshot | None) -> Spread:
    """The stage's way over the processes, with what a checkpoint holds put back."""
    kind = Sharded if kind_of(accelerator, stage) == "fsdp" else Spread
    return kind(accelerator, model, stage, resume)


def kind_of(accelerator: Accelerator, stage: Stage) -> Kind:
    """How a stage lies over the processes of this launch."""
    return "whole" if set(stage.lr) <= ROWS or accelerator.num_processes == 1 else launched_kind()


def launched_kind() -> Kind:
    """What the launcher asked for; a kind that cannot be had is refused, never replaced.

    Read from the launcher's environment: on CPU processes accelerate itself would pass over it in silence.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise XvlaError(
            "DeepSpeed is not among the engines: FSDP2 cuts the same weights, gradients and moments, and its"
            " checkpoints are those of any other run",
            field="distributed_type",
            found="DEEPSPEED",
            allowed="FSDP with `fsdp_version: 2`, or MULTI_GPU",
            hint="docs/clusters.md has a configuration",
        )
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return "whole"
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise XvlaError(
            "FSDP's first version melts parameters together, so that a slot's rows have no names left",
            field="fsdp_version",
            found=version,
            allowed="2",
            hint="write `fsdp_version: 2` under `fsdp_config` of the launcher's configuration",
        )
    return "fsdp"


def _shard(model: XVLA, accelerator: Accelerator, *, checkpointing: bool) -> None:
    """Cut in place, every block of a stack apart, so that one block at a time is whole."""
    from accelerate.utils import FullyShardedDataParallelPlugin
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    asked = FullyShardedDataParallelPlugin()  # what the launcher's configuration says
    options: dict[str, Any] = {"mesh": init_device_mesh(accelerator.device.type, (accelerator.num_processes,))}
    if asked.cpu_offload is not None:
        options["offload_policy"] = asked.cpu_offload
    # A block is recomputed inside its shards: recomputed around them, it would be gathered in the backward pass again.
    model.transformer.checkpointing = False
    set_recompute(model, checkpointing)
    for block in blocks_of(model):
        fully_shard(block, reshard_after_forward=asked.reshard_after_forward, **options)
    fully_shard(model, **options)


def _moved(trainable: Trainable, parameter: nn.Parameter) -> Trainable:
    return Trainable(name=trainable.name, parameter=parameter, group=trainable.group, decay=trainable.decay)


def _whole(tensor: Tensor) -> Tensor:
    """The whole of a shard; a plain tensor is that already."""
    from torch.distributed.tensor import DTensor

    whole: Tensor = tensor.detach()
    return whole.full_tensor() if isinstance(whole, DTensor) else whole


def beside(count: Tensor, parameter: Tensor) -> Tensor:
    """A copy of a step counter on the parameter's device, where a fused optimizer wants it."""
    return count.to(parameter.device, copy=True)


def _cut(whole: Tensor, like: Tensor) -> Tensor:
    """This process's shard of a tensor that all processes have."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
