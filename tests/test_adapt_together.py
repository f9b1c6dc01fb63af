"""`xvla adapt` with several robots: one run, a version for each, and none can tell that the others are there."""

import json
from pathlib import Path
from typing import Any

import pytest
from adapt_cli_helpers import ADAPTER, write_plan
from adapt_helpers import command, start, stop_at, write_place
from conftest import ROBOT, one_line_error, write_plugin
from data_helpers import write_dataset
from safetensors.torch import load_file

TOGETHER = ("adapt", "--embodiment", "other_arm", "--embodiment", "my_arm")
PROMPT = ("--then", "none", "--steps", "6", "--batch-size", "4")

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two registered robots on one base; version 1 of each was adapted together."""
    root = write_place(tmp_path_factory.mktemp("together") / "place")
    write_plan(root)
    plugin = write_plugin(root / "plugins" / "other_arm", {**ROBOT, "name": "other_arm"})
    write_dataset(plugin / "demonstrations", (11, 9, 13))
    for robot in ("my_arm", "other_arm"):
        assert command("add-embodiment", f"plugins/{robot}", "--base", "base", cwd=root) == 0
    assert command(*TOGETHER, *PROMPT, cwd=root) == 0
    return root


def read(root: Path, robot: str, version: int, name: str) -> Any:
    return json.loads((root / "registry" / robot / f"v{version}" / name).read_text())


def test_each_robot_gets_the_version_it_would_have_got_alone(place: Path) -> None:
    """The same bytes, the same measurements, the same curves; the manifest says who else was there."""
    assert command("adapt", "--embodiment", "other_arm", *PROMPT, cwd=place) == 0
    together, alone = (place / "registry" / "other_arm" / f"v{i}" for i in (1, 2))
    for name in (ADAPTER, "plan.yaml", "curves.png", "trajectories.png", "example_batch.safetensors"):
        assert (together / name).read_bytes() == (alone / name).read_bytes(), name
    ours, theirs = (read(place, "other_arm", i, "metrics.json") for i in (1, 2))
    assert ours["table"] == theirs["table"]
    assert ours["initialisation"] == theirs["initialisation"]
    assert ours["stages"][0]["validation_error"] == theirs["stages"][0]["validation_error"]
    assert read(place, "other_arm", 1, "manifest.json")["trained_with"] == ["my_arm"]
    assert read(place, "my_arm", 1, "manifest.json")["trained_with"] == ["other_arm"]
    assert read(place, "other_arm", 2, "manifest.json")["trained_with"] == []


def test_what_stayed_is_recorded(place: Path) -> None:
    """One hash over all that the run had no business changing, the same for its robots."""
    proofs = [read(place, robot, 1, "metrics.json")["stages"][0] for robot in ("my_arm", "other_arm")]
    assert len({proof["sha256"] for proof in proofs}) == 1
    assert len(proofs[0]["sha256"]) == 64
    assert proofs[0]["bit_identical"] == "all weights but the trained ones"


def test_a_version_of_a_run_of_several_is_an_ordinary_one(place: Path, here: Any) -> None:
    """Measured again from its own files it makes the recorded errors."""
    result = here("eval", "other_arm/v1", "--json", cwd=place)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_killed_and_resumed_with_a_shared_adapter(place: Path) -> None:
    """Killed in the LoRA stage: the run of both goes on, and both versions carry one adapter of the same bytes."""
    assert command(*TOGETHER, "--plan", "plan.yaml", cwd=place) == 0
    newest = {robot: len(list((place / "registry" / robot).glob("v*"))) for robot in ("my_arm", "other_arm")}
    start(*TOGETHER, "--plan", "plan.yaml", cwd=place, env=stop_at("lora", 3)).communicate(timeout=200)
    assert command(*TOGETHER[:3], *TOGETHER[3:], "--resume", cwd=place) == 0
    adapters = []
    for robot, version in newest.items():
        whole, resumed = (place / "registry" / robot / f"v{i}" / ADAPTER for i in (version, version + 1))
        assert whole.read_bytes() == resumed.read_bytes()
        adapters.append({name: tensor for name, tensor in load_file(whole).items() if "lora" in name})
    one, other = adapters
    assert one
    assert all((one[name] == other[name]).all() for name in one)


def test_robots_of_different_bases_are_refused(place: Path, here: Any, tmp_path: Path) -> None:
    """One line that names both, and no run."""
    import shutil

    from adapt_helpers import write_small_base

    root = tmp_path / "place"
    shutil.copytree(place, root)
    write_small_base(root / "second", seed=1)
    assert command("add-embodiment", "plugins/other_arm", "--base", "second", cwd=root) == 0
    before = sorted((root / "runs").glob("*/*"))
    line = one_line_error(here(*TOGETHER, *PROMPT, cwd=root))
    assert "robots that are adapted together share one base" in line
    assert "my_arm" in line
    assert "other_arm" in line
    assert sorted((root / "runs").glob("*/*")) == before
