"""`xvla eval --closed-loop` and `--ablate` on a small base: what is printed, written, continued and refused."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapt_helpers import command
from closed_loop_helpers import write_dot_place
from conftest import one_line_error

from xvla_platform.closed_loop.sources import policy_source
from xvla_platform.modelling.slot import read_rows
from xvla_platform.platform.workspace import Workspace

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ("--tasks", "reach", "--episodes", "2", "--time-limit", "1", "--films", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the page's robot and one adaptation of it."""
    root = write_dot_place(tmp_path_factory.mktemp("closed-loop") / "place")
    assert command("add-embodiment", "plugins/dot_arm", "--base", "base", "--accept", "XV110", cwd=root) == 0
    words = ("adapt", "--embodiment", "dot_arm", "--then", "none", "--steps", "6", "--batch-size", "4")
    assert command(*words, cwd=root) == 0
    return root


def test_an_adaptation_acts_and_is_counted(here: Run, place: Path) -> None:
    """The table, the folder, the same numbers in JSON, and a second run of the same seeds with the same outcome."""
    shown = here("eval", "dot_arm", "--closed-loop", *QUICK, cwd=place)
    assert shown.returncode == 0, shown.stderr
    assert "chunks    10 of 10 ticks, blending none, latency 0 ticks at 10 Hz" in shown.stdout
    assert "completed (95 %)" in shown.stdout
    assert "CPU s an episode" in shown.stdout
    folder = place / "runs" / "eval" / "dot_arm" / "v1" / "closed-loop-1"
    assert (folder / "films" / "reach-000.mp4").is_file()
    assert (folder / "contact-sheet.png").is_file()
    again = here("eval", "dot_arm", "--closed-loop", *QUICK, "--json", cwd=place)
    report = json.loads(again.stdout)
    assert report["wrote"][0].endswith("closed-loop-2")
    kept = json.loads((folder / "results.json").read_text())
    assert report["results"] == kept["results"]
    assert report["results"]["own"]["reach"]["success"]["of"] == 2
    lines = [
        [json.loads(line) for line in (folder.parent / f"closed-loop-{n}" / "episodes.jsonl").open()] for n in (1, 2)
    ]
    assert [{**line, "cost": None} for line in lines[0]] == [{**line, "cost": None} for line in lines[1]]


def test_an_interrupted_evaluation_is_found_again(here: Run, place: Path) -> None:
    """The same command goes on in the unfinished folder; another one begins its own."""
    words = ("eval", "dot_arm/base", "--closed-loop", "--init", "random", *QUICK)
    assert here(*words, cwd=place).returncode == 0
    folder = place / "runs" / "eval" / "dot_arm" / "base" / "closed-loop-1"
    lines = (folder / "episodes.jsonl").read_text().splitlines(keepends=True)
    (folder / "results.json").unlink()
    (folder / "episodes.jsonl").write_text(lines[0])
    assert "resuming  closed-loop-1" in here(*words, cwd=place).stdout
    assert (folder / "episodes.jsonl").read_text().startswith(lines[0])
    assert (folder / "results.json").is_file()
    other = here(*words, "--seed", "9", cwd=place)
    assert "wrote runs/eval/dot_arm/base/closed-loop-2" in other.stdout


def test_an_evaluation_in_an_edited_environment_is_another_one(here: Run, place: Path) -> None:
    """The plugin's code and settings are part of what was evaluated: an unfinished one is not gone on with."""
    words = ("eval", "dot_arm/base", "--closed-loop", "--init", "mean", *QUICK)
    plugin, runs = place / "plugins" / "dot_arm", place / "runs" / "eval" / "dot_arm" / "base"
    code = (plugin / "plugin.py").read_text()

    def edit_code() -> None:
        (plugin / "plugin.py").write_text(code.replace("NEAR = 0.05", "NEAR = 0.04"))

    def add_settings() -> None:
        (plugin / "sim.yaml").write_text("near: 0.04\n")

    try:
        for edit in (edit_code, add_settings):
            begun = here(*words, cwd=place)
            newest = max(runs.glob("closed-loop-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
            assert begun.returncode == 0, begun.stderr
            (newest / "results.json").unlink()
            edit()
            assert "resuming" not in here(*words, cwd=place).stdout
    finally:
        (plugin / "plugin.py").write_text(code)
        (plugin / "sim.yaml").unlink(missing_ok=True)
    kept = json.loads((newest / "settings.json").read_text())["plugin_sources"]
    assert {"plugin.py", "plugin.yaml"} == set(kept)


def test_the_base_acts_with_the_rows_that_were_asked_for(place: Path) -> None:
    """A robot's own rows by name or number, the mean, random ones, or the nearest by measured loss."""
    import torch

    def rows(**options: Any) -> tuple[str, dict[str, torch.Tensor]]:
        source = policy_source(Workspace(place), "dot_arm/base", **options)
        policy = source()
        return source.label, read_rows(policy.model, policy.record.slot.domain_id)

    base = policy_source(Workspace(place), "dot_arm/base", init="random")().model
    label, named = rows(init="robot1")
    assert label == "dot_arm/base (rows: robot1)"
    assert all(torch.equal(named[name], row) for name, row in read_rows(base, 1).items())
    assert rows(init="1")[0] == label
    _, mean = rows(init="mean")
    for name, row in mean.items():
        torch.testing.assert_close(row, torch.stack([read_rows(base, i)[name] for i in range(3)]).mean(0))
    nearest = rows()[0]
    assert nearest in {f"dot_arm/base (rows: robot{i})" for i in range(3)}
    manifest = json.loads((place / "registry" / "dot_arm" / "v1" / "manifest.json").read_text())
    assert manifest["base"]["fingerprint"] == policy_source(Workspace(place), "dot_arm").identity()["base"]


def test_ablations_in_open_loop_say_what_each_did(here: Run, place: Path) -> None:
    """A row a condition with its errors, a verdict an input; the policy itself is left as it was."""
    report = json.loads(here("eval", "dot_arm", "--ablate", "prompt,vision,language", "--json", cwd=place).stdout)
    effects = report["ablation"]["effects"]
    names = {effect["condition"] for effect in effects}
    cameras = {f"vision: top {kind}" for kind in ("black", "frozen", "mean")}
    assert cameras | {"prompt: zero", "language: wrong", "language: empty"} < names
    assert len([name for name in names if name.startswith("prompt: ")]) == 3
    for effect in effects:
        assert effect["low"] <= effect["harm"] + 1e-9
        assert effect["harm"] <= effect["high"] + 1e-9
        assert effect["harm"] == pytest.approx(effect["other"] - effect["own"], abs=1e-9)
    folder = place / "runs" / "eval" / "dot_arm" / "v1"
    assert (folder / "ablation.png").stat().st_size > 5000
    assert set(report["ablation"]["verdicts"]) == {"prompt", "vision", "language"}
    shown = here("eval", "dot_arm", "--ablate", "prompt:zero", cwd=place)
    assert "prompt: zero" in shown.stdout
    assert "prompt " in shown.stdout
    # The unchanged policy's errors are those of the plain measurement on the same frames.
    plain = json.loads(here("eval", "dot_arm", "--json", cwd=place).stdout)["errors"]
    own = {effect["measure"]: effect["own"] for effect in effects if effect["condition"] == "prompt: zero"}
    assert {name: own[name] for name in plain} == pytest.approx(plain, rel=1e-4)


def test_ablations_in_closed_loop_are_paired(here: Run, place: Path) -> None:
    """Each condition over the same seeds, in one folder, with what each cost in success."""
    words = ("eval", "dot_arm", "--closed-loop", "--ablate", "prompt:zero,language:wrong", *QUICK, "--json")
    report = json.loads(here(*words, cwd=place).stdout)
    conditions = ["own", "prompt: zero", "language: wrong"]
    assert report["settings"]["conditions"] == conditions
    assert set(report["results"]) == set(conditions)
    assert [effect["measure"] for effect in report["ablation"]["effects"]] == ["success", "success"]
    folder = place / report["wrote"][0]
    lines = [json.loads(line) for line in (folder / "episodes.jsonl").open()]
    assert [(line["condition"], line["seed"]) for line in lines] == [
        (condition, seed) for condition in conditions for seed in (0, 1)
    ]
    assert (folder / "ablation.png").is_file()


def test_what_cannot_be_is_one_line(here: Run, place: Path) -> None:
    """Unknown names list what exists; nothing is written."""
    for words, said in (
        (("--ablate", "smell"), "unknown ablation; found smell; allowed: prompt, vision, language"),
        (("--closed-loop", "--tasks", "fly"), "no such task; found fly; allowed: reach, visit"),
        (("--closed-loop", "--env", "moon"), "unknown environment; found moon"),
        (("--closed-loop", "--init", "mean"), "has a slot of its own"),
        (("--closed-loop", "--env-option", "speed"), "is not KEY=VALUE"),
        (("--closed-loop", "--latency-ms", "900"), "a chunk must be ready"),
        (("--closed-loop", "--robot", "nobody"), "unknown embodiment; found nobody"),
    ):
        before = sorted((place / "runs" / "eval" / "dot_arm" / "v1").glob("closed-loop-*/results.json"))
        assert said in one_line_error(here("eval", "dot_arm", *words, cwd=place))
        assert sorted((place / "runs" / "eval" / "dot_arm" / "v1").glob("closed-loop-*/results.json")) == before
    assert "no such rows; found robot9" in one_line_error(
        here("eval", "dot_arm/base", "--closed-loop", "--init", "robot9", cwd=place)
    )
