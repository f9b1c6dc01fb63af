"""`xvla adapt` on several processes is `xvla adapt`: the same batches, the same result, one voice, one version."""

import json
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from adapt_cli_helpers import ADAPT, ADAPTER, write_plan
from adapt_helpers import command, torchrun, write_place
from safetensors.torch import load_file

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registered robot, and version 1 from one process."""
    root = write_place(tmp_path_factory.mktemp("ranks") / "place")
    write_plan(root)
    plan = (root / "plan.yaml").read_text().replace("dropout: 0.1", "dropout: 0.0")
    (root / "plan.yaml").write_text(plan)
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    assert command(*ADAPT, "--plan", "plan.yaml", cwd=root) == 0
    return root


def weights(root: Path, version: int) -> dict[str, torch.Tensor]:
    return load_file(root / "registry" / "my_arm" / f"v{version}" / ADAPTER)


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[k], other[k], atol=tolerance) for k in one)


def newest(root: Path) -> int:
    return max(int(path.name[1:]) for path in (root / "registry" / "my_arm").glob("v*") if path.is_dir())


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_end_where_one_does(place: Path, processes: int) -> None:
    """Weights agree but for the order of additions; features are found, not encoded; one process speaks."""
    before = {path: path.stat().st_mtime_ns for path in (place / "runs" / ".features").rglob("*.bin")}
    assert before
    process = torchrun(*ADAPT, "--plan", "plan.yaml", "--json", cwd=place, processes=processes)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    assert json.loads(out)["adaptation"] == f"my_arm/v{newest(place)}"
    assert newest(place) > 1
    assert close(weights(place, 1), weights(place, newest(place)), 1e-5)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (run,) = sorted((place / "runs" / "my_arm").glob("[0-9]*"))[-1:]
    assert len([line for line in (run / "metrics.jsonl").read_text().splitlines() if line]) == 12


def test_a_killed_launch_goes_on_with_another_number_of_processes(place: Path) -> None:
    """Two processes killed in the middle, one goes on: the same weights as if nothing had happened."""
    shutil.rmtree(place / "runs" / ".features")  # and the two encode together
    process = torchrun(*ADAPT, "--plan", "plan.yaml", cwd=place, processes=2, start_new_session=True)
    runs = place / "runs" / "my_arm"
    deadline = time.monotonic() + 200
    while not list(runs.glob("*/checkpoints/stage-0-step-*")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    # The launcher gives each rank a session of its own.
    for victim in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        victim.send_signal(signal.SIGKILL)
    process.communicate()
    assert command(*ADAPT, "--resume", cwd=place) == 0
    assert close(weights(place, 1), weights(place, newest(place)), 1e-5)


def test_a_batch_that_cannot_be_shared_is_refused_by_one_voice(place: Path) -> None:
    """One line from the first process, the others end quietly, nothing was started."""
    before = sorted((place / "runs" / "my_arm").iterdir())
    process = torchrun(*ADAPT, "--batch-size", "3", "--steps", "2", cwd=place, processes=2)
    _, err = process.communicate(timeout=200)
    assert process.returncode != 0
    assert err.count("the processes cannot share a batch equally; found 3; allowed: a multiple of 2") == 1
    assert sorted((place / "runs" / "my_arm").iterdir()) == before
