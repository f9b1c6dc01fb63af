"""Runs killed at random moments: what `--resume` ends with is what an uninterrupted run ends with.

A case is a random plan (stages, accumulation, averages, jittered variants), a random number of processes, and one to
three kills with SIGKILL of a random process: a rank, or the launcher. Each kill falls near an event chosen at random:
while features are encoded, while a checkpoint is written, between stages, while the version is registered. Then the run
is resumed, perhaps on another number of processes, until it has finished.

Two cases run always. All fifty: `pytest -m slow tests/test_kills.py`; any part of them, with a line a case:
`python tests/test_kills.py --kills 10 --first 20`.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from adapt_helpers import command, start, torchrun, write_place
from safetensors.torch import load_file

ADAPT = ("adapt", "--embodiment", "my_arm")
KILLS = int(os.environ.get("XVLA_KILLS", "50"))
ALWAYS = (7, 44)
PLANS = 10
ACROSS = 1e-6  # largest difference of a weight between numbers of processes
PATIENCE_S = 300.0
SLOT = {"soft_prompts": 1e-3, "action_heads": 1e-3}
STAGES: dict[str, dict[str, Any]] = {
    "prompt": {"lr": SLOT},
    "lora": {"lr": {**SLOT, "lora": 1e-3}, "lora": {"rank": 2, "alpha": 4}},
    "full": {"lr": {**SLOT, "transformer_core": 1e-4, "vlm": 1e-4}},
}

Event = Callable[[Path], bool]


def _exists(pattern: str) -> Event:
    return lambda root: any(True for _ in root.glob(pattern))


EVENTS: dict[str, Event] = {
    "starting": lambda root: True,
    "run folder": _exists("runs/my_arm/001"),
    "encoding": _exists("runs/.features/*/blocks.bin"),
    "first checkpoint": _exists("runs/my_arm/001/checkpoints/*"),
    "writing a checkpoint": _exists("runs/my_arm/001/checkpoints/.xvla-*"),
    "first stage over": _exists("runs/my_arm/001/stage-0*"),
    "second stage": _exists("runs/my_arm/001/checkpoints/stage-1-*"),
    "registering": _exists("registry/my_arm/.xvla-*"),
    "registered": _exists("registry/my_arm/v1"),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is run and where it is killed.

    Attributes:
        processes: Of each leg: those that are killed, then the one that ends the run.
        kills: Event, seconds after it, and victim (0: first rank, 1: second, -1: launcher) of each killed leg.
    """

    seed: int
    plan: dict[str, Any]
    processes: tuple[int, ...]
    kills: tuple[tuple[str, float, int], ...]

    @property
    def one_process(self) -> bool:
        return set(self.processes) == {1}


def make_plan(number: int) -> dict[str, Any]:
    """One of some plans: each is run to its end once and compared with many killed runs."""
    rng = random.Random(f"plan {number}")
    names = (("prompt",), ("prompt", "lora"), ("prompt", "full"), ("lora",), ("full",))[number % 5]
    stages = []
    for name in names:
        stage = {"name": name, "steps": 6, "batch_size": 4, "warmup_steps": 1, "eval_every": 2, **STAGES[name]}
        if rng.random() < 0.4:
            stage["accumulate"] = 2
        if rng.random() < 0.3:
            stage["ema"] = 0.8
        # What the encoder sees in the loop is jittered by each process on its own, so that there is no one result.
        if rng.random() < 0.4 and name != "full":
            stage |= {"color_jitter": [0.2, 0.2, 0.2], "jitter_variants": 2}
        stages.append(stage)
    return {"name": f"killed-{number}", "seed": number, "stages": stages}


def make_case(seed: int) -> Case:
    """The case of that number."""
    rng = random.Random(f"kill {seed}")
    several, count = rng.random() < 0.4, rng.choice((1, 1, 2, 3))
    processes = tuple(rng.choice((1, 2)) if several else 1 for _ in range(count + 1))
    plan = make_plan(rng.randrange(PLANS))
    events = [name for name in EVENTS if len(plan["stages"]) > 1 or name != "second stage"]
    kills = tuple(
        (rng.choice(events), rng.uniform(0.0, 0.4), rng.choice((0, 1, -1)) if size > 1 else 0)
        for size in processes[:-1]
    )
    return Case(seed=seed, plan=plan, processes=processes, kills=kills)


def make_template(folder: Path) -> Path:
    """A workspace with a registered robot."""
    root = write_place(folder / "template")
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    return root


def run_case(case: Case, template: Path, folder: Path) -> dict[str, Any]:
    """Run it with its kills, compare with its plan's whole run; returns what happened.

    A broken promise is an AssertionError.
    """
    whole, root = template.parent / case.plan["name"], folder / "killed"
    words = (*ADAPT, "--features", "cache")
    for place in (root,) if whole.is_dir() else (root, whole):
        shutil.copytree(template, place)
        (place / "plan.yaml").write_text(yaml.safe_dump(case.plan))
        if place == whole:
            assert command(*words, "--plan", "plan.yaml", cwd=whole) == 0
    happened = []
    for processes, kill in zip(case.processes, case.kills, strict=False):
        if _finished(root):
            break
        more = ("--resume",) if _running(root) else ("--plan", "plan.yaml")
        happened.append(_kill(_launch(root, *words, *more, processes=processes), root, *kill))
    if not _finished(root):
        more = ("--resume",) if _running(root) else ("--plan", "plan.yaml")
        if case.processes[-1] == 1:
            assert command(*words, *more, cwd=root) == 0
        else:
            process = _launch(root, *words, *more, processes=case.processes[-1])
            told = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, told[1]
    return {
        "seed": case.seed,
        "kills": happened,
        "processes": case.processes,
        "difference": _compare(case, whole, root),
    }


def _launch(root: Path, *words: str, processes: int) -> "subprocess.Popen[str]":
    return start(*words, cwd=root) if processes == 1 else torchrun(*words, cwd=root, processes=processes)


def _kill(process: "subprocess.Popen[str]", root: Path, event: str, delay: float, victim: int) -> str:
    """Kill a process of the launch soon after the event; returns what was killed once all of them are gone."""
    deadline = time.monotonic() + PATIENCE_S
    if EVENTS[event](root):  # an earlier leg left it: then this one falls somewhere in its start
        event = "starting"
    while not EVENTS[event](root) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay if event != "starting" else delay * 20)
    own = psutil.Process(process.pid) if process.poll() is None else None
    ranks = own.children(recursive=True) if own is not None else []
    killed = "nothing: it had ended"
    if own is not None:
        target = ranks[victim] if victim >= 0 and victim < len(ranks) else own
        name = f"rank {victim}" if target is not own else "the launcher" if ranks else "the process"
        killed = f"{name} at '{event}' + {delay:.2f} s"
        try:
            target.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            killed = "nothing: it had ended"
    _, told = process.communicate(timeout=PATIENCE_S)
    _, alive = psutil.wait_procs(ranks, timeout=60)
    assert not alive, f"{len(alive)} processes go on after their launch was killed"
    assert _finished(root) or (process.returncode != 0 and not killed.startswith("nothing")), told
    return killed


def _state(root: Path) -> str | None:
    files = sorted(root.glob("runs/my_arm/*/run.json"))
    return str(json.loads(files[-1].read_text())["state"]["status"]) if files else None


def _running(root: Path) -> bool:
    return _state(root) == "running"


def _finished(root: Path) -> bool:
    return _state(root) == "finished"


def _compare(case: Case, whole: Path, root: Path) -> float:
    """The largest difference of a weight; one version, one run, nothing half-written."""
    versions = [path.name for path in (root / "registry" / "my_arm").iterdir() if path.is_dir()]
    assert versions == ["v1"], versions
    assert _finished(root)
    runs = sorted(path.name for path in (root / "runs" / "my_arm").iterdir())
    assert runs in (["001"], ["001", "stages"]), runs
    left = [
        str(path.relative_to(root))
        for path in [*(root / "runs").rglob("*"), *(root / "registry").rglob("*")]
        if path.name.startswith(".xvla-") or path.suffix == ".part" or path.name in ("checkpoints", "scratch")
    ]
    assert not left, left
    lines = [json.loads(line) for line in (root / "runs/my_arm/001/metrics.jsonl").read_text().splitlines()]
    expected = [(s["name"], i) for s in case.plan["stages"] for i in range(1, s["steps"] + 1)]
    assert [(line["stage"], line["step"]) for line in lines] == expected
    worst = 0.0
    for name in ("adapter_model.safetensors", "model.safetensors"):
        one, other = (place / "registry" / "my_arm" / "v1" / name for place in (whole, root))
        assert one.is_file() == other.is_file()
        if not one.is_file():
            continue
        if case.one_process:
            assert one.read_bytes() == other.read_bytes(), name
        first, second = _that_matter(load_file(one)), _that_matter(load_file(other))
        assert first.keys() == second.keys()
        differences = {key: float((first[key] - second[key]).abs().max()) for key in first}
        key = max(differences, key=lambda name: differences[name])
        assert differences[key] <= ACROSS, f"{key} differs by {differences[key]:.2g}"
        worst = max(worst, differences[key])
    assert all(bool(torch.isfinite(torch.tensor(line["loss"]))) for line in lines)
    return worst


def _that_matter(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the biases of attention's keys: they change no output, so their gradient is nothing but rounding.

    Adam makes steps of it all the same, which differ where processes add up in another order.
    """
    out = {}
    for name, tensor in tensors.items():
        if name.endswith((".attn.qkv.bias", ".window_attn.fn.qkv.bias")):
            query, _, value = tensor.chunk(3)
            out[name] = torch.cat([query, value])
        elif not name.endswith(".k_proj.bias"):
            out[name] = tensor
    return out


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("kills"))


@pytest.mark.timeout(280)
@pytest.mark.parametrize("seed", ALWAYS)
def test_killed_and_resumed(template: Path, tmp_path: Path, seed: int) -> None:
    """A share of the cases below."""
    print(run_case(make_case(seed), template, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_random_and_resumed(template: Path, tmp_path: Path, seed: int) -> None:
    """Stages, process counts and moments at random."""
    print(run_case(make_case(seed), template, tmp_path))


def main() -> None:
    """Some of the cases, with a line for each."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        made = make_template(Path(name))
        for seed in range(chosen.first, chosen.first + chosen.kills):
            case, began = make_case(seed), time.monotonic()
            kind = "+".join(stage["name"] for stage in case.plan["stages"])
            folder = Path(name) / str(seed)
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    found = run_case(case, made, folder)
                line = f"equal, {found['difference']:.1e}; killed {', '.join(found['kills'])}"
            except AssertionError as error:
                failed += 1
                line = f"FAILED {error}; planned {case.kills}"
            seconds = time.monotonic() - began
            print(f"case {seed:3d}  {kind:12s} processes {case.processes}  {seconds:5.0f} s  {line}", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{chosen.kills - failed} of {chosen.kills} equal", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
