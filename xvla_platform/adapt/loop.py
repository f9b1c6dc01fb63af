"""The one training loop: a stage's steps, its measurements, its checkpoints.

Prompt-only, LoRA, full tuning and pretraining are values of `Stage` over different sources. Each step's
randomness (samples, flow time, noise, dropout, jitter) is derived from (seed, stage, step, rank), so the loop can be
killed anywhere and continued with the same weights as if it had not been.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor

from xvla_platform.adapt.keeping import keep_weights, new_state
from xvla_platform.adapt.recompute import set_recompute
from xvla_platform.adapt.snapshot import Snapshot, save_snapshot
from xvla_platform.adapt.sources import Draw, Source
from xvla_platform.adapt.spread import Spread, open_spread
from xvla_platform.adapt.step import train_step
from xvla_platform.adapt.trainables import Trainable
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
        validate: Errors to be lowered, by robot, measured on the validation episodes; None keeps the last weights.
        measure: Further numbers, told with the step: every `measure_every` steps and after the last one, on the
            weights that the stage would leave if it ended there (whole ones, and the average where there is one). The
            first process measures for all.
        draw: Another way to draw a step's samples, with further inputs of the model in the order of its batch (what
            `adapt.mixture` does for pretraining); None draws by `weights`, every sample of a source alike.
        owners: In a run of several robots, whose row a parameter is, by its name. Each source then draws a batch of its
            own, as it would alone. Empty: all sources share one batch.
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
    validate: Callable[[], Mapping[str, float]] | None = None
    measure: Callable[[], Mapping[str, float]] | None = None
    measure_every: int | None = None
    draw: Callable[..., tuple[Draw, dict[str, Tensor]]] | None = None
    owners: Mapping[str, str] = field(default_factory=dict)
    save_every: int = 100
    save_seconds: float = 300.0

    def measures_at(self, done: int) -> bool:
        """Whether `measure` is due after `done` steps."""
        every = self.measure_every
        return self.measure is not None and (done == self.stage.steps or (every is not None and done % every == 0))

    def validate_now(self) -> dict[str, float]:
        """Measure the model as it stands, in evaluation mode; the first process measures for all."""
        assert self.validate is not None
        self.model.eval()
        if self.accelerator.num_processes == 1:
            return dict(self.validate())
        names = [source.name for source in self.sources]
        found = self.validate() if self.accelerator.is_main_process else dict.fromkeys(names, 0.0)
        errors = torch.tensor([found[name] for name in names], dtype=torch.float64, device=self.accelerator.device)
        return dict(zip(names, broadcast(errors, from_process=0).tolist(), strict=True))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished stage: the validation error of the weights kept and the step they are from, by robot.

    `measured` is what `Job.measure` told after the last step; empty where that step was not taken now.
    """

    best_error: dict[str, float]
    best_step: dict[str, int]
    trained: dict[str, int]
    measured: dict[str, float]


def run_stage(job: Job, resume: Snapshot | None = None) -> Outcome:
    """Run one stage to its end, leaving the weights that it keeps in the model."""
    model, stage = job.model, job.stage
    spread = open_spread(job.accelerator, model, stage, resume)
    trainables = spread.plain
    state = new_state()
    best: dict[str, Tensor] = {}
    start = 0
    if resume is not None:
        state, best, start = dict(resume.state), dict(resume.best), resume.step
    trained: dict[str, int] = {
        str(group): sum(t.parameter.numel() for t in trainables if t.group == group) for group in stage.lr
    }
    model.transformer.set_dropout(stage.dropout)
    _set_checkpointing(model, stage, trainables)
    spread.start()
    average: dict[str, Tensor] = {}
    if stage.ema is not None:
        average = _copy(spread.trainables) if resume is None else spread.part(resume.average)
    job.observer.stage_started(stage, job.index, start, trained)
    if start == 0:
        _keep(job, spread, 0, state, best)
    saved = time.monotonic()
    began = time.monotonic() - float(state["elapsed_s"])
    measured: dict[str, float] = {}
    for step in range(start, stage.steps):
        metrics: dict[str, float] = train_step(job, spread, step)
        done = step + 1
        if stage.ema is not None:
            _follow(average, spread.trainables, stage.ema)
        validates = job.validate is not None and (done % stage.eval_every == 0 or done == stage.steps)
        if validates or job.measures_at(done):
            spread.collect()
            with _holding(trainables, spread.whole(average)):
                errors = _keep(job, spread, done, state, best) if validates else {}
                measured = _measured(job, spread) if job.measures_at(done) else {}
            metrics |= _named(errors) | measured
        state["elapsed_s"] = time.monotonic() - began
        metrics["elapsed_s"] = state["elapsed_s"]
        # Before the checkpoint: what is measured here is measured again by whoever resumes, and not left out.
        job.observer.step_finished(stage, done, metrics)
        late = spread.agree(time.monotonic() - saved >= job.save_seconds)
        if late or done % job.save_every == 0 or done == stage.steps:
            saved = time.monotonic()
            _save(job, spread, done, state, best, average)
    kept = best if job.validate is not None else spread.whole(average)
    spread.close()
    _finish(job, trainables, kept)
    return Outcome(best_error=state["best_error"], best_step=state["best_step"], trained=trained, measured=measured)


def _keep(job: Job, spread: Spread, done: int, state: dict[str, Any], best: dict[str, Tensor]) -> dict[str, float]:
    """Measure, and remember the weights that are to be kept so far; returns the errors by robot."""
    if job.validate is None:
        return {}
    with spread.measuring():
        errors = job.validate_now()
    keep_weights(errors, done, which=job.stage.keep, trainables=spread.plain, owners=job.owners, state=state, kept=best)
    return errors


def _named(errors: Mapping[str, float]) -> dict[str, float]:
    """Validation errors as a step's line tells them: their mean, and of several robots each one's own."""
    if not errors:
        return {}
    apart = errors if len(errors) > 1 else {}
    mean = sum(errors.values()) / len(errors)
    return {"validation_error": mean} | {f"validation_error/{robot}": error for robot, error in apart.items()}


def _measured(job: Job, spread: Spread) -> dict[str, float]:
    """What the job measures beside its validation error; the first process measures for all."""
    assert job.measure is not None
    with spread.measuring():
        return dict(job.measure()) if job.accelerator.is_main_process else {}


def _save(
    job: Job,
    spread: Spread,
    done: int,
    state: Mapping[str, Any],
    best: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint: gathered by all processes, written by the first."""
    spread.collect(moments=True)
    average = spread.whole(average)
    if job.accelerator.is_main_process:
        save_snapshot(
            job.folder / "checkpoints",
            stage=job.index,
            step=done,
            state=state,
            trainables=spread.plain,
            best=best,
            average=average,
            optimizer=spread.plain_optimizer,
        )
    spread.forget()


def _set_checkpointing(model: XVLA, stage: Stage, trainables: list[Trainable]) -> None:
    """Recompute activations of what is differentiated; a frozen encoder keeps none anyway."""
    model.transformer.checkpointing = stage.checkpointing
    if model.vlm is not None:
        set_recompute(model.vlm, stage.checkpointing and any(t.name.startswith("vlm.") for t in trainables))


def _copy(trainables: list[Trainable]) -> dict[str, Tensor]:
    return {t.name: t.parameter.detach().clone() for t in trainables}


@torch.no_grad()
def _follow(average: Mapping[str, Tensor], trainables: list[Trainable], decay: float) -> None:
    for trainable in trainables:
        average[trainable.name].lerp_(trainable.parameter, 1.0 - decay)


@contextmanager
def _holding(trainables: list[Trainable], tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with `tensors` in place of its trained weights; with none given, as it is."""
    if not tensors:
        yield
        return
    own = _copy(trainables)
    _put(trainables, tensors)
    try:
        yield
    finally:
        _put(trainables, own)


@torch.no_grad()
def _put(trainables: list[Trainable], tensors: Mapping[str, Tensor]) -> None:
    for trainable in trainables:
        trainable.parameter.copy_(tensors[trainable.name])


def _finish(job: Job, trainables: list[Trainable], kept: Mapping[str, Tensor]) -> None:
    """Leave the kept weights, where there are any, in the model, in evaluation mode."""
    if kept:
        _put(trainables, kept)
    for trainable in trainables:
        trainable.parameter.grad = None
    job.model.eval()
