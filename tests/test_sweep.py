"""`xvla sweep`: cells are checked before they run, share what they have in common, and survive being killed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from adapt_helpers import command, start, stop_at, write_place
from conftest import one_line_error

from xvla_platform.adapt.grid import parse_grid, plan_cells
from xvla_platform.adapt.stage_store import stage_key
from xvla_platform.adapt.sweep import start_sweep, unfinished_sweep
from xvla_platform.errors import XvlaError
from xvla_platform.platform.records import load_embodiment
from xvla_platform.platform.workspace import Workspace

ADAPTER = "adapter_model.safetensors"
SHORT = ("--steps", "6", "--batch-size", "4")
GRID = ("--grid", "then=none,lora", "--grid", "rank=2,4", "--grid", "init=mean")
CHOICES: dict[str, Any] = {"then": "lora", "steps": 6, "batch_size": 4}

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a registered robot."""
    root = write_place(tmp_path_factory.mktemp("sweep") / "place")
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    return root


def cells(*texts: str, **choices: Any) -> list[Any]:
    return plan_cells(Path("no-base"), parse_grid(texts), {**CHOICES, **choices})


def test_a_grid_is_every_combination_as_a_plan() -> None:
    """The first setting varies slowest; each value lands where its name says, and nowhere else."""
    found = cells("seed=0,1", "rank=2,4", "prompt.lr.soft_prompts=1e-3,2e-3", "lora.warmup_steps=0", "init=copy:2")
    assert len(found) == 8
    assert [cell.plan.seed for cell in found] == [0] * 4 + [1] * 4
    plan = found[-1].plan
    prompt, lora = plan.stages
    assert lora.lora is not None
    assert plan.start is not None
    assert (lora.lora.rank, prompt.lr["soft_prompts"], lora.lr["soft_prompts"]) == (4, 2e-3, 1e-4)
    assert (lora.warmup_steps, prompt.warmup_steps, plan.start.copy_from) == (0, 1, 2)
    policy, everywhere = (cell.plan.stages[1] for cell in cells("targets=policy,everywhere"))
    modules = ["transformer.blocks.0.mlp.fc1", "vlm.language_model.encoder.layers.0.self_attn.q_proj"]
    assert not policy.trains_vlm(modules)
    assert everywhere.trains_vlm(modules)
    assert found[0].label == "seed=0 rank=2 prompt.lr.soft_prompts=0.001 lora.warmup_steps=0 init=copy:2"


def test_what_means_nothing_in_a_cell_is_left_out_there() -> None:
    """Without LoRA there is no rank, so that cell is there once."""
    found = cells("then=none,lora", "rank=2,4")
    assert [cell.label for cell in found] == ["then=none", "then=lora rank=2", "then=lora rank=4"]


def test_stages_are_the_same_where_all_before_them_is() -> None:
    """Rank does not reach the prompt stage; the seed, the start and the stage's own settings do."""
    found = cells("seed=0,1", "init=mean,random", "rank=2,4")
    first = [stage_key(cell.plan, 0, "cpu x 1") for cell in found]
    assert len(set(first)) == 4
    assert [first[i] == first[i + 1] for i in range(0, 8, 2)] == [True] * 4
    assert len({stage_key(cell.plan, 1, "cpu x 1") for cell in found}) == 8
    assert first[0] != stage_key(cells("prompt.eval_every=3")[0].plan, 0, "cpu x 1")
    assert first[0] != stage_key(found[0].plan, 0, "cuda x 1")


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["rank=nan"], "is no finite number"),
        (["rank=8,inf"], "is no finite number"),
        (["rnak=2"], "rnak: is no setting of an adaptation"),
        (["lora.rank=2"], "lora.rank: is no setting of a stage"),
        (["prompt.lr.everything=1e-3"], "is no setting of a stage"),
        (["prompt.name=x"], "is no setting of a stage"),
        (["full.steps=3"], "no stage of the sweep has this setting"),
        (["rank=0"], "rank"),
        (["targets=all"], "is no set of LoRA targets; found all; allowed: policy, everywhere"),
        (["rank=2,2"], "a value is given twice"),
        (["rank=2", "rank=4"], "is given twice"),
        (["rank"], "is not NAME=VALUE,VALUE"),
        (["rank=2,"], "is not NAME=VALUE,VALUE"),
        (["then=all"], "nothing that follows the prompt stage"),
        (["seed=1.5"], "must be a whole number"),
        (["seed=true"], "must be a whole number"),
        (["init=best"], "is no start of a slot"),
        (["steps=3"], "is in the grid and an option as well"),
        (["prompt.warmup_steps=7"], "warm-up 7 is longer than 6 steps"),
    ],
)
def test_a_grid_that_could_not_run_is_refused_whole(texts: list[str], words: str) -> None:
    """Before anything runs, by the name of the setting."""
    with pytest.raises(XvlaError, match=words):
        cells("alpha=4,8", *texts)


def test_a_refused_sweep_leaves_nothing(place: Path, here: Any) -> None:
    """One line, and no sweep folder."""
    (place / "sweep.yaml").write_text(yaml.safe_dump({"grid": {"rank": [2, -1]}}))
    sweep = ("sweep", "--embodiment", "my_arm", *SHORT)
    assert "rank" in one_line_error(here(*sweep, "sweep.yaml", cwd=place))
    assert "--grid" in one_line_error(here(*sweep, cwd=place))
    assert "no such slot to copy" in one_line_error(here(*sweep, "--grid", "init=copy:99", cwd=place))
    assert "no interrupted sweep" in one_line_error(here("sweep", "--embodiment", "my_arm", "--resume", cwd=place))
    assert not list((place / "runs").glob("my_arm/*"))


def test_a_sweep_is_of_one_declaration(place: Path) -> None:
    """What was registered anew in between is not gone on with: its cells could not be compared with the others."""
    workspace = Workspace(root=place)
    record = load_embodiment(workspace, "my_arm")
    begun = start_sweep(workspace, record, None, cells("alpha=4,8"), "auto")
    try:
        assert unfinished_sweep(workspace, record) == begun
        edited = record.model_copy(update={"plugin_sha256": "0" * 64})
        with pytest.raises(XvlaError, match="was begun before 'my_arm' was registered as it is now"):
            unfinished_sweep(workspace, edited)
    finally:
        shutil.rmtree(begun.folder)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_sweep_ends_with_the_bytes_of_each_cell_alone(place: Path, here: Any, tmp_path: Path) -> None:
    """Killed in its second cell and resumed: the finished cell is not run again, the interrupted one goes on at its
    checkpoint, the prompt stage was computed once for all, and each version is that of `xvla adapt` by its plan.
    """
    root = tmp_path / "place"
    shutil.copytree(place, root)
    sweep = ("sweep", "--embodiment", "my_arm")
    process = start(*sweep, *GRID, *SHORT, cwd=root, env=stop_at("lora", 4))
    process.communicate(timeout=250)
    runs, registry = root / "runs" / "my_arm", root / "registry" / "my_arm"
    first = (registry / "v1" / "manifest.json").read_bytes()
    assert {path.name for path in registry.iterdir()} == {"v1"}
    assert {path.name for path in runs.iterdir()} == {"001", "002", "sweep-001"}
    result = here(*sweep, "--resume", "--json", cwd=root)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (registry / "v1" / "manifest.json").read_bytes() == first
    ranked = answer["cells"]
    assert answer["best"] == ranked[0]["adaptation"]
    assert [cell["validation_error"] for cell in ranked] == sorted(cell["validation_error"] for cell in ranked)
    values = {cell["adaptation"]: cell["values"] for cell in ranked}
    assert values["my_arm/v3"] == {"then": "lora", "rank": 4, "init": "mean"}
    manifests = [json.loads((registry / f"v{i}" / "manifest.json").read_text()) for i in (1, 2, 3)]
    assert [m["sweep"] for m in manifests] == [
        {"sweep": "sweep-001", "values": values[f"my_arm/v{i}"]} for i in (1, 2, 3)
    ]
    assert (runs / "sweep-001" / "errors.png").stat().st_size > 5000
    assert not (runs / "sweep-001" / "stages").exists()
    # The prompt stage's lines were written once, with one clock: every cell has them to the microsecond.
    prompt = [
        [line for line in (runs / run / "metrics.jsonl").read_text().splitlines() if '"prompt"' in line]
        for run in ("001", "002", "003")
    ]
    assert prompt[0] == prompt[1] == prompt[2]
    assert len(prompt[0]) == 6
    for version in (2, 3):
        plan = registry / f"v{version}" / "plan.yaml"
        alone = here("adapt", "--embodiment", "my_arm", "--plan", str(plan), "--json", cwd=root)
        label = json.loads(alone.stdout)["adaptation"].replace("my_arm/", "")
        assert (registry / label / ADAPTER).read_bytes() == (registry / f"v{version}" / ADAPTER).read_bytes()
        ours, theirs = (json.loads((registry / v / "metrics.json").read_text()) for v in (label, f"v{version}"))
        assert ours == theirs
