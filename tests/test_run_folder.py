"""A run's folder: there or not there, and what a finished stage left is believed only while it is whole."""

from pathlib import Path

import pytest
import torch
from conftest import ROBOT, make_record, tree

from xvla_platform.adapt.run import Run, StageResult, load_run, start_run
from xvla_platform.specs.plan import AdaptationPlan, Stage

RESULT = StageResult(
    name="prompt", best_error={"my_arm": 0.5}, best_step={"my_arm": 3}, frozen="all", frozen_sha256="0"
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    stage = Stage(name="prompt", steps=3, warmup_steps=0, lr={"soft_prompts": 1e-3})
    plan = AdaptationPlan(name="x", stages=(stage,))
    return start_run(tmp_path / "my_arm", [make_record(ROBOT)], plan, {"my_arm": {}})


def test_a_run_that_could_not_be_described_leaves_no_folder(run: Run) -> None:
    before = tree(run.folder.parent)
    with pytest.raises(ValueError, match="not JSON compliant"):
        start_run(run.folder.parent, run.records, run.plan, {"my_arm": {"mean": float("nan")}})
    assert tree(run.folder.parent) == before
    assert [path.name for path in run.folder.parent.iterdir()] == ["001"]


@pytest.mark.parametrize("spoil", ["flip", "cut", "other"])
def test_a_damaged_stage_is_run_again(run: Run, caplog: pytest.LogCaptureFixture, spoil: str) -> None:
    """Its weights would go into every later stage; the stage is not finished then, and that is said."""
    assert not run.has_stage(0)
    run.save_stage(0, {"row": torch.arange(6.0)}, RESULT)
    assert run.has_stage(0)
    assert load_run(run.folder).finished_stages == [RESULT]
    path = run.stage_file(0)
    data = bytearray(path.read_bytes())
    if spoil == "flip":
        data[-3] ^= 1
    path.write_bytes(data[:-4] if spoil == "cut" else data + b"0" if spoil == "other" else data)
    assert not run.has_stage(0)
    assert "is damaged; its stage is run again" in caplog.text
    run.save_stage(0, {"row": torch.ones(6)}, RESULT)
    assert run.has_stage(0)
    assert torch.equal(run.load_stage(0)["row"], torch.ones(6))
    assert not list(run.folder.glob("*.part"))
