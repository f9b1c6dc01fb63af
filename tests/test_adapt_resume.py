"""`xvla adapt` however it was stopped: nothing half-written stays, and `--resume` ends with the same bytes."""

import json
import random
import resource
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest
from adapt_cli_helpers import ADAPT, SHORT, adapter, done_fixture, finish, fresh_fixture, template_fixture  # noqa: F401
from adapt_helpers import command, start, stop_at
from conftest import one_line_error, tree

from xvla_platform.cli.main import resume_hint


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (
            "adapt --steps 5 --embodiment my_arm --workspace='a b'",
            "adapt --embodiment my_arm '--workspace=a b' --resume",
        ),
        ("adapt --embodiment my_arm --resume", "adapt --embodiment my_arm --resume"),
        ("pretrain recipe.yaml --out b --resume", "pretrain recipe.yaml --out b --resume"),
    ],
)
def test_the_hint_is_the_command_to_type(typed: str, hint: str) -> None:
    """With its own robot and folder, --resume once, and no flag that --resume refuses."""
    assert resume_hint(shlex.split(typed)) == f"`xvla {hint}` goes on from the last checkpoint"


def leftovers(root: Path) -> list[str]:
    """Half-written things: hidden siblings of writers, and partial files."""
    return [str(path) for path in root.rglob("*") if path.name.startswith(".xvla-new") or path.suffix == ".part"]


@pytest.mark.parametrize(
    "limit", [20_000, pytest.param(50_000, marks=pytest.mark.slow)], ids=["checkpoint", "artifact"]
)
def test_a_full_disk_keeps_what_is_whole(done: Path, fresh: Path, limit: int) -> None:
    """One line, nothing registered, nothing half-written; with space again --resume ends as if nothing had been."""
    words = (*ADAPT, "--then", "none", *SHORT)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    line = one_line_error(finish(start(*words, cwd=fresh, preexec_fn=fill)))
    assert "disk full while writing" in line
    assert not list((fresh / "registry").glob("*/v*"))
    assert leftovers(fresh) == []
    assert command(*ADAPT, "--resume", cwd=fresh) == 0
    assert adapter(fresh, 1) == adapter(done, 1)


@pytest.mark.parametrize(("stage", "step", "how"), [("prompt", 4, signal.SIGINT), ("lora", 3, signal.SIGKILL)])
def test_stopped_and_resumed_it_has_the_same_bytes(
    done: Path, fresh: Path, capfd: pytest.CaptureFixture[str], stage: str, step: int, how: signal.Signals
) -> None:
    """Ctrl-C or a kill in either stage: the adapter is that of the uninterrupted run, its measurements complete."""
    stopped = finish(start(*ADAPT, "--plan", "plan.yaml", cwd=fresh, env=stop_at(stage, step, how)))
    assert not list((fresh / "registry").glob("*/v*"))
    # Registered again in between, as with other data, the robot has other statistics; the run keeps its own.
    (fresh / "embodiments" / "my_arm" / "stats.json").write_text("{}")
    if how == signal.SIGINT:
        line = one_line_error(stopped, code=130)
        assert line == "error: interrupted; `xvla adapt --embodiment my_arm --resume` goes on from the last checkpoint"
        assert leftovers(fresh) == []
    else:
        assert stopped.returncode == -signal.SIGKILL
    assert command(*ADAPT, "--resume", cwd=fresh) == 0
    assert adapter(fresh, 1) == adapter(done, 2)
    told = capfd.readouterr().out
    assert "the interrupted run runs/my_arm/001" in told
    assert leftovers(fresh) == []
    lines = [json.loads(line) for line in (fresh / "runs/my_arm/001/metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [
        (s, i) for s in ("prompt", "lora") for i in range(1, 7)
    ]
    results = [json.loads((root / "metrics.json").read_text())["table"] for root in versions(fresh, done)]
    assert results[0] == results[1]
    assert not list((fresh / "runs/my_arm/001").glob("*.safetensors"))
    assert command(*ADAPT, "--resume", cwd=fresh) == 2


def test_a_requeued_job_goes_on_with_its_own_run_alone(
    done: Path, fresh: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`--resume-if-begun` takes up an interrupted run of the same plan, and no other; then there is none left."""
    job = (*ADAPT, "--plan", "plan.yaml", "--resume-if-begun")
    finish(start(*job, cwd=fresh, env=stop_at("lora", 3)))
    capfd.readouterr()
    assert command(*job, "--seed", "9", "--dry-run", cwd=fresh) == 0
    assert "runs/my_arm/001 was not finished" in capfd.readouterr().out
    assert command(*job, cwd=fresh) == 0
    assert "resume    runs/my_arm/001, an interrupted run of this plan" in capfd.readouterr().out
    assert adapter(fresh, 1) == adapter(done, 2)
    assert command(*job, "--dry-run", cwd=fresh) == 0
    assert "runs/my_arm/001" not in capfd.readouterr().out


def test_killed_after_registering_it_makes_no_second_version(done: Path, tmp_path: Path) -> None:
    """Between the rename into the registry and the run's own note of it."""
    root = tmp_path / "place"
    shutil.copytree(done, root)
    before = tree(root / "registry")
    state = root / "runs/my_arm/004/run.json"
    state.write_text(state.read_text().replace('"finished"', '"running"'))
    assert command(*ADAPT, "--resume", cwd=root) == 0
    assert tree(root / "registry") == before
    assert json.loads(state.read_text())["state"]["status"] == "finished"


def test_an_unfinished_run_is_mentioned(fresh: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Who starts again may not know that nothing was lost."""
    finish(start(*ADAPT, "--plan", "plan.yaml", cwd=fresh, env=stop_at("prompt", 3)))
    capfd.readouterr()
    assert command(*ADAPT, "--dry-run", cwd=fresh) == 0
    told = capfd.readouterr().out
    assert "runs/my_arm/001 was not finished; `xvla adapt --embodiment my_arm --resume` goes on with it" in told


def versions(fresh: Path, done: Path) -> tuple[Path, Path]:
    return fresh / "registry/my_arm/v1", done / "registry/my_arm/v2"


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_passed_over(done: Path, fresh: Path) -> None:
    """The run goes on from the one before it and still ends with the same bytes."""
    finish(start(*ADAPT, "--plan", "plan.yaml", cwd=fresh, env=stop_at("lora", 5)))
    newest = sorted((fresh / "runs/my_arm/001/checkpoints").glob("stage-1-*"))[-1] / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    assert command(*ADAPT, "--resume", cwd=fresh) == 0
    assert adapter(fresh, 1) == adapter(done, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_moments_it_has_the_same_bytes(done: Path, fresh: Path, seed: int) -> None:
    """Killed again and again, wherever it happens to be (reading, training, saving, drawing, registering)."""
    chance = random.Random(seed)
    process = start(*ADAPT, "--plan", "plan.yaml", cwd=fresh)
    for _ in range(4):
        time.sleep(chance.uniform(2.0, 12.0))
        process.kill()
        process.communicate()
        if list((fresh / "registry").glob("my_arm/v*")):
            break
        resumable = (fresh / "runs/my_arm/001/run.json").is_file()
        process = start(*ADAPT, *(("--resume",) if resumable else ("--plan", "plan.yaml")), cwd=fresh)
    ended = finish(process) if process.returncode is None else process
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    assert adapter(fresh, 1) == adapter(done, 2)
    assert leftovers(fresh / "registry") == []
