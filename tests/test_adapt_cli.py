"""`xvla adapt`, `eval`, `push` and `pull` from end to end on a small random base, and every way they can be stopped."""

import json
import random
import resource
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from adapt_helpers import command, start, stop_at, write_place, write_small_base
from conftest import ROBOT, one_line_error, tree, write_plugin
from data_helpers import write_dataset
from safetensors.torch import load_file
from torch import Tensor

from xvla_platform.adapt import measuring
from xvla_platform.adapt import stages as adapt_stages
from xvla_platform.adapt.features import encode_source
from xvla_platform.adapt.loop import Job, run_stage
from xvla_platform.cli.main import resume_hint
from xvla_platform.platform.workspace import CONFIG_NAME, CONFIG_TEXT

ADAPTER = "adapter_model.safetensors"
ADAPT = ("adapt", "--embodiment", "my_arm")
SHORT = ("--steps", "6", "--batch-size", "4")
RESULTS = ["hold still", "mean action", "nearest demonstration", "base, not adapted", "prompt only"]
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


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a base and a robot, nothing registered yet."""
    root = write_place(tmp_path_factory.mktemp("template") / "place")
    write_plan(root)
    return root


def copy(template: Path, root: Path) -> Path:
    """A registered copy that may be spoilt."""
    shutil.copytree(template, root)
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    return root


@pytest.fixture(scope="module")
def done(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace with four adaptations: v1 none, v2 by the plan with LoRA, v3 lora, v4 full."""
    root = copy(template, tmp_path_factory.mktemp("done") / "place")
    assert command(*ADAPT, "--then", "none", *SHORT, cwd=root) == 0
    assert command(*ADAPT, "--plan", "plan.yaml", cwd=root) == 0
    assert command(*ADAPT, "--then", "lora", *SHORT, cwd=root) == 0
    assert command(*ADAPT, "--then", "full", *SHORT, cwd=root) == 0
    return root


@pytest.fixture
def fresh(template: Path, tmp_path: Path) -> Path:
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
    assert answer(capfd, *ADAPT, "--seed", "5", "--dry-run", cwd=fresh)["plan"]["seed"] == 5
    assert tree(fresh) == before


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


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def change_data(root: Path) -> None:
    shutil.rmtree(root / "plugins" / "my_arm" / "demonstrations")
    write_dataset(root / "plugins" / "my_arm" / "demonstrations", (12, 9, 15))


def change_base(root: Path) -> None:
    shutil.rmtree(root / "base")
    write_small_base(root / "base", seed=1)


def write_bad_plan(root: Path) -> None:
    (root / "bad.yaml").write_text(
        "name: x\nstages:\n  - {name: a, steps: 5, warmup_steps: 9, lr: {soft_prompts: 1}}\n"
    )


FAULTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...], str]] = {
    "unknown robot": (lambda r: None, ("adapt", "--embodiment", "nobody"), "unknown embodiment; found nobody"),
    "edited plugin": (
        lambda r: append(r / "plugins" / "my_arm" / "plugin.yaml", "# edited\n"),
        ADAPT,
        "Run `xvla add-embodiment plugins/my_arm` again",
    ),
    "changed dataset": (change_data, ADAPT, "the dataset is not the one the embodiment was registered with"),
    "changed base": (change_base, ADAPT, "the base's weights changed since the embodiment was registered"),
    "lost base": (lambda r: shutil.rmtree(r / "base"), ADAPT, "unknown base model"),
    "lost dataset": (
        lambda r: shutil.rmtree(r / "plugins" / "my_arm" / "demonstrations"),
        ADAPT,
        "dataset folder not found",
    ),
    "nothing to resume": (lambda r: None, (*ADAPT, "--resume"), "no interrupted run to resume"),
    "no such plan": (lambda r: None, (*ADAPT, "--plan", "gone.yaml"), "gone.yaml"),
    "bad plan": (write_bad_plan, (*ADAPT, "--plan", "bad.yaml"), "bad.yaml"),
    "bad number": (lambda r: None, (*ADAPT, "--steps", "0"), "--steps"),
    "resume with a plan": (lambda r: None, (*ADAPT, "--resume", "--then", "lora"), "--then: --resume goes on"),
    "resume with steps": (lambda r: None, (*ADAPT, "--resume", "--steps", "5"), "--steps: --resume goes on"),
    "two plans": (
        lambda r: None,
        (*ADAPT, "--plan", "plan.yaml", "--then", "lora"),
        "--then: --plan names every stage itself",
    ),
    "revision of a folder": (lambda r: None, (*ADAPT, "--revision", "main"), "a revision belongs to a Hub id"),
    "another base": (lambda r: None, (*ADAPT, "--base", "nope"), "unknown base model; found nope"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_longer_as_registered_is_one_line(
    fresh: Path, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    """Before any compute is spent, and without writing anything."""
    spoil, words, message = FAULTS[fault]
    spoil(fresh)
    before = tree(fresh)
    capfd.readouterr()
    assert command(*words, cwd=fresh) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert tree(fresh) == before


def test_on_another_base_it_is_registered_first(fresh: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`--base` moves the robot, with its slot, to the other base."""
    write_small_base(tmp_path / "other", seed=3, num_domains=8)
    found = answer(capfd, *ADAPT, "--base", str(tmp_path / "other"), "--then", "none", *SHORT, cwd=fresh)
    manifest = json.loads((fresh / "registry" / found["adaptation"] / "manifest.json").read_text())
    assert manifest["base"]["id"] == str((tmp_path / "other").resolve())
    assert manifest["slot"]["num_domains"] == 8


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


def test_an_unfinished_run_is_mentioned(fresh: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Who starts again may not know that nothing was lost."""
    finish(start(*ADAPT, "--plan", "plan.yaml", cwd=fresh, env=stop_at("prompt", 3)))
    capfd.readouterr()
    assert command(*ADAPT, "--dry-run", cwd=fresh) == 0
    told = capfd.readouterr().out
    assert "runs/my_arm/001 was not finished; `xvla adapt --embodiment my_arm --resume` goes on with it" in told


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


PROMPTS = {
    "no such slot": ({"init": "copy", "copy_from": 6}, "has no such slot to copy; found 6; allowed: 0-5"),
    "long": (None, "this base reads 16"),
}


@pytest.mark.parametrize("fault", PROMPTS)
def test_what_would_fail_after_decoding_fails_before(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    """A start that the base cannot give and words that it cannot read."""
    prompt, message = PROMPTS[fault]
    root = tmp_path / "place"
    shutil.copytree(template, root)
    plugin = root / "plugins" / "my_arm"
    if prompt is None:
        shutil.rmtree(plugin / "demonstrations")
        words = "open the second drawer and put the green ball into it"
        write_dataset(plugin / "demonstrations", (12, 9, 15, 10), task=words)
    else:
        write_plugin(plugin, {**ROBOT, "prompt": prompt})
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    capfd.readouterr()
    assert command(*ADAPT, cwd=root) == 2
    assert message in capfd.readouterr().err
    assert not list((root / "runs").glob("my_arm/*"))


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
