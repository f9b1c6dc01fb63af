"""What saves memory or steadies weights changes nothing else: micro-batches, recomputation, averages, LoRA variants."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loop_helpers import Recorder, equal, make_job, make_stage, processor_fixture, weights  # noqa: F401

from xvla_platform.adapt.loop import run_stage
from xvla_platform.adapt.snapshot import load_newest
from xvla_platform.modelling.processor import Processor
from xvla_platform.specs.plan import LoraSpec


def trained(processor: Processor, folder: Path, name: str = "prompt", **changes: object) -> dict[str, torch.Tensor]:
    job = make_job(processor, folder, make_stage(name, dropout=0.0, color_jitter=(0.0, 0.0, 0.0), **changes))
    run_stage(job)
    return weights(job.model)


@pytest.mark.parametrize(("name", "parts"), [("prompt", 2), ("prompt", 5), ("full", 3)])
def test_micro_batches_sum_to_the_batch(processor: Processor, tmp_path: Path, name: str, parts: int) -> None:
    """The same samples, noise and times, cut into parts of unequal size: every step's losses and norm agree.

    Weights would not do: Adam makes a full step of a gradient that is zero but for rounding.
    """
    whole, cut = Recorder(), Recorder()
    for recorder, count in ((whole, 1), (cut, parts)):
        stage = make_stage(name, dropout=0.0, color_jitter=(0.0, 0.0, 0.0), accumulate=count)
        run_stage(make_job(processor, tmp_path / str(count), stage, recorder))
    for one, other in zip(whole.lines, cut.lines, strict=True):
        for key in set(one) - {"elapsed_s"}:
            assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-6), key


@pytest.mark.parametrize("name", ["prompt", "full"])
def test_recomputed_activations_give_the_same_weights(processor: Processor, tmp_path: Path, name: str) -> None:
    """Bit for bit on the CPU, also through the encoder."""
    assert equal(
        trained(processor, tmp_path / "kept", name), trained(processor, tmp_path / "again", name, checkpointing=True)
    )


def test_the_average_is_what_is_kept(processor: Processor, tmp_path: Path) -> None:
    """The weights left are the moving average of the steps' weights, by hand."""
    decay, steps = 0.7, 5
    last = [weights(make_job(processor, tmp_path / "0", make_stage()).model)]
    for count in range(1, steps + 1):
        job = make_job(processor, tmp_path / str(count), make_stage(steps=steps, warmup_steps=0), Recorder(count))
        try:
            run_stage(job)
        except KeyboardInterrupt:
            last.append(weights(job.model))
    expected = last[0]
    for after in last[1:]:
        expected = {key: decay * value + (1 - decay) * after[key] for key, value in expected.items()}
    job = make_job(processor, tmp_path / "average", make_stage(steps=steps, warmup_steps=0, ema=decay))
    run_stage(job)
    for key, value in weights(job.model).items():
        if value.is_floating_point():
            assert torch.allclose(value, expected[key], atol=1e-6), key


def test_a_stopped_average_goes_on(processor: Processor, tmp_path: Path) -> None:
    """An interruption neither loses nor restarts the average."""
    whole = make_job(processor, tmp_path / "whole", make_stage(ema=0.8))
    run_stage(whole)
    with pytest.raises(KeyboardInterrupt):
        run_stage(make_job(processor, tmp_path / "parts", make_stage(ema=0.8), Recorder(5)))
    again = make_job(processor, tmp_path / "parts", make_stage(ema=0.8))
    run_stage(again, load_newest(tmp_path / "parts" / "checkpoints"))
    assert equal(weights(whole.model), weights(again.model))


def test_the_average_is_what_is_measured(processor: Processor, tmp_path: Path) -> None:
    """During validation the model holds the average; afterwards training goes on from its own weights."""
    plain = make_job(processor, tmp_path / "plain", make_stage())
    run_stage(plain)
    seen: list[dict[str, torch.Tensor]] = []
    job = make_job(processor, tmp_path / "ema", make_stage(ema=0.9))
    watched = make_job(
        processor,
        tmp_path / "watched",
        make_stage(ema=0.9),
        validate=lambda: {"robot3": float(seen.append(weights(watched.model)) or -len(seen))},
    )
    run_stage(job)
    run_stage(watched)
    assert len(seen) == 3  # before the first step, at 4 and at 8
    assert equal(seen[-1], weights(watched.model))
    assert equal(weights(job.model), weights(watched.model))
    assert not equal(weights(plain.model), weights(job.model))


@pytest.mark.parametrize("variant", [{"rslora": True}, {"dora": True}])
def test_lora_variants_train_and_change_what_they_say(
    processor: Processor,
    tmp_path: Path,
    variant: dict[str, bool],
) -> None:
    """rsLoRA scales by the root of the rank; DoRA trains magnitudes as well."""
    spec = LoraSpec(rank=4, alpha=4, **variant)
    job = make_job(processor, tmp_path, make_stage("lora", lora=spec))
    layer = job.model.transformer.blocks[0].attn.qkv  # type: ignore[union-attr]
    scaling = layer.scaling["default"]  # type: ignore[index,union-attr]
    assert scaling == pytest.approx(4 / math.sqrt(4) if spec.rslora else 1.0)
    outcome = run_stage(job)
    names = {name for name, _ in job.model.named_parameters() if ".lora_" in name}
    assert any("magnitude" in name for name in names) == spec.dora
    assert outcome.trained["lora"] == sum(p.numel() for n, p in job.model.named_parameters() if ".lora_" in n)
    plain = make_job(processor, tmp_path / "plain", make_stage("lora", lora=LoraSpec(rank=4, alpha=4))).model
    inject = {name for name, _ in plain.named_parameters() if ".lora_" in name}
    assert (inject < names) if spec.dora else (inject == names)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("changes", [{}, {"checkpointing": True}])
def test_compiled_blocks_take_the_same_steps(processor: Processor, tmp_path: Path, changes: dict[str, bool]) -> None:
    """Encoder and policy, with recomputation too; afterwards nothing is compiled."""
    plain, compiled = Recorder(), Recorder()
    for recorder, wanted in ((plain, False), (compiled, True)):
        stage = make_stage("full", dropout=0.0, color_jitter=(0.0, 0.0, 0.0), compile=wanted, **changes)
        job = make_job(processor, tmp_path / str(wanted), stage, recorder)
        run_stage(job)
        assert all(module._compiled_call_impl is None for module in job.model.modules())
    for one, other in zip(plain.lines, compiled.lines, strict=True):
        for key in set(one) - {"elapsed_s"}:
            assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-6), key


def test_a_machine_that_cannot_compile_is_one_line(tmp_path: Path) -> None:
    """Asked before the first step, in a process of its own: torch reads the compiler's name when it is imported."""
    code = (
        "import torch; from xvla_platform.adapt.compiling import compile_blocks; compile_blocks(torch.nn.Linear(1, 1))"
    )
    environment = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-4:]
    assert done.returncode == 1
    assert any("torch cannot compile for cpu here" in line for line in last), done.stderr[-2000:]
