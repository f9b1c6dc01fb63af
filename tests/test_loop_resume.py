"""A stage of the loop that was stopped: checkpoints, damaged or not, lead to the weights of an uninterrupted one."""

import shutil
from pathlib import Path

import pytest
import torch
from loop_helpers import Recorder, equal, falling, make_job, make_stage, processor_fixture, weights  # noqa: F401

from xvla_platform.adapt.loop import run_stage
from xvla_platform.adapt.snapshot import load_newest, snapshots
from xvla_platform.modelling.processor import Processor


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


def test_a_stage_that_keeps_its_last_weights_leaves_those(processor: Processor, tmp_path: Path) -> None:
    """With the error that they have, however low an earlier one was; those before are as with `best`."""
    whole = make_job(processor, tmp_path / "whole", make_stage(steps=9, eval_every=3))
    run_stage(whole)  # measures nothing, so it leaves its last weights
    errors = falling([5.0, 1.0, 2.0, 3.0])
    job = make_job(processor, tmp_path / "last", make_stage(steps=9, eval_every=3, keep="last"), validate=errors)
    outcome = run_stage(job)
    assert (outcome.best_error, outcome.best_step) == ({"robot3": 3.0}, {"robot3": 9})
    assert equal(weights(job.model), weights(whole.model))


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
        run_stage(make_job(processor, tmp_path, make_stage(), Recorder(3), save_every=100, save_seconds=0.0))
    assert [path.name[-2:] for path in snapshots(tmp_path / "checkpoints")] == ["01", "02"]
