"""The training loop: rates, freezing, checkpoints, and the same weights however often a run was stopped."""

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from adapt_helpers import PIXELS, SENTENCES, TOKENS, small_model, write_small_base
from torch import Tensor

from xvla_platform.adapt.arrays import allocate
from xvla_platform.adapt.loop import Job, run_stage
from xvla_platform.adapt.schedule import scale_at
from xvla_platform.adapt.snapshot import load_newest, snapshots
from xvla_platform.adapt.sources import Draw, Source, assemble, draw
from xvla_platform.adapt.trainables import build_optimizer, select_trainables
from xvla_platform.errors import RefusedError, XvlaError
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.slot import open_slot
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.policy.adapter import inject_lora
from xvla_platform.specs.plan import Group, LoraSpec, Stage

MINE = 3
RATES: dict[str, dict[Group, float]] = {
    "prompt": {"soft_prompts": 1e-3, "action_heads": 1e-3},
    "lora": {"soft_prompts": 1e-3, "action_heads": 1e-3, "lora": 1e-3},
    "full": {"soft_prompts": 1e-4, "action_heads": 1e-3, "transformer_core": 1e-3, "vlm": 1e-4},
}


def make_stage(name: str = "prompt", **changes: Any) -> Stage:
    """A short stage of each kind; full tuning with dropout and colour jitter, as in the built-in recipe."""
    values: dict[str, Any] = {"name": name, "steps": 8, "batch_size": 6, "warmup_steps": 2, "eval_every": 4}
    values |= {"lr": RATES[name], "lora": LoraSpec(rank=2, alpha=4, dropout=0.1) if name == "lora" else None}
    if name == "full":
        values |= {"dropout": 0.1, "color_jitter": (0.2, 0.2, 0.2)}
    return Stage(**{**values, **changes})


class Recorder:
    """What the loop reported; optionally ends the process's patience at a step."""

    def __init__(self, stop: int | None = None) -> None:
        self.lines: list[dict[str, float]] = []
        self.started: list[tuple[int, dict[str, int]]] = []
        self._stop = stop

    def stage_started(self, stage: Stage, index: int, start: int, trained: Mapping[str, int]) -> None:
        self.started.append((start, dict(trained)))

    def step_finished(self, stage: Stage, step: int, metrics: Mapping[str, float]) -> None:
        self.lines.append(dict(metrics))
        if step == self._stop:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    folder = write_small_base(tmp_path_factory.mktemp("base") / "base")
    return Processor.from_folder(folder, XVLAConfig.from_folder(folder))


def make_source(processor: Processor, *, cached: bool, count: int = 20, domain: int = MINE, seed: int = 0) -> Source:
    """Random samples of one robot."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (count, 2, PIXELS, PIXELS, 3), generator=generator, dtype=torch.uint8)
    features = (
        torch.randn(count, TOKENS + 16, 32, generator=generator),
        torch.randn(count, TOKENS, 32, generator=generator),
    )
    return Source(
        name=f"robot{domain}",
        domain_id=domain,
        proprio=torch.randn(count, 20, generator=generator),
        action=torch.randn(count, 10, 20, generator=generator),
        tokens=torch.tensor([processor.tokens(text) for text in SENTENCES[:2]]),
        instruction_of=torch.arange(count) % 2,
        frames=frames.numpy(),
        num_views=2,
        features=features if cached else None,
    )


def make_job(processor: Processor, folder: Path, stage: Stage, recorder: Recorder | None = None, **more: Any) -> Job:
    """A fresh model with what the stage needs, ready to run."""
    model = small_model()
    if stage.lora is not None:
        inject_lora(model, stage.lora, seed=0)
    open_slot(model, MINE)
    in_loop = stage.trains_vlm(name for name, _ in model.named_modules())
    if not in_loop:
        model.vlm = None
    values: dict[str, Any] = {
        "model": model,
        "stage": stage,
        "index": 0,
        "seed": 7,
        "sources": [make_source(processor, cached=not in_loop)],
        "weights": [1.0],
        "processor": processor,
        "accelerator": Accelerator(cpu=True),
        "folder": folder,
        "observer": recorder or Recorder(),
        "save_every": 3,
    }
    return Job(**{**values, **more})


def weights(model: XVLA) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


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


def falling(values: Sequence[float]) -> Any:
    """A validation error that takes the given values in turn."""
    rest = iter(values)
    return lambda: {"robot3": next(rest)}


@pytest.mark.parametrize(
    ("name", "stop"), [("prompt", 1), ("prompt", 4), ("prompt", 7), ("lora", 1), ("lora", 4), ("lora", 7), ("full", 5)]
)
def test_a_stopped_stage_ends_with_the_same_weights(processor: Processor, tmp_path: Path, name: str, stop: int) -> None:
    """Stopped before and after checkpoints, resumed in a fresh model: weights, losses and position are equal."""
    stage, whole, first, second = make_stage(name), Recorder(), Recorder(stop), Recorder()
    job = make_job(processor, tmp_path / "whole", stage, whole)
    run_stage(job)
    with pytest.raises(KeyboardInterrupt):
        run_stage(make_job(processor, tmp_path / "parts", stage, first))
    again = make_job(processor, tmp_path / "parts", stage, second)
    torch.manual_seed(stop)
    run_stage(again, load_newest(tmp_path / "parts" / "checkpoints"))
    begun = second.started[0][0]
    assert begun == stop // 3 * 3
    assert equal(weights(job.model), weights(again.model))
    assert [line["loss"] for line in second.lines] == [line["loss"] for line in whole.lines[begun:]]


def test_the_best_weights_are_kept_over_an_interruption(processor: Processor, tmp_path: Path) -> None:
    """The lowest validation error wins, not the last, also where it was measured before the interruption."""
    stage = make_stage(steps=9, eval_every=3)
    best = make_job(processor, tmp_path / "three", make_stage(steps=9, eval_every=3), Recorder(3))
    with pytest.raises(KeyboardInterrupt):
        run_stage(best)
    whole = make_job(processor, tmp_path / "whole", stage, validate=falling([5.0, 1.0, 2.0, 3.0]))
    outcome = run_stage(whole)
    assert (outcome.best_error, outcome.best_step) == ({"robot3": 1.0}, {"robot3": 3})
    assert equal(weights(whole.model), weights(best.model))
    with pytest.raises(KeyboardInterrupt):
        run_stage(make_job(processor, tmp_path / "parts", stage, Recorder(7), validate=falling([5.0, 1.0, 2.0])))
    again = make_job(processor, tmp_path / "parts", stage, validate=falling([3.0]))
    assert run_stage(again, load_newest(tmp_path / "parts" / "checkpoints")).best_step == {"robot3": 3}
    assert equal(weights(again.model), weights(whole.model))


def test_training_that_only_hurts_keeps_the_start(processor: Processor, tmp_path: Path) -> None:
    """The weights before the first step are a candidate too."""
    job = make_job(processor, tmp_path, make_stage(), validate=falling([1.0, 2.0, 3.0]))
    before = weights(job.model)
    assert run_stage(job).best_step == {"robot3": 0}
    assert equal(weights(job.model), before)


def test_a_damaged_checkpoint_falls_back(
    processor: Processor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The newest whole one is taken and the damage is said; with none left the stage starts again; results agree."""
    stage = make_stage()
    whole = make_job(processor, tmp_path / "whole", stage)
    run_stage(whole)
    with pytest.raises(KeyboardInterrupt):
        run_stage(make_job(processor, tmp_path / "parts", stage, Recorder(7)))
    folder = tmp_path / "parts" / "checkpoints"
    assert [path.name for path in snapshots(folder)] == ["stage-0-step-00000003", "stage-0-step-00000006"]
    spoiled = folder / "stage-0-step-00000006" / "tensors.safetensors"
    data = bytearray(spoiled.read_bytes())
    data[-5] ^= 1
    spoiled.write_bytes(data)
    found = load_newest(folder)
    assert found is not None
    assert found.step == 3
    assert "stage-0-step-00000006 is damaged" in caplog.text
    again = make_job(processor, tmp_path / "parts", stage)
    run_stage(again, found)
    assert equal(weights(whole.model), weights(again.model))
    (folder / "stage-0-step-00000008" / "tensors.safetensors").write_bytes(b"")
    for path in snapshots(folder):
        (path / "state.json").write_text("{")
    assert load_newest(folder) is None


def test_a_checkpoint_damaged_before_a_resume_is_written_anew(processor: Processor, tmp_path: Path) -> None:
    """Resumed from an older checkpoint, the run leaves whole ones behind, also at the damaged step."""
    stage = make_stage()
    with pytest.raises(KeyboardInterrupt):
        run_stage(make_job(processor, tmp_path, stage, Recorder(7)))
    folder = tmp_path / "checkpoints"
    (folder / "stage-0-step-00000006" / "tensors.safetensors").write_bytes(b"damaged")
    with pytest.raises(KeyboardInterrupt):
        run_stage(make_job(processor, tmp_path, stage, Recorder(7)), load_newest(folder))
    found = load_newest(folder)
    assert found is not None
    assert found.step == 6


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_loss_that_is_no_number_is_refused(processor: Processor, tmp_path: Path, bad: float) -> None:
    """Exit code 1, the step is named, and the checkpoint before it stays; no weight was touched."""
    stage = make_stage(steps=8)
    recorder = Recorder(6)
    job = make_job(processor, tmp_path, stage, recorder)
    with pytest.raises(KeyboardInterrupt):
        run_stage(job)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    source = make_source(processor, cached=True)
    source.action[:] = bad
    spoiled = make_job(processor, tmp_path, stage, sources=[source])
    with pytest.raises(RefusedError, match=r"stage prompt: the loss became .* at step 7; the last checkpoint is kept"):
        run_stage(spoiled, load_newest(tmp_path / "checkpoints"))
    assert RefusedError.exit_code == 1
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == kept
    assert equal(weights(spoiled.model), weights(job.model))


@pytest.mark.parametrize("world", [2, 3])
def test_the_batch_does_not_depend_on_the_processes(world: int) -> None:
    """The ranks' shares together are the single process's batch, and the steps differ from each other."""
    sizes, shares = [100, 7, 40], [1.0, 0.0, 3.0]
    whole = draw(sizes, shares, batch_size=24, key=(3, 1, 9))
    ranks = [draw(sizes, shares, batch_size=24, key=(3, 1, 9), rank=rank, world=world) for rank in range(world)]

    def pairs(parts: Sequence[Draw]) -> list[tuple[int, int]]:
        return sorted((int(s), int(r)) for part in parts for s, r in zip(part.source, part.row, strict=True))

    assert pairs(ranks) == pairs([whole])
    assert len({len(rank.row) for rank in ranks}) == 1
    assert pairs([whole]) != pairs([draw(sizes, shares, batch_size=24, key=(3, 1, 10))])
    assert pairs([whole]) != pairs([draw(sizes, shares, batch_size=24, key=(3, 2, 9))])
    assert pairs([whole]) != pairs([draw(sizes, shares, batch_size=24, key=(4, 1, 9))])
    assert 1 not in whole.source
    assert all(row < sizes[source] for source, row in zip(whole.source, whole.row, strict=True))


def test_a_mixture_is_drawn_by_its_weights() -> None:
    """One to three, whatever the sizes of the datasets."""
    drawn = draw([1000, 10], [1, 3], batch_size=8000, key=(0, 0, 0))
    assert float((drawn.source == 1).mean()) == pytest.approx(0.75, abs=0.02)
    assert set(drawn.row[drawn.source == 1].tolist()) == set(range(10))


def test_a_batch_of_several_robots(processor: Processor) -> None:
    """Each sample keeps its own robot, words and numbers; one robot alone is one domain id."""
    first = make_source(processor, cached=True, domain=1)
    second = replace(make_source(processor, cached=True, domain=2, seed=1), frames=None)
    drawn = Draw(source=np.array([1, 0, 1]), row=np.array([4, 2, 9]))
    batch = assemble([first, second], drawn, processor)
    assert batch["domain_id"].tolist() == [1, 2, 2]
    assert torch.equal(batch["action"], torch.stack([first.action[2], second.action[4], second.action[9]]))
    assert second.features is not None
    assert torch.equal(batch["features"][0][1:], second.features[0][[4, 9]])
    alone = assemble([first], Draw(source=np.array([0, 0]), row=np.array([1, 2])), processor)
    assert alone["domain_id"].tolist() == [1]
    seen = assemble([replace(first, features=None)], Draw(source=np.array([0]), row=np.array([1])), processor)
    assert torch.equal(seen["input_ids"][0], first.tokens[1])
    assert torch.equal(seen["pixel_values"][0], processor.images(first.frames[1]))
    one_view = replace(first, features=None, frames=first.frames[:, :1])
    masked = assemble([one_view], Draw(source=np.array([0]), row=np.array([1])), processor)
    assert masked["image_mask"].tolist() == [[True, False]]
    assert not masked["pixel_values"][0, 1].any()


def test_only_two_checkpoints_are_kept(processor: Processor, tmp_path: Path) -> None:
    """Disk use does not grow with the length of a run."""
    run_stage(make_job(processor, tmp_path, make_stage(steps=10), save_every=1))
    assert [path.name[-2:] for path in snapshots(tmp_path / "checkpoints")] == ["09", "10"]
    shutil.rmtree(tmp_path / "checkpoints")


def test_nothing_to_validate_needs_no_best(processor: Processor, tmp_path: Path) -> None:
    """Pretraining's checkpoints hold every weight once, not twice."""
    run_stage(make_job(processor, tmp_path, make_stage()))
    found = load_newest(tmp_path / "checkpoints")
    assert found is not None
    assert found.best == {}


def test_a_slow_stage_is_saved_by_the_clock(processor: Processor, tmp_path: Path) -> None:
    """However many steps lie between two checkpoints, minutes do not get lost."""
    with pytest.raises(KeyboardInterrupt):
        run_stage(make_job(processor, tmp_path, make_stage(), Recorder(2), save_every=100, save_seconds=0.0))
    assert [path.name[-2:] for path in snapshots(tmp_path / "checkpoints")] == ["01", "02"]


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


def test_a_full_disk_is_seen_before_an_array_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse map would end the process by a signal when its pages find no place."""
    path = tmp_path / "scratch" / "frames.npy"
    allocate((4, 8), np.uint8, path, budget=0)[:] = 1
    assert path.stat().st_blocks * 512 >= path.stat().st_size

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(XvlaError, match="disk full while writing"):
        allocate((4, 8), np.uint8, path, budget=0)
    assert not path.exists()
