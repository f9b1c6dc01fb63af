"""A registered robot with a short plan, its four adaptations, and what the tests of `xvla adapt` ask of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from adapt_helpers import command, write_place

ADAPTER = "adapter_model.safetensors"
ADAPT = ("adapt", "--embodiment", "my_arm")
SHORT = ("--steps", "6", "--batch-size", "4")
PLAN = {
    "name": "short",
    "stages": [
        {"name": "prompt", "lr": {"soft_prompts": 1e-3, "action_heads": 1e-3}},
        {
            "name": "lora",
            "lr": {"soft_prompts": 1e-3, "action_heads": 1e-3, "lora": 1e-3},
            "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
        },
    ],
}


def write_plan(folder: Path) -> None:
    """Two stages of six steps with a checkpoint every second step."""
    common = {"steps": 6, "batch_size": 4, "warmup_steps": 1, "eval_every": 2}
    stages = [{**common, **stage} for stage in PLAN["stages"]]  # type: ignore[dict-item]
    (folder / "plan.yaml").write_text(yaml.safe_dump({**PLAN, "stages": stages}))


@pytest.fixture(scope="module", name="template")
def template_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a base and a robot, nothing registered yet."""
    root = write_place(tmp_path_factory.mktemp("template") / "place")
    write_plan(root)
    return root


def copy(template: Path, root: Path) -> Path:
    """A registered copy that may be spoilt."""
    shutil.copytree(template, root)
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    return root


@pytest.fixture(scope="module", name="done")
def done_fixture(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace with four adaptations: v1 none, v2 by the plan with LoRA, v3 lora, v4 full."""
    root = copy(template, tmp_path_factory.mktemp("done") / "place")
    assert command(*ADAPT, "--then", "none", *SHORT, cwd=root) == 0
    assert command(*ADAPT, "--plan", "plan.yaml", cwd=root) == 0
    assert command(*ADAPT, "--then", "lora", *SHORT, cwd=root) == 0
    assert command(*ADAPT, "--then", "full", *SHORT, cwd=root) == 0
    return root


@pytest.fixture(name="fresh")
def fresh_fixture(template: Path, tmp_path: Path) -> Path:
    return copy(template, tmp_path / "place")


def answer(capfd: pytest.CaptureFixture[str], *words: str, cwd: Path) -> dict[str, Any]:
    """What a command prints with --json."""
    capfd.readouterr()
    code = command(*words, "--json", cwd=cwd)
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert code == 0, found
    return found


def finish(process: Any) -> Any:
    """Wait for a started command; the result has what `one_line_error` wants."""
    process.stdout, process.stderr = process.communicate(timeout=120)
    return process


def adapter(root: Path, version: int) -> bytes:
    return (root / "registry" / "my_arm" / f"v{version}" / ADAPTER).read_bytes()
