"""`xvla study`: a list of commands that survives being killed, and tables that say what the commands answered."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from adapt_helpers import start
from closed_loop_helpers import write_dot_place
from conftest import REPOSITORY, one_line_error, tree

from xvla_platform.adapt.tokenizer import train_tokenizer
from xvla_platform.evaluation.open_loop import predict_chunks
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.named import resolve_config
from xvla_platform.modelling.precision import encode
from xvla_platform.modelling.processor import Processor, describe
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.sim.tasks import pick, stack
from xvla_platform.sim.tasks import place as place_task
from xvla_platform.specs.recipe import load_recipe
from xvla_platform.study.results import plot_success
from xvla_platform.study.spec import load_study
from xvla_platform.study.steps import chosen, steps_of

RECIPE = REPOSITORY / "xvla_platform" / "bases" / "xvla-tiny" / "recipe.yaml"
Run = Callable[..., subprocess.CompletedProcess[str]]
PLAN = {
    "name": "short",
    "stages": [{"name": "prompt", "steps": 4, "batch_size": 4, "warmup_steps": 0, "lr": {"soft_prompts": 1e-3}}],
}
STUDY: dict[str, Any] = {
    "name": "dots",
    "description": "A robot that draws, on an untrained base.",
    "plugins": "plugins",
    "bases": {"small": {"folder": "BASE"}},
    "held_out": ["dot_arm"],
    "accept": ["XV110"],
    "rungs": {"untouched": {"untouched": True}, "prompt": {"plan": "short.yaml"}},
    "cells": [{"bases": ["small"], "rungs": ["untouched", "prompt"], "demonstrations": [4], "inits": ["mean"]}],
    "closed_loop": {"tasks": ["reach"], "episodes": 2, "time_limit": 1, "seed": 5},
}


def write_study(root: Path, **changes: Any) -> Path:
    """The study's file with its plan."""
    (root / "short.yaml").write_text(yaml.safe_dump(PLAN))
    text = yaml.safe_dump({**STUDY, **changes}).replace("BASE", str(root / "base"))
    (root / "study.yaml").write_text(text)
    return root / "study.yaml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a recorded robot, a base, and a study of both."""
    root = write_dot_place(tmp_path_factory.mktemp("study") / "place")
    write_study(root)
    return root


def test_a_study_is_the_product_of_its_lists_with_every_cell_once(place: Path, tmp_path: Path) -> None:
    """What a step needs stands before it; a rung that learns nothing has no number of demonstrations."""
    cells = [
        {"bases": ["small"], "rungs": ["untouched", "prompt"], "demonstrations": [2, 4], "seeds": [0, 1]},
        {"bases": ["small"], "rungs": ["prompt"], "demonstrations": [4], "inits": ["nearest", "random"]},
    ]
    (tmp_path / "plugins").symlink_to(place / "plugins")
    (tmp_path / "base").symlink_to(place / "base")
    forgetting = {"robots": ["other"], "rungs": ["untouched", "prompt"], "episodes": 3}
    file = write_study(tmp_path, cells=cells, forgetting=forgetting)
    steps = steps_of(load_study(file), file, tmp_path / "out")
    names = [step.id for step in steps]
    assert len(names) == len(set(names))
    assert sum(name.startswith("adapt.") for name in names) == 5
    assert sum(name.startswith("eval.") for name in names) == 6
    assert [name for name in names if name.startswith("forget.")] == [
        "forget.small.dot_arm.prompt-d4-nearest-s0.other",
        "forget.small.untouched.other",
    ]
    driving = {step.lane for step in steps if "other" in step.words or step.about.get("driven") == "other"}
    assert driving == {"small.driven.other"}, "they number their folders in one place"
    for i, step in enumerate(steps):
        assert set(step.needs) <= set(names[:i])
    some = [step.id for step in chosen(steps, "eval.*random*")]
    cell = "small.dot_arm.prompt-d4-random-s0"
    assert some == ["add.small.dot_arm", f"adapt.{cell}", f"eval.{cell}"]


def test_bases_of_one_recipe_differ_in_what_they_set(place: Path, tmp_path: Path) -> None:
    """Each is pretrained under its own name, from the recordings that its own domains name."""
    (tmp_path / "plugins").symlink_to(place / "plugins")
    domains = [{"name": "high", "domain_id": 0, "plugin": "plugins/dot_arm", "data": "rigs/2/still_scenes"}]
    bases = {
        "plain": {"recipe": str(RECIPE), "set": {"model.strategy": "action_heads"}},
        "rigs": {
            "recipe": str(RECIPE),
            "set": {"domains": domains, **{f"phases[{i}].mixture": {"high": 1} for i in (0, 1)}},
        },
    }
    recordings = [
        {"plugin": "panda", "episodes": 3},
        {"plugin": "dot_arm", "episodes": 3},
        {"plugin": "dot_arm", "still_scenes": 3, "rig": 2},
    ]
    cells = [{"bases": list(bases), "rungs": ["prompt"], "demonstrations": [2]}]
    file = write_study(tmp_path, bases=bases, cells=cells, recordings=recordings)
    steps = {step.id: step for step in steps_of(load_study(file), file, tmp_path / "out")}
    told = " ".join(steps["pretrain.plain"].words)
    assert '--set name="plain" --set model.strategy="action_heads"' in told
    assert steps["pretrain.plain"].needs == ("record.panda.demonstrations",)
    assert steps["pretrain.rigs"].needs == ("record.dot_arm.still_scenes.rig2",)
    assert steps["add.rigs.dot_arm"].needs == ("pretrain.rigs", "record.dot_arm.demonstrations")


def test_words_that_describe_a_robot_fit_where_they_are_the_prompt(tmp_path: Path) -> None:
    """Every robot of the study with every instruction, in the tokenizer, the encoder and the policy of that base."""
    file = REPOSITORY / "benchmarks" / "study" / "strategies.yaml"
    study = load_study(file)
    values = study.bases["language_prompt"].set
    recipe, _ = load_recipe(RECIPE, [f"{field}={json.dumps(value)}" for field, value in values.items()])
    config = XVLAConfig.from_dict(resolve_config(recipe.model, RECIPE), RECIPE)
    robots = {robot: load_plugin(REPOSITORY / "plugins" / robot).spec for robot in study.held_out}
    seen = [load_plugin(REPOSITORY / domain.plugin).spec for domain in recipe.domains]
    robots |= {spec.name: spec for spec in seen}
    assert len(robots) == 7
    words = {"plate": ("white", "black", "purple"), "colour": ("red", "yellow"), "other": ("green", "blue")}
    instructions = sorted(
        sentence.format(**dict(zip(words, chosen, strict=True)))
        for sentence in (*pick.SENTENCES, *place_task.SENTENCES, *stack.SENTENCES)
        for chosen in product(*words.values())
    )
    train_tokenizer([*dict.fromkeys(instructions), *map(describe, seen)], recipe.vocabulary, tmp_path)
    processor = Processor.from_folder(tmp_path, config)
    tokens = [processor.for_robot(spec).tokens(text) for spec in robots.values() for text in instructions]
    model = XVLA(config).eval()
    pixels = torch.zeros(1, config.num_views, 3, *recipe.image_size)
    mask = torch.ones(1, config.num_views, dtype=torch.bool)
    features = encode(model, input_ids=torch.tensor(tokens[:1]), pixel_values=pixels, image_mask=mask)
    proprio = torch.zeros(1, model.config.dim_proprio)
    assert len(predict_chunks(model, features=features, proprio=proprio, domain_id=0, seed=0)) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cells": [{"bases": ["small"], "rungs": ["lora"]}]}, "unknown 'lora'; allowed: prompt, untouched"),
        ({"rungs": {"untouched": {"untouched": True, "then": "lora"}}}, "a rung is one of"),
        ({"bases": {"small": {}}}, "either a recipe or a folder"),
        (
            {"bases": {"small": {"folder": "BASE", "untrained": True}}},
            "a base that is untrained, or sets values, has a recipe",
        ),
        ({"bases": {"small": {"folder": "BASE", "set": {"seed": 1}}}}, "or sets values, has a recipe"),
        ({"held_out": ["arm_without_plugin"]}, "no such plugin"),
        ({"held_out": ["../dot_arm"]}, "held_out[0]: String should match"),
        ({"cells": [{"bases": ["small"], "rungs": ["prompt"], "seeds": []}]}, "cells[0].seeds: Tuple should have"),
        ({"cells": [{"bases": ["small"], "rungs": ["prompt"], "demonstrations": [-3]}]}, "greater than or equal to 1"),
        ({"rungs": {"prompt": {"plan": "gone.yaml"}, "untouched": {"untouched": True}}}, "rungs.prompt.plan: no such"),
        (
            {
                "cells": [{"bases": ["small"], "rungs": ["prompt"]}],
                "ablation": {"rungs": ["untouched"], "episodes": 1},
            },
            "no cell has 'untouched', which forgetting or ablation",
        ),
        (
            {
                "cells": [{"bases": ["small"], "rungs": ["prompt"]}],
                "ablation": {"rungs": ["prompt"], "inputs": "prompt,smell", "episodes": 1},
            },
            "ablation.inputs: unknown ablation; found smell; allowed: prompt, vision, language",
        ),
        ({"forgetting": {"robots": ["moon"], "rungs": ["prompt"], "episodes": 1}}, "robots[0]: no such plugin"),
        (
            {"forgetting": {"robots": ["dot_arm"], "rungs": ["prompt"], "episodes": 1}},
            "the base small was not trained on this robot; found dot_arm; allowed: robot0, robot1, robot2",
        ),
        (
            {"cells": [{"bases": ["small"], "rungs": ["prompt"], "demonstrations": [4, 50]}]},
            "cells[0].demonstrations: dot_arm has not so many demonstrations to learn from; found 50; allowed: at most",
        ),
        (
            {"recordings": [{"plugin": "dot_arm", "episodes": 5}]},
            "demonstrations to learn from; found 4; allowed: at most 3 of 5 recorded",
        ),
        ({"recordings": [{"plugin": "dot_arm", "episodes": count} for count in (3, 4)]}, "would lie in one folder"),
        ({"recordings": [{"plugin": "dot_arm"}]}, "either episodes or still_scenes"),
        (
            {"recordings": [{"plugin": "dot_arm", "still_scenes": 3, "slips": 0.3}]},
            "still scenes have no slips",
        ),
    ],
)
def test_a_study_that_cannot_be_is_one_line(
    here: Run, place: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    (tmp_path / "plugins").symlink_to(place / "plugins")
    (tmp_path / "base").symlink_to(place / "base")
    file = write_study(tmp_path, **changes)
    before = tree(tmp_path)
    assert words in one_line_error(here("study", str(file), "--out", str(tmp_path / "out"), cwd=tmp_path))
    assert {name for name in tree(tmp_path) if not name.startswith("out")} == set(before)


def test_a_killed_study_goes_on_where_it_was(here: Run, place: Path) -> None:
    """Killed with what it runs; what was finished is not run again, and the tables hold every cell."""
    folder = place / "runs" / "studies" / "dots"
    running = start("study", "study.yaml", cwd=place)
    first = folder / "steps" / "add.small.dot_arm.json"
    deadline = time.monotonic() + 120
    while not first.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    running.wait(timeout=60)
    before = first.stat().st_mtime_ns
    done = here("study", "study.yaml", "--json", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert first.stat().st_mtime_ns == before
    results = json.loads((folder / "results.json").read_text())
    cells = [(row["rung"], row["demonstrations"]) for row in results["success"]]
    assert cells == [("untouched", 0), ("prompt", 4)]
    assert all(row["tasks"]["reach"]["success"]["of"] == 2 for row in results["success"])
    text = (folder / "results.md").read_text()
    assert "### dot_arm: success" in text
    assert "| small | prompt | 4 | mean |" in text
    assert (folder / "success.png").stat().st_size > 1000
    states = here("study", "study.yaml", "--dry-run", cwd=place).stdout
    assert "to do" not in states


def test_after_a_dry_run_comes_the_command_as_it_was_typed(here: Run, place: Path) -> None:
    told = here("study", "--dry-run", "study.yaml", "--workers", "2", cwd=place).stdout
    assert told.rstrip().endswith("next: xvla study study.yaml --workers 2")


def test_an_answer_to_other_settings_is_not_taken_for_one_to_these(here: Run, place: Path) -> None:
    """Half the episodes of before are no result of the study as it stands; as it was, all of it is still done."""
    assert here("study", "study.yaml", "--json", cwd=place).returncode == 0
    write_study(place, closed_loop={**STUDY["closed_loop"], "episodes": 1})
    for more in ((), ("--report",), ("--dry-run",)):
        line = one_line_error(here("study", "study.yaml", *more, cwd=place))
        assert "was run with other settings than the study has now; found --episodes 2; allowed: --episodes 1" in line
    write_study(place)
    assert "to do" not in here("study", "study.yaml", "--dry-run", cwd=place).stdout


def test_a_step_that_fails_is_told_with_its_words(here: Run, place: Path, tmp_path: Path) -> None:
    """Rows that nobody has: the command's own line, and nothing taken for done."""
    (tmp_path / "plugins").symlink_to(place / "plugins")
    (tmp_path / "base").symlink_to(place / "base")
    file = write_study(tmp_path, cells=[{**STUDY["cells"][0], "inits": ["nobody"]}])
    failed = here("study", str(file), "--out", str(tmp_path / "out"), cwd=tmp_path)
    line = one_line_error(failed)
    assert "--init nobody" in line
    assert not list((tmp_path / "out" / "steps").glob("adapt.*.json"))


def test_a_way_to_adapt_has_one_colour_on_every_robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a robot lacks some of them; points of one number of demonstrations lie side by side around it."""
    from matplotlib.figure import Figure

    study = load_study(REPOSITORY / "benchmarks" / "study" / "ladder.yaml")
    share = {"rate": 0.5, "interval_95": [0.4, 0.6]}
    rows = [
        {"robot": robot, "base": "b", "rung": rung, "init": "nearest", "seed": 0, "demonstrations": count}
        | {"tasks": {"all tasks": {"success": share}}}
        for robot, rungs in (("my_arm", "ac"), ("xarm7", "abc"))
        for rung in rungs
        for count in (5, 50)
    ]
    figures: list[Figure] = []
    saved = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), saved(self, *a, **k)))
    plot_success(study, rows, tmp_path / "success.png")
    assert (tmp_path / "success.png").stat().st_size > 5000
    legend = figures[0].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["a", "c", "b"]
    panels = [{c.lines[0].get_color(): c.lines[0].get_xdata() for c in axis.containers} for axis in figures[0].axes]
    assert list(panels[0]) == list(panels[1]) == ["C0", "C1", "C2"]
    assert [len(x) for x in panels[0].values()] == [2, 2, 0]
    at_fifty = [float(x[1]) for x in panels[1].values()]
    assert len(set(at_fifty)) == 3
    assert sum(at_fifty) / 3 == pytest.approx(50)
