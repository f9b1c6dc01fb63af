"""Sharded over processes, a stage is the stage: the same losses, checkpoints that any number of processes reads."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from safetensors.torch import load_file

EXAMPLES = REPOSITORY / "docs" / "examples"
FSDP = ("--config_file", str(EXAMPLES / "fsdp.yaml"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def launched(file: Path, cases: list[dict[str, Any]], *launcher: str) -> None:
    """The cases in `accelerate launch` with these options; with none, in one process."""
    file.write_text(json.dumps(cases))
    worker = [str(REPOSITORY / "tests" / "spread_worker.py"), str(file)]
    start = ["-m", "accelerate.commands.launch", *launcher] if launcher else []
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    done = subprocess.run(
        [sys.executable, *start, *worker],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{out}.json").read_text())
    return found


def assert_same_steps(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    """Losses and norms agree at every step; weights would not do (Adam steps fully by a rounded zero)."""
    assert len(one) == len(other)
    for mine, yours in zip(one, other, strict=True):
        for key in set(mine) - {"elapsed_s"}:
            assert yours[key] == pytest.approx(mine[key], rel=2e-3, abs=1e-6), key


CASES: dict[str, dict[str, Any]] = {
    "full": {"stage": "full", "changes": {"accumulate": 2, "ema": 0.8}},
    "recomputed": {"stage": "full", "changes": {"checkpointing": True}},
    "lora": {"stage": "lora", "changes": {"lora": {"rank": 2, "alpha": 4, "dora": True}}},
    "compiled": {"stage": "lora", "changes": {"compile": True, "lora": {"rank": 2, "alpha": 4}}},
    "prompt": {"stage": "prompt", "changes": {"accumulate": 2}},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case on one process and on two, and interrupted on each of them to be resumed on the other."""
    root = tmp_path_factory.mktemp("spread")

    def case(name: str, way: str, **more: Any) -> dict[str, Any]:
        return {**CASES[name], "folder": str(root / f"{name}-{way}"), "out": str(root / f"{name}-{way}"), **more}

    launched(root / "a.json", [*(case(n, "one") for n in CASES), case("full", "one-two", stop=4)])
    sharded = [case(n, "two") for n in CASES]
    launched(root / "b.json", [*sharded, case("full", "two-one", stop=4), case("full", "one-two")], *FSDP)
    launched(root / "c.json", [case("full", "two-one")])
    return root


@pytest.mark.parametrize("name", list(CASES))
def test_two_sharded_processes_take_the_steps_of_one(runs: Path, name: str) -> None:
    """With micro-batches, averages, recomputation, DoRA and compiled blocks; what has nothing to cut stays whole."""
    one, two = report(runs / f"{name}-one"), report(runs / f"{name}-two")
    assert one["kind"] == "whole"
    assert two["kind"] == ("whole" if name == "prompt" else "fsdp")
    assert_same_steps(one["lines"], two["lines"])


@pytest.mark.parametrize("way", ["two-one", "one-two"])
def test_a_checkpoint_serves_another_number_of_processes(runs: Path, way: str) -> None:
    """Weights, moments and the average are gathered and cut again: the later steps are those of the whole run."""
    whole, resumed = report(runs / "full-one"), report(runs / f"full-{way}")
    assert resumed["start"] == 3
    assert_same_steps(whole["lines"][3:], resumed["lines"])


@pytest.mark.parametrize("way", ["two", "two-one", "one-two"])
def test_the_averages_that_are_kept_agree(runs: Path, way: str) -> None:
    """The model left behind is whole again, under the same names, and holds the moving average."""
    whole, other = load_file(runs / "full-one.safetensors"), load_file(runs / f"full-{way}.safetensors")
    assert whole.keys() == other.keys()
    for name, tensor in whole.items():
        # Biases of keys have no gradient but rounding, of which Adam makes full steps.
        if "k_proj.bias" not in name and "qkv.bias" not in name:
            assert float((tensor - other[name]).abs().max()) < 2e-4, name
