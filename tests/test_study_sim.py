"""The study of docs/results.md, quick: the same files with a few scenes and steps, from recording to its tables.

pytest -m "sim and slow" tests/test_study_sim.py
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

pytest.importorskip("robosuite")
pytestmark = [pytest.mark.sim, pytest.mark.slow, pytest.mark.timeout(1800)]

Run = Callable[..., subprocess.CompletedProcess[str]]
STUDY = REPOSITORY / "benchmarks" / "study"
SEEN, UNSEEN = ("panda", "jaco"), ("my_arm",)
STEPS = 3


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def shrunk_stage(stage: dict[str, Any]) -> dict[str, Any]:
    return {**stage, "steps": STEPS, "batch_size": 6, "warmup_steps": 0, "eval_every": STEPS}


def shrunk_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """The robots of the quick study, and a few small steps of every phase and stage."""
    domains = [domain for domain in recipe["domains"] if Path(domain["plugin"]).name in SEEN]
    names = {domain["name"] for domain in domains}
    phases = [
        {
            **phase,
            "stage": shrunk_stage(phase["stage"]),
            "mixture": {name: weight for name, weight in phase["mixture"].items() if name in names},
            "measure_every": STEPS,
        }
        for phase in recipe["phases"]
    ]
    adaptation = {name: shrunk_stage(stage) for name, stage in recipe["adaptation"].items()}
    return {**recipe, "held_out": 0.5, "domains": domains, "phases": phases, "adaptation": adaptation}


def shrunk_study(study: dict[str, Any]) -> dict[str, Any]:
    """Every kind of step of the study, for a robot that the base has not seen, in a few episodes."""
    amounts = {"episodes": 6, "still_scenes": 6}
    recordings = [
        {**part, **{kind: count for kind, count in amounts.items() if kind in part}}
        for part in study["recordings"]
        if part["plugin"] in (*SEEN, *UNSEEN) and "rig" not in part
    ]
    ladder, scratch = study["cells"][:2]
    return {
        **study,
        "name": "quick",
        "plugins": str(REPOSITORY / "plugins"),
        "recordings": recordings,
        "held_out": list(UNSEEN),
        "cells": [{**ladder, "demonstrations": [2]}, {**scratch, "demonstrations": [2]}],
        "closed_loop": {"tasks": ["pick", "stack"], "episodes": 1, "time_limit": 2, "films": 1},
        "forgetting": {"robots": list(SEEN), "rungs": ["untouched", "prompt", "prompt_full"], "episodes": 1},
        "ablation": {"rungs": ["prompt_lora"], "inputs": "prompt:zero,language", "episodes": 1},
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The quick study's file, with its recipe and plans."""
    folder = tmp_path / "study"
    shutil.copytree(STUDY, folder)
    study = yaml.safe_load((STUDY / "study.yaml").read_text())
    recipe = yaml.safe_load((STUDY / study["bases"]["soft_prompt"]["recipe"]).read_text())
    write(folder / "recipe.yaml", shrunk_recipe(recipe))
    for path in (folder / "plans").iterdir():
        plan = yaml.safe_load(path.read_text())
        write(path, {**plan, "stages": [shrunk_stage(stage) for stage in plan["stages"]]})
    bases = {name: {**base, "recipe": "recipe.yaml"} for name, base in study["bases"].items() if not base.get("set")}
    return write(folder / "study.yaml", {**shrunk_study(study), "bases": bases})


def test_one_command_makes_demonstrations_base_study_and_tables(here: Run, file: Path, tmp_path: Path) -> None:
    """Every rung has its row and its films; the prompt alone leaves a pretraining robot exactly as it was."""
    out = tmp_path / "out"
    done = here("study", str(file), "--out", str(out), "--workers", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((out / "results.json").read_text())
    rungs = list(yaml.safe_load(file.read_text())["rungs"])
    assert sorted(row["rung"] for row in results["success"]) == sorted(rungs)
    assert {row["rung"] for row in results["open_loop"]} == set(rungs) - {"untouched"}
    for row in results["success"]:
        assert {task: found["success"]["of"] for task, found in row["tasks"].items()}["pick"] == 1
    kept = {(row["rung"], row["driven"]): row["tasks"] for row in results["forgetting"]}
    assert all(kept["prompt", robot] == kept["untouched", robot] for robot in SEEN)
    conditions = results["ablation"][0]["conditions"]
    assert {"own", "prompt:zero"} <= set(conditions)
    text = (out / "results.md").read_text()
    for title in ("### my_arm: success", "### Errors on held-out episodes", "### What the pretraining robots keep"):
        assert title in text
    assert list(out.rglob("films/*.mp4"))
