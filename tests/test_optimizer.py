"""The optimizers of a stage, and which numbers stay float32 whatever the rest is computed in."""

import sys
from pathlib import Path

import pytest
import torch
from adapt_helpers import small_batch, small_model
from loop_helpers import Recorder, equal, make_job, make_stage, processor_fixture, weights  # noqa: F401
from test_estimate import estimated

from xvla_platform.adapt.loop import run_stage
from xvla_platform.adapt.snapshot import load_newest
from xvla_platform.adapt.spread import beside
from xvla_platform.adapt.trainables import build_optimizer, select_trainables
from xvla_platform.errors import XvlaError
from xvla_platform.modelling import transformer
from xvla_platform.modelling.processor import Processor


def test_moments_of_one_byte_go_on_after_an_interruption(processor: Processor, tmp_path: Path) -> None:
    """With bitsandbytes: fewer bytes for large weights, and the same bits whether interrupted or not."""
    pytest.importorskip("bitsandbytes")
    stage = make_stage("full", optimizer="adamw8bit", dropout=0.0, color_jitter=(0.0, 0.0, 0.0))
    whole = make_job(processor, tmp_path / "whole", stage)
    run_stage(whole)
    with pytest.raises(KeyboardInterrupt):
        run_stage(make_job(processor, tmp_path / "parts", stage, Recorder(5)))
    found = load_newest(tmp_path / "parts" / "checkpoints")
    assert found is not None
    widths = {key.rpartition(".")[2]: value.dtype for key, value in found.moments.items()}
    assert torch.uint8 in {value.dtype for key, value in found.moments.items() if key.endswith("state1")}, widths
    again = make_job(processor, tmp_path / "parts", stage)
    run_stage(again, found)
    assert equal(weights(whole.model), weights(again.model))


def test_without_bitsandbytes_it_is_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the estimate already, with what to install; never another optimizer instead."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(XvlaError, match=r"moments of one byte need bitsandbytes.*xvla-platform\[eightbit\]"):
        estimated("prompt", changes={"optimizer": "adamw8bit"})
    stage = make_stage(optimizer="adamw8bit")
    with pytest.raises(XvlaError, match="bitsandbytes"):
        build_optimizer(select_trainables(small_model(), stage), stage)


def test_times_and_losses_stay_float32_under_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flow time, its embedding and every loss; the blocks between do compute in bfloat16."""
    model = small_model()
    seen: dict[str, torch.dtype] = {}
    embed = transformer.time_embedding

    def watched(t: torch.Tensor, dim: int) -> torch.Tensor:
        out = embed(t, dim)
        seen.update(time=t.dtype, embedding=out.dtype)
        return out

    monkeypatch.setattr(transformer, "time_embedding", watched)
    model.transformer.blocks[0].mlp.fc1.register_forward_hook(lambda _m, _i, out: seen.update(block=out.dtype))
    batch = small_batch([1], model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(**batch)
    assert seen == {"time": torch.float32, "embedding": torch.float32, "block": torch.bfloat16}
    assert {value.dtype for value in losses.values()} == {torch.float32}
    exact = model(**batch)
    for name, value in losses.items():
        assert float(value) == pytest.approx(float(exact[name]), rel=0.1)


def test_a_resumed_step_counter_lies_beside_its_parameter() -> None:
    """A fused optimizer reads both in one kernel; a count left in CPU memory stops it at its first step."""
    count = torch.tensor(4.0)
    assert beside(count, torch.empty(2, device="meta")).device.type == "meta"
    copied = beside(count, torch.empty(2))
    assert copied == 4
    assert copied.data_ptr() != count.data_ptr()
