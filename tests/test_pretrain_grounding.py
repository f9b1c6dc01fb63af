"""`xvla pretrain` with grounding: heads that train with the base and are not in it, and recipes that could not work."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from adapt_helpers import PIXELS, command, small_config
from conftest import ROBOT, write_plugin
from data_helpers import write_dataset
from grounding_helpers import write_stills
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file

from xvla_platform.adapt.run import read_lines
from xvla_platform.modelling.checkpoint import load_model, random_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.platform.workspace import CONFIG_NAME, CONFIG_TEXT
from xvla_platform.specs.recipe import Phase

ENCODER = {"name": "encoder", "steps": 3, "batch_size": 12, "warmup_steps": 1, "lr": {"vlm": 1e-3}}
JOINT = {**ENCODER, "name": "joint", "lr": {"vlm": 1e-3, "transformer_core": 1e-3, "action_heads": 1e-3}}
PRETRAIN = ("pretrain", "recipe.yaml")


def write_workspace(root: Path, **changes: Any) -> Path:
    """One robot with still scenes, and a recipe of two phases: the encoder alone, then all."""
    root.mkdir(parents=True)
    (root / CONFIG_NAME).write_text(CONFIG_TEXT)
    plugin = write_plugin(root / "plugins" / "stills", {**ROBOT, "name": "stills"})
    write_stills(plugin / "demonstrations", scenes=10)
    recipe = {
        "name": "seeing",
        "description": "A base of the tests.",
        "image_size": [PIXELS, PIXELS],
        "vocabulary": 300,
        "held_out": 0.3,
        "model": small_config(),
        "domains": [{"name": "stills", "domain_id": 1, "plugin": "plugins/stills", "per_scene": 3}],
        "phases": [
            {"stage": ENCODER, "mixture": {"stills": 1}, "grounding": 1.0, "policy": False, "measure_every": 2},
            {"stage": JOINT, "mixture": {"stills": 1}, "grounding": 0.3},
        ],
        **changes,
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_workspace(tmp_path_factory.mktemp("whole") / "place")
    assert command(*PRETRAIN, cwd=root) == 0
    return root


def test_a_phase_without_policy_leaves_it_untouched(whole: Path) -> None:
    """After the encoder's phase the policy has the bits it was drawn with; the next phase moves it."""
    run = whole / "runs" / "pretrain" / "seeing"
    fresh = random_model(XVLAConfig.from_folder(run / "base"), 0).state_dict()
    first, second = (load_file(run / f"phase-{i}" / "model.safetensors") for i in (1, 2))
    policy = [name for name in first if name.startswith("transformer.")]
    assert policy
    assert all(torch.equal(first[name], fresh[name]) for name in policy)
    assert any(not torch.equal(second[name], first[name]) for name in policy)
    assert not torch.equal(
        first["vlm.image_proj_norm.weight"], fresh["vlm.multi_modal_projector.image_proj_norm.weight"]
    )
    assert {name for name in second if "grounding" in name} == {
        f"vlm.grounding.{head}.{part}" for head in ("raw", "fused") for part in ("weight", "bias")
    }


def test_the_base_has_no_heads_and_says_what_it_finds(whole: Path) -> None:
    """The heads go; what was measured on held-out scenes is in the base, in the log and in a picture."""
    base, run = whole / "bases" / "seeing", whole / "runs" / "pretrain" / "seeing"
    assert not any("grounding" in name for name in load_file(base / "model.safetensors"))
    assert load_model(base).config.num_domains == 6
    found = json.loads((base / "held_out.json").read_text())
    assert set(found) == {f"held_out/stills/{name}" for name in ("near", "seen", "error")}
    measured = [
        (line["step"], "held_out/stills/near" in line) for line in read_lines(run) if "held_out/stills/seen" in line
    ]
    assert measured == [(2, False), (3, False), (3, True)]
    assert all("position_loss" not in line for line in read_lines(run) if line["stage"] == "encoder")
    with Image.open(run / "curves.png") as picture:
        assert picture.width > 1000


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1])
def test_killed_and_resumed_it_is_the_same(whole: Path, tmp_path: Path, stage: int) -> None:
    """The heads are in the checkpoints, so a run that was killed in either phase ends with the same base."""
    root = write_workspace(tmp_path / "place")
    run = root / "runs" / "pretrain" / "seeing"
    shutil.copytree(whole / "runs" / "pretrain" / "seeing", run)
    for path in run.glob("checkpoints/*"):
        number, step = (int(part) for part in re.findall(r"\d+", path.name))
        if number > stage or (number == stage and step == 3):
            shutil.rmtree(path)
    for number in range(stage + 1, 3):
        shutil.rmtree(run / f"phase-{number}")
    assert command(*PRETRAIN, "--resume", cwd=root) == 0
    name = Path("bases/seeing/model.safetensors")
    assert (root / name).read_bytes() == (whole / name).read_bytes()


def test_frames_on_demand_train_the_same_base(whole: Path, tmp_path: Path) -> None:
    """Nothing is decoded ahead, and the weights are the same to the bit."""
    root = write_workspace(tmp_path / "place", frames="on_demand")
    assert command(*PRETRAIN, cwd=root) == 0
    assert not (root / "runs" / "pretrain" / "seeing" / "frames").exists()
    name = Path("bases/seeing/model.safetensors")
    assert (root / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ({"grounding": 0.0}, "without policy and without grounding nothing would be learned"),
        ({"stage": {**JOINT, "lr": {"action_heads": 1e-3}}, "policy": True}, "so `lr` must name vlm"),
        ({"stage": JOINT}, "without policy only vlm can train"),
    ],
)
def test_an_impossible_phase_is_refused(phase: dict[str, Any], message: str) -> None:
    facts = {"stage": ENCODER, "mixture": {"stills": 1}, "grounding": 1.0, "policy": False, **phase}
    with pytest.raises(ValidationError, match=message):
        Phase.model_validate(facts)


def test_grounding_without_places_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Before anything is trained, and it is said which robot lacks the column."""
    root = write_workspace(tmp_path / "place")
    shutil.rmtree(root / "plugins" / "stills" / "demonstrations")
    write_dataset(root / "plugins" / "stills" / "demonstrations")
    capfd.readouterr()
    assert command(*PRETRAIN, cwd=root) == 2
    assert (
        "phases[0]: grounding needs recordings with the column grounding.uv; found none in stills"
        in capfd.readouterr().err
    )
