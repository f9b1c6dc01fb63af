"""The one training loop: a stage's steps, its measurements, its checkpoints.

Prompt-only, LoRA, full tuning and pretraining are values of `Stage` over different sources. Each step's
randomness (samples, flow time, noise, dropout, jitter) is derived from (seed, stage, step, rank), so the loop can be
killed anywhere and continued with the same weights as if it had not been.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from xvla_platform.adapt.schedule import scale_at
from xvla_platform.adapt.snapshot import Snapshot, restore, save_snapshot
from xvla_platform.adapt.sources import Jitter, Source, assemble, draw
from xvla_platform.adapt.trainables import Trainable, build_optimizer, select_trainables
from xvla_platform.errors import RefusedError
from xvla_platform.modelling.objective import stratified_times
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.specs.plan import Stage


class Observer(Protocol):
    """Where the loop reports; the CLI draws bars, the run folder keeps lines."""

    def stage_started(self, stage: Stage, index: int, start: int, trained: Mapping[str, int]) -> None: ...
    def step_finished(self, stage: Stage, step: int, metrics: Mapping[str, float]) -> None: ...


class Observers:
    """Several observers as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def stage_started(self, stage: Stage, index: int, start: int, trained: Mapping[str, int]) -> None:
        """Tell each in turn."""
        for observer in self._observers:
            observer.stage_started(stage, index, start, trained)

    def step_finished(self, stage: Stage, step: int, metrics: Mapping[str, float]) -> None:
        """Tell each in turn."""
        for observer in self._observers:
            observer.step_finished(stage, step, metrics)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything one stage needs.

    Attributes:
        validate: Error to be lowered, measured on the validation episodes; None keeps the last weights.
        save_every: Steps between checkpoints; one is also written when `save_seconds` have passed.
    """

    model: XVLA
    stage: Stage
    index: int
    seed: int
    sources: Sequence[Source]
    weights: Sequence[float]
    processor: Processor
    accelerator: Accelerator
    folder: Path
    observer: Observer
    validate: Callable[[], float] | None = None
    save_every: int = 100
    save_seconds: float = 300.0

    def validate_now(self) -> float:
        """Measure the model as it stands, in evaluation mode."""
        assert self.validate is not None
        self.model.eval()
        return self.validate()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished stage: the validation error of the weights kept, and the step they are from."""

    best_error: float | None
    best_step: int
    trained: dict[str, int]


def run_stage(job: Job, resume: Snapshot | None = None) -> Outcome:
    """Run one stage to its end, leaving the best weights in the model."""
    model, stage = job.model, job.stage
    trainables = select_trainables(model, stage)
    optimizer = build_optimizer(trainables, stage)
    state: dict[str, Any] = {"best_error": None, "best_step": 0, "elapsed_s": 0.0}
    best: dict[str, Tensor] = {}
    start = 0
    if resume is not None:
        restore(resume, trainables, optimizer)
        state, best, start = dict(resume.state), dict(resume.best), resume.step
    trained: dict[str, int] = {
        str(group): sum(t.parameter.numel() for t in trainables if t.group == group) for group in stage.lr
    }
    model.transformer.set_dropout(stage.dropout)
    wrapped = job.accelerator.prepare_model(model) if job.accelerator.num_processes > 1 else model
    job.observer.stage_started(stage, job.index, start, trained)
    if start == 0:
        state["best_error"] = None if job.validate is None else job.validate_now()
        best = _copy(trainables) if job.validate is not None else {}
    saved = time.monotonic()
    began = time.monotonic() - float(state["elapsed_s"])
    for step in range(start, stage.steps):
        metrics: dict[str, float] = _train_step(job, wrapped, trainables, optimizer, step)
        done = step + 1
        if job.validate is not None and (done % stage.eval_every == 0 or done == stage.steps):
            error = job.validate_now()
            metrics["validation_error"] = error
            if state["best_error"] is None or error < state["best_error"]:
                state |= {"best_error": error, "best_step": done}
                best = _copy(trainables)
        state["elapsed_s"] = time.monotonic() - began
        metrics["elapsed_s"] = state["elapsed_s"]
        due = done % job.save_every == 0 or time.monotonic() - saved >= job.save_seconds
        if (due or done == stage.steps) and job.accelerator.is_main_process:
            saved = time.monotonic()
            save_snapshot(
                job.folder / "checkpoints",
                stage=job.index,
                step=done,
                state=state,
                trainables=trainables,
                best=best,
                optimizer=optimizer,
            )
        job.observer.step_finished(stage, done, metrics)
    _finish(job, trainables, best)
    return Outcome(best_error=state["best_error"], best_step=int(state["best_step"]), trained=trained)


def _train_step(
    job: Job, wrapped: Any, trainables: list[Trainable], optimizer: torch.optim.Optimizer, step: int
) -> dict[str, float]:
    accelerator, stage, model = job.accelerator, job.stage, job.model
    rank, world = accelerator.process_index, accelerator.num_processes
    torch.manual_seed(_seed(job.seed, job.index, step, rank))
    model.train()
    if model.vlm is not None and not any(t.name.startswith("vlm.") for t in trainables):
        model.vlm.eval()
    jitter = Jitter(strength=stage.color_jitter) if any(stage.color_jitter) else None
    drawn = draw(
        [len(source) for source in job.sources],
        job.weights,
        batch_size=stage.batch_size,
        key=(job.seed, job.index, step),
        rank=rank,
        world=world,
    )
    batch = _to_device(assemble(job.sources, drawn, job.processor, jitter), accelerator.device)
    action = batch["action"]
    t = stratified_times(torch.rand(1, device=action.device), action.shape[0])
    noise = torch.randn_like(action)
    with accelerator.autocast():
        terms = wrapped(noise=noise, t=t, **batch)
    loss = torch.stack(list(terms.values())).sum()
    scale = scale_at(step, stage)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * scale
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    norm = torch.nn.utils.clip_grad_norm_([t.parameter for t in trainables], stage.grad_clip)
    value = float(loss.detach())
    if not math.isfinite(value) or not math.isfinite(float(norm)):
        raise RefusedError(
            f"stage {stage.name}: the loss became {value} at step {step + 1}; the last checkpoint is kept",
            file=job.folder,
            hint="lower the learning rate, or look for extreme values in the dataset",
        )
    optimizer.step()
    rates = {f"lr/{group['group']}": float(group["lr"]) for group in optimizer.param_groups}
    return {"loss": value, "grad_norm": float(norm), **{k: float(v.detach()) for k, v in terms.items()}, **rates}


def _seed(*parts: int) -> int:
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


def _copy(trainables: list[Trainable]) -> dict[str, Tensor]:
    return {t.name: t.parameter.detach().clone() for t in trainables}


@torch.no_grad()
def _finish(job: Job, trainables: list[Trainable], best: Mapping[str, Tensor]) -> None:
    """Leave the best weights (by validation error, where there is one) in the model, in evaluation mode."""
    if job.validate is not None:
        for trainable in trainables:
            trainable.parameter.copy_(best[trainable.name])
    for trainable in trainables:
        trainable.parameter.grad = None
    job.model.eval()
