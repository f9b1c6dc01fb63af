"""One optimizer step: this process's share of the batch, its losses, the gradient, the update.

Samples, flow times and noise are drawn for the whole batch and then dealt out, so that a step means the same on any
number of processes and in any number of micro-batches. What only perturbs (dropout, jitter) is each process's own.
"""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from xvla_platform.adapt.schedule import scale_at
from xvla_platform.adapt.sources import Draw, Jitter, assemble, draw
from xvla_platform.adapt.trainables import Trainable
from xvla_platform.errors import RefusedError
from xvla_platform.modelling.objective import stratified_times
from xvla_platform.platform.files import os_errors

if TYPE_CHECKING:
    from xvla_platform.adapt.loop import Job


def train_step(
    job: "Job", wrapped: Any, trainables: list[Trainable], optimizer: torch.optim.Optimizer, step: int
) -> dict[str, float]:
    """Take one step; returns loss, gradient norm, loss terms and rates, averaged over the processes.

    Args:
        wrapped: The model, or what the accelerator made of it.
        step: 0-based; with the job's seed and stage it decides everything random.
    """
    accelerator, stage, model = job.accelerator, job.stage, job.model
    model.train()
    if model.vlm is not None and not any(t.name.startswith("vlm.") for t in trainables):
        model.vlm.eval()
    optimizer.zero_grad(set_to_none=True)
    inputs, drawn = _share(job, step)
    terms: dict[str, Tensor] = {}
    count = len(inputs["action"])
    parts = _micro_batches(inputs, stage.accumulate)
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        share = len(part["action"]) / count
        with nullcontext() if last or accelerator.num_processes == 1 else accelerator.no_sync(wrapped):
            with accelerator.autocast():
                found = wrapped(**part)
            # Not `accelerator.backward`: that would divide by a number of accumulation steps of its own.
            accelerator.backward(torch.stack(list(found.values())).sum() * share)
        for name, value in found.items():
            terms[name] = terms.get(name, torch.zeros_like(value)) + value.detach() * share
    scale = scale_at(step, stage)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * scale
    norm = torch.nn.utils.clip_grad_norm_([t.parameter for t in trainables], stage.grad_clip)
    metrics = _averaged(job, terms, norm)
    if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"])):
        raise _refusal(job, step, metrics["loss"], inputs, drawn)
    optimizer.step()
    return metrics | {f"lr/{group['group']}": float(group["lr"]) for group in optimizer.param_groups}


def _share(job: "Job", step: int) -> tuple[dict[str, Any], Draw]:
    """This process's samples with their own flow times and noise, on its device; and which samples they are."""
    rank, world = job.accelerator.process_index, job.accelerator.num_processes
    stage, device = job.stage, job.accelerator.device
    drawn = draw(
        [len(source) for source in job.sources],
        job.weights,
        batch_size=stage.batch_size,
        key=(job.seed, job.index, step),
        rank=rank,
        world=world,
    )
    torch.manual_seed(derived_seed(job.seed, job.index, step, 0))
    shape = (stage.batch_size, *job.sources[0].action.shape[1:])
    t = stratified_times(torch.rand(1, device=device), stage.batch_size)
    noise = torch.randn(shape, device=device)
    if rank > 0:
        torch.manual_seed(derived_seed(job.seed, job.index, step, rank))
    jitter = Jitter(strength=stage.color_jitter) if any(stage.color_jitter) else None
    batch = _to_device(assemble(job.sources, drawn, job.processor, jitter), device)
    places = torch.from_numpy(_places(drawn, len(job.sources)) * world + rank).to(device)
    return {**batch, "t": t[places], "noise": noise[places]}, drawn


def _places(drawn: Draw, sources: int) -> NDArray[np.int64]:
    """For each sample of an assembled batch, which groups by source, its place in the draw."""
    return np.concatenate([np.flatnonzero(drawn.source == i) for i in range(sources)])


def _micro_batches(inputs: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    """The batch cut into at most `parts` of nearly equal size."""
    count = len(inputs["action"])
    if parts == 1:
        return [inputs]
    bounds = np.linspace(0, count, min(parts, count) + 1).astype(int)

    def cut(value: Any, start: int, stop: int) -> Any:
        if isinstance(value, tuple):
            return tuple(cut(item, start, stop) for item in value)
        return value[start:stop] if len(value) == count else value  # one domain id may stand for all

    return [
        {name: cut(value, start, stop) for name, value in inputs.items()}
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]


def _averaged(job: "Job", terms: Mapping[str, Tensor], norm: Tensor) -> dict[str, float]:
    """The step's numbers over all processes; the clipped gradient is the same everywhere already."""
    values = torch.stack([*terms.values()]).float()
    if job.accelerator.num_processes > 1:
        values = job.accelerator.reduce(values, reduction="mean")
    numbers = values.tolist()
    return {"loss": sum(numbers), "grad_norm": float(norm), **dict(zip(terms, numbers, strict=True))}


def _refusal(job: "Job", step: int, loss: float, inputs: Mapping[str, Any], drawn: Draw) -> RefusedError:
    """What stops a run whose numbers are lost; the batch that did it is kept for a look."""
    path = job.folder / f"lost-at-step-{step + 1}-rank-{job.accelerator.process_index}.safetensors"
    _save_batch(path, inputs, drawn)
    return RefusedError(
        f"stage {job.stage.name}: the loss became {loss} at step {step + 1}; the last checkpoint is kept",
        file=job.folder,
        hint=f"lower the learning rate, or look for extreme values in the dataset; the batch is in {path.name}",
    )


def _save_batch(path: Path, inputs: Mapping[str, Any], drawn: Draw) -> None:
    tensors = {name: value.detach().cpu().contiguous() for name, value in inputs.items() if isinstance(value, Tensor)}
    tensors |= {"source": torch.from_numpy(drawn.source.copy()), "row": torch.from_numpy(drawn.row.copy())}
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path)


def derived_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, well mixed."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = ((value ^ (part + 1)) * 0xBF58476D1CE4E5B9) % (1 << 64)
        value ^= value >> 31
    return value >> 1


def _to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    if device.type == "cpu":
        return batch

    def move(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(move(item) for item in value)
        return value.to(device, non_blocking=True)

    return {key: move(value) for key, value in batch.items()}
