"""Damaged plugin files and datasets: refused in one line, with nothing written; never a traceback, never a hang.

A share runs always; all of it with `pytest -m slow tests/test_fuzz.py` (10,000 plugin files, 1,000 datasets).
"""

import json
import os
import random
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, tree, write_base
from data_helpers import write_dataset
from fuzz_mutations import damage_folder, damage_yaml
from fuzz_worker import FULL

PATIENCE_S = 60.0  # wall clock for one case, on a machine with other work
BATCH = 1000


def run_cases(kind: str, first: int, count: int, folder: Path) -> list[dict[str, Any]]:
    """What came of each case. A worker that dies or does not answer loses one case and is started again."""
    outcomes: list[dict[str, Any]] = []
    end, attempt = first + count, 0
    while first < end:
        attempt += 1
        lost, done = _run_worker(kind, first, min(end - first, BATCH), folder / f"{kind}-{attempt}")
        outcomes += done
        if lost is not None:
            outcomes.append(lost)
        first += len(done) + (lost is not None)
    return outcomes


def _run_worker(kind: str, first: int, count: int, folder: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    worker = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tests" / "fuzz_worker.py"), kind, str(first), str(count), str(folder)],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert worker.stdout is not None
    assert worker.stderr is not None
    done: list[dict[str, Any]] = []
    current, buffer, deadline = first, b"", time.monotonic() + PATIENCE_S
    with selectors.DefaultSelector() as selector:
        selector.register(worker.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                worker.kill()
                worker.wait()
                return {"seed": current, "outcome": "hang"}, done
            chunk = worker.stdout.read(65536)
            if not chunk:
                break
            deadline = time.monotonic() + PATIENCE_S
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in map(json.loads, lines):
                if "begins" in line:
                    current = line["begins"]
                else:
                    done.append(line)
    words = worker.stderr.read().decode()[-500:]
    code = worker.wait()
    if code == 0:
        assert len(done) == count
        return None, done
    return {"seed": current, "outcome": "killed", "error": f"exit {code}: {words}"}, done


def judge(outcomes: list[dict[str, Any]], count: int) -> Counter[str]:
    """Every case ended as it must."""
    bad = [outcome for outcome in outcomes if outcome["outcome"] not in ("refused", "fine")]
    kinds = Counter(f"{outcome.get('error')} at {outcome.get('where')}" for outcome in bad)
    assert not bad, f"{len(bad)} of {count}: " + "\n".join(f"{n} x {kind}" for kind, n in kinds.most_common(20))
    assert len(outcomes) == count
    return Counter(outcome["outcome"] for outcome in outcomes)


def test_damaged_plugin_files(tmp_path: Path) -> None:
    """A share of the full run; most are refused, and some damage does no harm."""
    counts = judge(run_cases("plugins", 0, 60, tmp_path), 60)
    assert counts["refused"] > 30
    assert counts["fine"] > 0


def test_damaged_datasets(tmp_path: Path) -> None:
    counts = judge(run_cases("datasets", 0, 9, tmp_path), 9)
    assert counts["refused"] > 2


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_damaged_plugin_files(tmp_path: Path) -> None:
    judge(run_cases("plugins", 1000, 10_000, tmp_path), 10_000)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_thousand_damaged_datasets(tmp_path: Path) -> None:
    judge(run_cases("datasets", 1000, 1_000, tmp_path), 1_000)


def test_the_command_line_on_damaged_files(xvla: Callable[..., Any], workspace: Any) -> None:
    """A sample through real processes: done, refused or misused, one line of error, nothing half-written."""
    _through_the_command_line(xvla, workspace, range(1, 3))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_command_line_on_many_damaged_files(xvla: Callable[..., Any], workspace: Any) -> None:
    _through_the_command_line(xvla, workspace, range(100, 160))


def _through_the_command_line(xvla: Callable[..., Any], workspace: Any, seeds: range) -> None:
    write_base(workspace.root / "base")
    for seed in seeds:
        rng = random.Random(f"command {seed}")
        folder = workspace.plugins / f"arm_{seed}"
        write_dataset(folder / "demonstrations")
        text = yaml.safe_dump({**FULL, "name": f"arm_{seed}"}, sort_keys=False)
        broken = seed % 3 == 2
        (folder / "plugin.yaml").write_bytes(text.encode() if broken else damage_yaml(text, rng))
        if broken:
            damage_folder(folder / "demonstrations", rng)
        before = tree(workspace.embodiments)
        words = ("add-embodiment", f"plugins/arm_{seed}", "--base", "base")
        result = xvla(*words, cwd=workspace.root, env={"HF_HUB_OFFLINE": "1"})
        assert "Traceback" not in result.stderr, (seed, result.stderr)
        assert result.returncode in (0, 1, 2), (seed, result.stderr)
        if result.returncode:
            errors = [line for line in result.stderr.strip().splitlines() if line.startswith("error: ")]
            assert len(errors) == 1, (seed, result.stderr)
            assert tree(workspace.embodiments) == before, seed
