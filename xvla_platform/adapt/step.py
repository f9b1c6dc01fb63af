"""One optimizer step: this process's share of the batch, its losses, the gradient, the update.

Samples, flow times and noise are drawn for the whole batch and then dealt out, so that a step means the same on any
number of processes and in any number of micro-batches. What only perturbs (dropout, jitter) is each process's own.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from xvla_platform.adapt.schedule import scale_at
from xvla_platform.adapt.sources import Draw, Jitter, Source, assemble, draw
from xvla_platform.adapt.spread import Spread
from xvla_platform.errors import RefusedError
from xvla_platform.modelling.objective import stratified_times
from xvla_platform.platform.files import os_errors

if TYPE_CHECKING:
    from xvla_platform.adapt.loop import Job


def train_step(job: "Job", spread: Spread, step: int) -> dict[str, float]:
    """Take one step; returns loss, gradient norm, loss terms and rates, averaged over the processes.

    Args:
        spread: The model as it lies over the processes, with its optimizer.
        step: 0-based; with the job's seed and stage it decides everything random.
    """
    stage, model, optimizer = job.stage, spread.inner, spread.optimizer
    model.train()
    if model.vlm is not None and not any(t.name.startswith("vlm.") for t in spread.trainables):
        model.vlm.eval()
    optimizer.zero_grad(set_to_none=True)
    # Robots that are trained apart take turns within the step, each with the batch it would have drawn alone.
    groups = [[source] for source in job.sources] if job.owners else [job.sources]
    batches: list[tuple[dict[str, Any], Draw]] = []
    terms: list[dict[str, Tensor]] = []
    for turn, sources in enumerate(groups):
        inputs, drawn = _share(job, step, sources)
        batches.append((inputs, drawn))
        terms.append(_differentiate(job, spread, inputs, synchronise=turn == len(groups) - 1))
    scale = scale_at(step, stage)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * scale
    metrics = _averaged(job, terms, _clip(job, spread))
    if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"])):
        lost = next((i for i, found in enumerate(terms) if not all(map(math.isfinite, found.values()))), 0)
        raise _refusal(job, step, metrics["loss"], *batches[lost])
    optimizer.step()
    return metrics | {f"lr/{group['group']}": float(group["lr"]) for group in optimizer.param_groups}


def _differentiate(job: "Job", spread: Spread, inputs: dict[str, Any], *, synchronise: bool) -> dict[str, Tensor]:
    """Add the gradient of the batch's mean loss, in micro-batches; returns the mean of each loss term.

    Args:
        synchronise: Whether the last micro-batch averages the gradient over the processes.
    """
    terms: dict[str, Tensor] = {}
    count = len(inputs["action"])
    parts = _micro_batches(inputs, job.stage.accumulate)
    for i, part in enumerate(parts):
        last = synchronise and i == len(parts) - 1
        share = len(part["action"]) / count
        with nullcontext() if last else spread.unsynchronised():
            with job.accelerator.autocast():
                found = spread.wrapped(**part)
            spread.backward(torch.stack(list(found.values())).sum() * share)
        for name, value in found.items():
            terms[name] = terms.get(name, torch.zeros_like(value)) + value.detach() * share
    return terms


def _clip(job: "Job", spread: Spread) -> dict[str, Tensor]:
    """Clip the gradient; returns the norms before that: the whole one, and with robots apart each robot's own.

    Robots apart are clipped each by the norm of its own rows, so that no robot's gradient scales another's. What they
    share gets the mean over the robots, and a norm of its own.
    """
    limit, trainables = job.stage.grad_clip, spread.trainables
    if not job.owners:
        return {"grad_norm": spread.clip([t.parameter for t in trainables], limit)}
    norms: dict[str, Tensor] = {}
    for robot in [source.name for source in job.sources]:
        rows = [t.parameter for t in trainables if job.owners.get(t.name) == robot]
        norms[f"grad_norm/{robot}"] = spread.clip(rows, limit)
    shared = [t.parameter for t in trainables if t.name not in job.owners]
    for parameter in shared:
        if parameter.grad is not None:
            parameter.grad.div_(len(job.sources))
    if shared:
        norms["grad_norm/shared"] = spread.clip(shared, limit)
    return {"grad_norm": torch.stack(list(norms.values())).norm(), **norms}


def _share(job: "Job", step: int, sources: Sequence[Source]) -> tuple[dict[str, Any], Draw]:
    """This process's samples of a batch with their own flow times and noise, on its device; and which they are."""
    rank, world = job.accelerator.process_index, job.accelerator.num_processes
    stage, device = job.stage, job.accelerator.device
    key = (job.seed, job.index, step)
    more: dict[str, Any] = {}
    if job.draw is not None:
        drawn, more = job.draw(batch_size=stage.batch_size, key=key, rank=rank, world=world)
    else:
        drawn = draw(
            [len(source) for source in sources],
            job.weights if len(sources) == len(job.sources) else [1.0],
            batch_size=stage.batch_size,
            key=key,
            rank=rank,
            world=world,
        )
    torch.manual_seed(derived_seed(job.seed, job.index, step, 0))
    shape = (stage.batch_size, *sources[0].action.shape[1:])
    t = stratified_times(torch.rand(1, device=device), stage.batch_size)
    noise = torch.randn(shape, device=device)
    if rank > 0:
        torch.manual_seed(derived_seed(job.seed, job.index, step, rank))
    jitter = Jitter(strength=stage.color_jitter) if any(stage.color_jitter) else None
    batch = _to_device({**assemble(sources, drawn, job.processor, jitter), **more}, device)
    places = torch.from_numpy(_places(drawn, len(sources)) * world + rank).to(device)
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


def _averaged(job: "Job", terms: Sequence[Mapping[str, Tensor]], norms: Mapping[str, Tensor]) -> dict[str, float]:
    """The step's numbers over all processes and robots; the clipped gradient is the same everywhere already."""
    values = torch.stack([torch.stack([*found.values()]) for found in terms]).float()
    if job.accelerator.num_processes > 1:
        values = job.accelerator.reduce(values, reduction="mean")
    mean = values.mean(0).tolist()
    metrics = {"loss": sum(mean), **{name: float(norm) for name, norm in norms.items()}}
    if job.owners:
        losses = values.sum(1).tolist()
        metrics |= {f"loss/{source.name}": loss for source, loss in zip(job.sources, losses, strict=True)}
    return metrics | dict(zip(terms[0], mean, strict=True))


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
