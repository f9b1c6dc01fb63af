"""The training loop: rates follow the schedule, what is not named is frozen, and what only hurts is undone."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from adapt_helpers import small_model
from loop_helpers import (  # noqa: F401
    RATES,
    Recorder,
    equal,
    falling,
    make_job,
    make_source,
    make_stage,
    processor_fixture,
    weights,
)

from xvla_platform.adapt.loop import run_stage
from xvla_platform.adapt.schedule import scale_at
from xvla_platform.adapt.snapshot import load_newest
from xvla_platform.adapt.trainables import build_optimizer, select_trainables
from xvla_platform.errors import RefusedError
from xvla_platform.modelling.processor import Processor
from xvla_platform.specs.plan import Group, LoraSpec


def test_the_rate_ramps_and_ends_at_the_floor() -> None:
    """The ramp grows by equal parts to the peak and never starts at zero; the cosine falls to the floor."""
    stage = make_stage(steps=50, warmup_steps=10, min_lr_ratio=0.2)
    scales = [scale_at(step, stage) for step in range(51)]
    assert scales[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(scales) == scales[9] == scales[10] == 1.0
    assert all(later < earlier for earlier, later in pairwise(scales[10:]))
    assert scales[50] == pytest.approx(0.2)
    assert scales[30] == pytest.approx(0.6)
    assert scale_at(500, stage) == pytest.approx(0.2)
    assert scale_at(0, make_stage(warmup_steps=0)) == 1.0


def test_the_optimizer_follows_the_schedule(processor: Processor, tmp_path: Path) -> None:
    """Each group has its own peak, and every step's rate is that peak times the schedule."""
    recorder = Recorder()
    lr: dict[Group, float] = {"soft_prompts": 1e-3, "action_heads": 2e-4}
    stage = make_stage(steps=12, warmup_steps=4, lr=lr)
    run_stage(make_job(processor, tmp_path, stage, recorder))
    for group, peak in lr.items():
        expected = [peak * scale_at(step, stage) for step in range(12)]
        assert [line[f"lr/{group}"] for line in recorder.lines] == pytest.approx(expected)


@pytest.mark.parametrize("name", list(RATES))
def test_what_a_stage_does_not_name_is_frozen(processor: Processor, tmp_path: Path, name: str) -> None:
    """Not in the optimizer, no gradient, no bit changed; what it names does change."""
    stage, recorder = make_stage(name), Recorder()
    job = make_job(processor, tmp_path, stage, recorder)
    trainables = select_trainables(job.model, stage)
    optimizer = build_optimizer(trainables, stage)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    named = dict(job.model.named_parameters())
    assert held == {id(parameter) for parameter in named.values() if parameter.requires_grad}
    assert {t.group for t in trainables} == set(stage.lr)
    assert not any(parameter.requires_grad for key, parameter in named.items() if key.endswith(".table.weight"))
    before = weights(job.model)
    outcome = run_stage(job)
    trained = {t.name for t in trainables}
    for key, tensor in weights(job.model).items():
        if key not in trained and "embed_tokens" not in key:
            assert torch.equal(tensor, before[key]), key
    changed = [t for t in trainables if not torch.equal(named[t.name], before[t.name])]
    assert {t.group for t in changed} == set(stage.lr)
    assert outcome.trained == recorder.started[0][1]
    assert sum(outcome.trained.values()) == sum(t.parameter.numel() for t in trainables)


def test_no_decay_on_rows_norms_and_biases(processor: Processor, tmp_path: Path) -> None:
    """Weight decay falls on matrices of the trunk alone."""
    stage = make_stage("full", weight_decay=0.1)
    job = make_job(processor, tmp_path, stage)
    for trainable in select_trainables(job.model, stage):
        matrix = trainable.parameter.ndim > 1 and not trainable.name.endswith(".row")
        assert trainable.decay == matrix, trainable.name


def test_training_that_only_hurts_keeps_the_start(processor: Processor, tmp_path: Path) -> None:
    """The weights before the first step are a candidate too."""
    job = make_job(processor, tmp_path, make_stage(), validate=falling([1.0, 2.0, 3.0]))
    before = weights(job.model)
    assert run_stage(job).best_step == {"robot3": 0}
    assert equal(weights(job.model), before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_loss_that_is_no_number_is_refused(processor: Processor, tmp_path: Path, bad: float) -> None:
    """Exit code 1, the step is named, and the checkpoint before it stays; no weight was touched."""
    stage = make_stage(steps=8)
    with pytest.raises(KeyboardInterrupt):
        run_stage(make_job(processor, tmp_path, stage, Recorder(7)))
    saved = load_newest(tmp_path / "checkpoints")
    assert saved is not None
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    source = make_source(processor, cached=True)
    source.action[:] = bad
    spoiled = make_job(processor, tmp_path, stage, sources=[source])
    with pytest.raises(RefusedError, match=r"stage prompt: the loss became .* at step 7; the last checkpoint is kept"):
        run_stage(spoiled, saved)
    assert RefusedError.exit_code == 1
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == kept
    parameters = dict(spoiled.model.named_parameters())
    assert all(torch.equal(parameters[name], tensor) for name, tensor in saved.current.items())


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (LoraSpec().targets, False),
        (r"(transformer|vlm)\..*\.fc1", True),
        (r"transformer\..*|vlm\.nothing", False),
        (r".*\.fc1", True),
    ],
)
def test_what_lora_targets_decides_what_is_cached(targets: str, expected: bool) -> None:
    """The names of the modules decide, not how the expression begins."""
    modules = [name for name, _ in small_model().named_modules()]
    stage = make_stage("lora", lora=LoraSpec(rank=2, alpha=4, targets=targets))
    assert stage.trains_vlm(modules) is expected


def test_a_plan_that_could_not_do_what_it_says_is_refused() -> None:
    """A single variant would be no jitter; a broken expression matches nothing."""
    with pytest.raises(ValueError, match="jitter_variants"):
        make_stage(color_jitter=(0.2, 0.0, 0.0), jitter_variants=1)
    with pytest.raises(ValueError, match="is not a regular expression"):
        LoraSpec(targets="transformer.(")


def test_what_is_measured_are_the_weights_that_the_stage_would_leave(processor: Processor, tmp_path: Path) -> None:
    """Every so many steps and once after the last: with a moving average that is what is measured, and what is left."""
    recorder, found = Recorder(), []
    job = make_job(processor, tmp_path, make_stage(ema=0.8), recorder)

    def measure() -> dict[str, float]:
        found.append(weights(job.model))
        return {"count": float(len(found))}

    outcome = run_stage(replace(job, measure=measure, measure_every=3))
    assert [i + 1 for i, line in enumerate(recorder.lines) if "count" in line] == [3, 6, 8]
    assert outcome.measured == {"count": 3.0}
    assert equal(found[-1], weights(job.model))
