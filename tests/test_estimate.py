"""What is said before a run is what the run takes: parameters exactly, memory within a third."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from adapt_helpers import command, small_config, small_model, write_place
from conftest import REPOSITORY
from loop_helpers import RATES, make_stage

from xvla_platform.adapt.estimate import Estimate, estimate_plan
from xvla_platform.adapt.trainables import counts, select_trainables
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.slot import open_slot
from xvla_platform.policy.adapter import inject_lora
from xvla_platform.specs.plan import AdaptationPlan

WITHIN = 0.35


def estimated(name: str, config: dict[str, Any] | None = None, **more: Any) -> Estimate:
    changes = more.pop("changes", {})
    values: dict[str, Any] = {
        "in_loop": frozenset({"full"}) if name == "full" else frozenset(),
        "frames": 100,
        "device": torch.device("cpu"),
        **more,
    }
    stage = make_stage(name, dropout=0.0, color_jitter=(0.0, 0.0, 0.0), **changes)
    plan = AdaptationPlan(name="x", stages=(stage,))
    return estimate_plan(plan, XVLAConfig.from_dict(config or small_config()), (64, 64), **values)


@pytest.mark.parametrize("name", list(RATES))
def test_parameters_are_those_that_will_train(name: str) -> None:
    """Group by group, with nothing loaded; moments are two numbers for each."""
    stage = make_stage(name)
    model = small_model()
    if stage.lora is not None:
        inject_lora(model, stage.lora, seed=0)
    open_slot(model, 3)
    if name != "full":
        model.vlm = None
    found = estimated(name).stages[0]
    expected = counts(select_trainables(model, stage))
    assert found.trained == expected
    assert found.moments == 8 * sum(expected.values())
    everything = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    assert found.frozen == everything - sum(expected.values())


def test_what_saves_memory_is_seen_to_save_it() -> None:
    """Recomputation, micro-batches and processes lower what is kept; shards lower weights and moments."""
    plain = estimated("full").stages[0]
    assert estimated("full", changes={"checkpointing": True}).stages[0].activations < 0.7 * plain.activations
    assert estimated("full", changes={"accumulate": 3}).stages[0].activations < 0.5 * plain.activations
    shared = estimated("full", processes=2).stages[0]
    assert shared.activations < 0.7 * plain.activations
    assert shared.moments == plain.moments
    sharded = estimated("full", processes=2, kinds={"full": "fsdp"}).stages[0]
    assert (sharded.moments, sharded.weights) == (plain.moments // 2, plain.weights // 2)
    assert estimated("prompt", robots=3).stages[0].trained["soft_prompts"] == 3 * 64


def test_the_dry_run_says_it_for_programs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`--dry-run --json` holds every stage's numbers and starts nothing."""
    root = write_place(tmp_path / "place")
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    capfd.readouterr()
    assert command("adapt", "--embodiment", "my_arm", "--dry-run", "--json", cwd=root) == 0
    estimate = json.loads(capfd.readouterr().out)["estimate"]
    assert [stage["name"] for stage in estimate["stages"]] == ["prompt", "lora"]
    assert estimate["peak"] > estimate["program"] > 0
    assert estimate["cache"] == 46 * (2 * (2 * 2 + 1) + 16) * 32 * 4
    assert all(stage["seconds"] > 0 for stage in estimate["stages"])
    assert not (root / "runs" / "my_arm").exists()


MEASURE = """
import json, resource, sys
import torch
from test_estimate import WIDE, estimated
from loop_helpers import RATES, Recorder, make_stage
from xvla_platform.modelling.checkpoint import random_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.slot import open_slot
from xvla_platform.adapt.trainables import build_optimizer, select_trainables

name = sys.argv[1]
estimate = estimated(name, WIDE, changes={"batch_size": 8})
stage = make_stage(name, batch_size=8, dropout=0.0, color_jitter=(0.0, 0.0, 0.0))
model = random_model(XVLAConfig.from_dict(WIDE), 0)
if name == "prompt":
    model.vlm = None
open_slot(model, 3)
trainables = select_trainables(model, stage)
optimizer = build_optimizer(trainables, stage)
best = [t.parameter.detach().clone() for t in trainables]
batch = {"domain_id": torch.tensor([3]), "proprio": torch.randn(8, 20), "t": torch.rand(8)}
batch |= {"action": torch.randn(8, 30, 20), "noise": torch.randn(8, 30, 20)}
if name == "prompt":
    batch["features"] = (torch.randn(8, 5 + 16, 32), torch.randn(8, 5, 32))
else:
    batch |= {"input_ids": torch.zeros(8, 16, dtype=torch.long), "pixel_values": torch.randn(8, 2, 3, 64, 64)}
    batch["image_mask"] = torch.ones(8, 2, dtype=torch.bool)
model.train()
for _ in range(2):
    optimizer.zero_grad(set_to_none=True)
    sum(model(**batch).values()).backward()
    optimizer.step()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"peak": peak, "program": estimate.program, "memory": estimate.stages[0].memory}))
"""
# Wide enough that a step takes far more than the program around it varies by.
WIDE = small_config(hidden_size=768, depth=8, num_heads=12, mlp_ratio=4.0, num_actions=30, max_len_seq=128)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prompt", "full"])
def test_memory_is_what_a_real_step_takes(name: str) -> None:
    """Peak of a process that trains, against the estimate made in it before; the program around it set aside."""
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, name],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    took = found["peak"] - found["program"]
    assert took > 2e8
    assert abs(found["memory"] / took - 1) < WITHIN, found
