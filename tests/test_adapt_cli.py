"""`xvla adapt`, `eval`, `push` and `pull` from end to end on a small random base, on every plan."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from adapt_cli_helpers import (  # noqa: F401
    ADAPT,
    ADAPTER,
    SHORT,
    adapter,
    answer,
    copy,
    done_fixture,
    fresh_fixture,
    template_fixture,
)
from adapt_helpers import command, write_small_base
from conftest import tree
from safetensors.torch import load_file
from torch import Tensor

from xvla_platform.adapt import measuring
from xvla_platform.adapt import stages as adapt_stages
from xvla_platform.adapt.features import encode_source
from xvla_platform.adapt.loop import Job, run_stage
from xvla_platform.platform.workspace import CONFIG_NAME, CONFIG_TEXT

CAREFUL = """
from pathlib import Path

from xvla_platform.hooks import hookimpl
from xvla_platform.platform.hookspecs import Factory
from xvla_platform.specs.base import load_model
from xvla_platform.specs.plan import AdaptationPlan


@hookimpl
def register_plans():
    return [Factory(name="careful", target=lambda: load_model(AdaptationPlan, Path(__file__).with_name("plan.yaml")))]
"""
RESULTS = ["hold still", "mean action", "nearest demonstration", "base, not adapted", "prompt only"]


@pytest.mark.parametrize(
    ("version", "tuning", "stages"),
    [
        (1, "prompt", []),
        (2, "lora", ["prompt, then LoRA"]),
        (3, "lora", ["prompt, then LoRA"]),
        (4, "full", ["prompt, then full tuning"]),
    ],
)
def test_an_adaptation_is_complete(done: Path, version: int, tuning: str, stages: list[str]) -> None:
    """Everything needed to use, judge and repeat it lies in the folder; the pictures leave room for the weights."""
    folder = done / "registry" / "my_arm" / f"v{version}"
    names = {path.name for path in folder.iterdir()}
    wanted = {"adapter_config.json", "README.md", "manifest.json", "metrics.json", "plan.yaml", "stats.json"}
    wanted |= {ADAPTER, "embodiment.yaml", "example_batch.safetensors", "curves.png", "trajectories.png"}
    assert names == wanted | ({"model.safetensors", "config.json"} if tuning == "full" else set())
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1, (
        "whoever may read the card may read the weights"
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["tuning"] == tuning
    assert manifest["slot"] == {"domain_id": 3, "num_domains": 6}
    results = json.loads((folder / "metrics.json").read_text())
    assert [row["policy"] for row in results["table"]] == RESULTS + stages
    assert results["units"].keys() == results["table"][0]["errors"].keys()
    assert results["initialisation"]["method"] == "nearest"
    assert set(results["initialisation"]["losses"]) == {"0 robot0", "1 robot1", "2 robot2"}
    assert sum((folder / name).stat().st_size for name in ("curves.png", "trajectories.png")) <= 150_000


def test_the_prompt_stage_is_the_same_whatever_follows(done: Path) -> None:
    """The same seed gives the same rows, on every plan; LoRA and full tuning move on from there."""
    results = [
        json.loads((done / "registry" / "my_arm" / f"v{version}" / "metrics.json").read_text())["table"]
        for version in (1, 3, 4)
    ]
    assert results[0][:5] == results[1][:5] == results[2][:5]
    assert adapter(done, 1) != adapter(done, 3)
    weights = load_file(done / "registry" / "my_arm" / "v4" / "model.safetensors")
    base = load_file(done / "base" / "model.safetensors")
    table = "transformer.soft_prompt_hub.weight"

    def others(tensors: dict[str, Tensor]) -> list[list[float]]:
        return [row for domain, row in enumerate(tensors[table].tolist()) if domain != 3]

    assert others(weights) == others(base)
    assert weights["transformer.pos_emb"].tolist() != base["transformer.pos_emb"].tolist()


def test_a_finished_prompt_stage_is_taken_over_when_asked_for(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Offered without being taken; taken, the result is that of the whole run; with another seed there is none."""
    root = copy(template, tmp_path / "place")
    assert command(*ADAPT, "--then", "none", *SHORT, cwd=root) == 0
    capfd.readouterr()
    assert command(*ADAPT, *SHORT, cwd=root) == 0
    assert "an earlier run finished stage prompt alike; --reuse takes it" in capfd.readouterr().out
    assert command(*ADAPT, *SHORT, "--reuse", cwd=root) == 0
    assert "reuse     stage prompt of an earlier run" in capfd.readouterr().out
    assert adapter(root, 2) == adapter(root, 3)
    runs = [root / "runs" / "my_arm" / name for name in ("002", "003")]
    measured = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs]
    for lines in measured:
        for line in lines:
            del line["elapsed_s"]
    assert measured[0] == measured[1]
    kept = {path.name for path in (root / "runs" / "my_arm" / "stages").iterdir()}
    assert len(kept) == 1, "only prompt-only stages are kept"
    assert command(*ADAPT, "--then", "none", *SHORT, "--seed", "9", "--reuse", cwd=root) == 0
    assert "reuse" not in capfd.readouterr().out
    assert adapter(root, 4) != adapter(root, 1)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_eval_gives_the_recorded_numbers(done: Path, capfd: pytest.CaptureFixture[str], version: int) -> None:
    """Loaded from its own files, the adaptation makes exactly the recorded errors."""
    found = answer(capfd, "eval", f"my_arm/v{version}", cwd=done)
    assert found["same"] is True
    assert found["errors"] == found["recorded"]
    assert (done / "runs" / "eval" / "my_arm" / f"v{version}" / "trajectories.png").is_file()


@pytest.mark.parametrize("version", [1, 2, 4])
def test_shared_and_pulled_it_makes_the_same_errors(
    done: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], version: int
) -> None:
    """In an empty workspace: without the dataset its example answers, with the dataset its errors are the recorded."""
    share, other = tmp_path / "share", tmp_path / "other"
    share.mkdir()
    other.mkdir()
    (other / CONFIG_NAME).write_text(CONFIG_TEXT)
    shutil.copytree(done / "base", other / "base")
    answer(capfd, "push", f"my_arm/v{version}", "--to", f"dir:{share}", cwd=done)
    pulled = answer(capfd, "pull", f"dir:{share}/my_arm", cwd=other)
    label = pulled["adaptation"]
    assert answer(capfd, "eval", label, cwd=other)["example_difference"] <= 1e-5
    data = str(done / "plugins" / "my_arm" / "demonstrations")
    found = answer(capfd, "eval", label, "--data", data, cwd=other)
    assert found["same"] is True
    assert found["errors"] == found["recorded"]


def test_dry_run_writes_nothing(fresh: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The plan is said with its source, and the workspace is as it was."""
    before = tree(fresh)
    assert command(*ADAPT, "--then", "full", *SHORT, "--dry-run", cwd=fresh) == 0
    told = capfd.readouterr().out
    assert "prompt-full (from the built-in recipe, with --steps 6, --batch-size 4), seed 0" in told
    assert "encoder in the loop" in told
    typed = shlex.join([*ADAPT, "--then", "full", *SHORT])
    assert told.rstrip().endswith(f"next: xvla {typed}")
    assert answer(capfd, *ADAPT, "--seed", "5", "--dry-run", cwd=fresh)["plan"]["seed"] == 5
    assert tree(fresh) == before


def test_a_plan_goes_by_the_name_that_a_plugin_gave_it(fresh: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The robot's own `plugin.py` contributes one, and `--plan` takes it with all flags on top."""
    shutil.copy(fresh / "plan.yaml", fresh / "plugins" / "my_arm")
    (fresh / "plugins" / "my_arm" / "plugin.py").write_text(CAREFUL)
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=fresh) == 0
    capfd.readouterr()
    assert command(*ADAPT, "--plan", "careful", "--seed", "5", "--dry-run", cwd=fresh) == 0
    assert "plan      short (from plan careful, with --seed 5), seed 5" in capfd.readouterr().out


def test_on_another_base_it_is_registered_first(fresh: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`--base` moves the robot, with its slot, to the other base."""
    write_small_base(tmp_path / "other", seed=3, num_domains=8)
    found = answer(capfd, *ADAPT, "--base", str(tmp_path / "other"), "--then", "none", *SHORT, cwd=fresh)
    manifest = json.loads((fresh / "registry" / found["adaptation"] / "manifest.json").read_text())
    assert manifest["base"]["id"] == str((tmp_path / "other").resolve())
    assert manifest["slot"]["num_domains"] == 8


def test_a_stage_after_the_encoder_moved_reads_new_features(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features from before would train the slot on what the policy no longer sees."""
    common = {"steps": 2, "batch_size": 4, "warmup_steps": 0, "eval_every": 2}
    stages = [
        {**common, "name": "eyes", "lr": {"vlm": 1e-3}},
        {**common, "name": "slot", "lr": {"soft_prompts": 1e-3}},
    ]
    (fresh / "eyes.yaml").write_text(yaml.safe_dump({"name": "eyes", "stages": stages}))
    fresh_features: list[bool] = []

    def observed(job: Job, *more: Any) -> Any:
        source = job.sources[0]
        if source.features is not None:
            now = encode_source(job.model, source, job.processor, tmp_path / "now")
            fresh_features.append(all(torch.equal(a, b) for a, b in zip(source.features, now, strict=True)))
        return run_stage(job, *more)

    monkeypatch.setattr(adapt_stages, "run_stage", observed)
    # Training that hurts is undone; here the encoder must have moved.
    monkeypatch.setattr(measuring, "relative_error", lambda *_: next(falling))
    falling = iter(range(100, 0, -1))
    assert command(*ADAPT, "--plan", "eyes.yaml", cwd=fresh) == 0
    assert fresh_features == [True]


def test_a_dry_run_on_another_base_registers_nothing(
    fresh: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It says what would be, and the robot stays where it is."""
    write_small_base(tmp_path / "other", seed=3, num_domains=8)
    before = tree(fresh)
    assert command(*ADAPT, "--base", str(tmp_path / "other"), "--dry-run", cwd=fresh) == 0
    told = capfd.readouterr().out
    assert "my_arm would be registered on it" in told
    assert f"base      {(tmp_path / 'other').resolve()}, weights" in told
    assert {name: data for name, data in tree(fresh).items() if ".cache" not in name} == before
