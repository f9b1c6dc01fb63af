"""`xvla pretrain`: two small robots, two phases, one base; stopped and resumed it is the same to the last byte."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from adapt_helpers import PIXELS, command, small_config, start
from conftest import ROBOT, one_line_error, tree, write_plugin
from data_helpers import write_dataset
from safetensors.torch import load_file

from xvla_platform.adapt.holding import held
from xvla_platform.adapt.recipe_checks import check_recipe
from xvla_platform.adapt.snapshot import load_newest
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.checkpoint import load_model, random_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.slot import SLOT_MODULES, table
from xvla_platform.platform.bases import resolve_base
from xvla_platform.platform.workspace import CONFIG_NAME, CONFIG_TEXT
from xvla_platform.specs.recipe import PretrainRecipe

STAGE = {"steps": 3, "batch_size": 16, "warmup_steps": 1, "eval_every": 2}
ALL = {"soft_prompts": 1e-3, "action_heads": 1e-3, "transformer_core": 1e-3, "vlm": 1e-4}
RECIPE: dict[str, Any] = {
    "name": "small",
    "description": "A base of the tests.",
    "seed": 4,
    "image_size": [PIXELS, PIXELS],
    "vocabulary": 300,
    "model": small_config(),
    "domains": [
        {"name": "first", "domain_id": 0, "plugin": "plugins/first"},
        {"name": "second", "domain_id": 2, "plugin": "plugins/second"},
    ],
    "phases": [
        {
            "stage": {**STAGE, "name": "motor", "lr": ALL, "color_jitter": [0.2, 0.2, 0.2], "dropout": 0.1},
            "mixture": {"first": 1, "second": 2},
        },
        {
            "stage": {**STAGE, "name": "rest", "lr": {k: v for k, v in ALL.items() if k != "vlm"}},
            "mixture": {"second": 1},
        },
    ],
}
PRETRAIN = ("pretrain", "recipe.yaml")


def write_recipe(root: Path, **changes: Any) -> None:
    (root / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, **changes}))


def write_workspace(root: Path) -> Path:
    """Two robots with three short episodes each, and the recipe."""
    root.mkdir(parents=True)
    (root / CONFIG_NAME).write_text(CONFIG_TEXT)
    for name in ("first", "second"):
        plugin = write_plugin(root / "plugins" / name, {**ROBOT, "name": name})
        write_dataset(plugin / "demonstrations", task=f"{name} lifts the cube")
    write_recipe(root)
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace after an uninterrupted run."""
    root = write_workspace(tmp_path_factory.mktemp("whole") / "place")
    assert command(*PRETRAIN, cwd=root) == 0
    return root


def weights(root: Path, name: str = "small") -> bytes:
    return (root / "bases" / name / "model.safetensors").read_bytes()


def test_the_base_is_whole(whole: Path) -> None:
    """Weights, words, images, taken rows and the recipe itself: a folder that adapting can start from."""
    folder = whole / "bases" / "small"
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "domains.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor_config.json",
        "recipe.yaml",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    }
    base = resolve_base(str(folder))
    assert base.used_domains == {0: "first", 2: "second"}
    config = XVLAConfig.from_folder(folder)
    processor = Processor.from_folder(folder, config)
    assert processor.size == (PIXELS, PIXELS)
    assert len(processor.tokens("first lifts the cube 0")) == config.language_max_length
    assert config.florence["vocab_size"] == len(json.loads((folder / "vocab.json").read_text()))
    assert (folder / "recipe.yaml").read_text() == (whole / "recipe.yaml").read_text()


def test_rows_nobody_used_are_as_they_were_drawn(whole: Path) -> None:
    """Free rows keep the bits of their initialisation, whatever decay or momentum did elsewhere; used ones learnt."""
    folder = whole / "bases" / "small"
    config = XVLAConfig.from_folder(folder)
    trained, fresh = load_model(folder), random_model(config, RECIPE["seed"])
    for name in SLOT_MODULES:
        for domain in range(config.num_domains):
            same = torch.equal(table(trained, name)[domain], table(fresh, name)[domain])
            assert same == (domain not in (0, 2)), (name, domain)
    moved = [name for name, tensor in trained.state_dict().items() if not torch.equal(tensor, fresh.state_dict()[name])]
    assert any(name.startswith("vlm.vision_tower") for name in moved)
    assert any(name.startswith("transformer.blocks.1") for name in moved)


def test_an_untrained_base_is_the_first_steps(whole: Path) -> None:
    """What training from scratch starts from has the recipe's words and the weights of its seed; no run is touched."""
    before = weights(whole)
    assert command(*PRETRAIN, "--untrained", "--out", "bases/fresh", cwd=whole) == 0
    folder = whole / "bases" / "fresh"
    fresh = random_model(XVLAConfig.from_folder(folder), RECIPE["seed"]).state_dict()
    written = load_model(folder).state_dict()
    assert written.keys() == fresh.keys()
    assert all(torch.equal(written[name], fresh[name]) for name in fresh)
    assert (folder / "vocab.json").read_bytes() == (whole / "bases" / "small" / "vocab.json").read_bytes()
    assert weights(whole) == before


def test_a_phase_trains_its_own_groups_and_robots(whole: Path) -> None:
    """The second phase leaves the encoder and the first robot's row as the first phase left them."""
    run = whole / "runs" / "pretrain" / "small"
    before, after = (load_file(run / f"phase-{i}" / "model.safetensors") for i in (1, 2))
    for name, tensor in after.items():
        if name.startswith("vlm."):
            assert torch.equal(tensor, before[name]), name
        if name.removesuffix(".weight") in SLOT_MODULES:
            assert torch.equal(tensor[0], before[name][0])
            assert not torch.equal(tensor[2], before[name][2])


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    """Until a file or folder is there, or the process has ended."""
    deadline = time.monotonic() + 100
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("../frames", marks=pytest.mark.slow),
        pytest.param("checkpoints/stage-0-step-00000002", marks=pytest.mark.slow),
        pytest.param("phase-1/model.safetensors", marks=pytest.mark.slow),
        "checkpoints/stage-1-step-00000002",
    ],
)
def test_killed_and_resumed_it_is_the_same(whole: Path, tmp_path: Path, moment: str) -> None:
    """While decoding, within a phase, between two phases: the weights are those of the uninterrupted run."""
    root = write_workspace(tmp_path / "place")
    process = start(*PRETRAIN, cwd=root)
    wait_for(root / "runs" / "pretrain" / "small" / moment, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if process.returncode == 0:
        pytest.skip("the run was over before it could be killed")
    assert not (root / "bases" / "small").exists()
    assert command(*PRETRAIN, "--resume", cwd=root) == 0
    assert weights(root) == weights(whole)


@pytest.mark.parametrize("strategy", ["action_heads", "hpt_projection", "language_prompt"])
def test_one_recipe_makes_a_base_of_every_strategy(whole: Path, strategy: str) -> None:
    """`--set` changes the recipe that is kept; frames decoded for another base serve this one."""
    frames = whole / "runs" / "pretrain" / "frames"
    before = {path: path.stat().st_mtime_ns for path in frames.glob("*.npy")}
    positions = ("max_len_seq=128", "florence_config.text_config.max_position_embeddings=128")
    changes = [f"model.{change}" for change in (f"strategy={strategy}", "language_max_length=60", *positions)]
    words = [word for change in (f"name={strategy}", *changes) for word in ("--set", change)]
    assert command(*PRETRAIN, *words, cwd=whole) == 0
    folder = whole / "bases" / strategy
    assert XVLAConfig.from_folder(folder).strategy == strategy
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["model"]["strategy"] == strategy
    assert before
    assert {path: path.stat().st_mtime_ns for path in frames.glob("*.npy")} == before
    assert resolve_base(str(folder)).used_domains == {0: "first", 2: "second"}


def test_an_instruction_that_has_no_positions_is_one_line(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Image and words share the text encoder's positions; the message says how many there would have to be."""
    capfd.readouterr()
    assert command(*PRETRAIN, "--set", "name=long", "--set", "model.language_max_length=100", cwd=whole) == 2
    error = capfd.readouterr().err
    assert "too many image and instruction tokens" in error
    assert "max_position_embeddings" in error
    assert not (whole / "bases" / "long").exists()


def test_an_existing_base_is_never_replaced(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A base is referred to by its weights: another run needs another folder."""
    before = tree(whole / "bases")
    capfd.readouterr()
    assert command(*PRETRAIN, cwd=whole) == 2
    assert "exists already. Choose another --out, or remove it" in capfd.readouterr().err
    assert command(*PRETRAIN, "--out", str(whole / "plugins"), cwd=whole) == 2
    assert command(*PRETRAIN, "--resume", "--out", str(whole / "plugins"), cwd=whole) == 2
    assert "exists already and is not a base of this recipe" in capfd.readouterr().err
    assert (whole / "plugins" / "first" / "plugin.yaml").is_file()
    assert tree(whole / "bases") == before


def test_a_requeued_pretraining_finds_its_base(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`--resume-if-begun` where the base is already there changes nothing; a base of another recipe stays refused."""
    before = weights(whole)
    assert command(*PRETRAIN, "--resume-if-begun", cwd=whole) == 0
    assert weights(whole) == before
    untrained = (*PRETRAIN, "--untrained", "--out", "bases/random", "--resume-if-begun")
    assert command(*untrained, cwd=whole) == command(*untrained, cwd=whole) == 0
    assert command(*PRETRAIN, "--resume-if-begun", "--set", "seed=7", cwd=whole) == 2
    assert "exists already" in capfd.readouterr().err


def test_checkpoints_are_not_erased_by_the_same_command(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Who forgot --resume is told; hours of training are removed by hand or not at all."""
    run = whole / "runs" / "pretrain" / "small"
    before = tree(run / "checkpoints")
    capfd.readouterr()
    assert command(*PRETRAIN, "--out", "bases/again", cwd=whole) == 2
    assert "Go on from them with --resume, or remove that folder" in capfd.readouterr().err
    assert tree(run / "checkpoints") == before


def test_a_run_that_another_command_is_at_work_on_is_refused(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two would write over each other's checkpoints."""
    run = whole / "runs" / "pretrain" / "small"
    before = tree(run / "checkpoints")
    capfd.readouterr()
    with held(run):
        assert command(*PRETRAIN, "--resume", "--out", "bases/again", cwd=whole) == 2
    assert "another command is at work on this run" in capfd.readouterr().err
    assert tree(run / "checkpoints") == before


def test_a_batch_that_the_processes_cannot_share_is_refused() -> None:
    """Before anything is decoded."""
    recipe = PretrainRecipe.model_validate(RECIPE)
    with pytest.raises(XvlaError, match=r"phases\[0\].stage.batch_size.*found 16; allowed: a multiple of 3"):
        check_recipe(recipe, Path("recipe.yaml"), [], 3)
    check_recipe(recipe, Path("recipe.yaml"), [], 2)


def test_a_new_run_never_meets_an_older_ones_checkpoints(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The same name with another seed and size starts from nothing; a changed recipe is not resumed."""
    write_recipe(whole, seed=5, model={**small_config(), "depth": 1})
    capfd.readouterr()
    assert command(*PRETRAIN, "--resume", "--out", "bases/other", cwd=whole) == 2
    assert "the recipe changed since the interrupted run" in capfd.readouterr().err
    assert command(*PRETRAIN, "--out", str(whole / "bases" / "other"), cwd=whole) == 0
    assert load_model(whole / "bases" / "other").config.depth == 1
    found = load_newest(whole / "runs" / "pretrain" / "small" / "checkpoints")
    assert found is not None
    written = load_file(whole / "bases" / "other" / "model.safetensors")
    assert torch.equal(found.current["transformer.pos_emb"], written["transformer.pos_emb"])


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "robot without a plugin": (lambda r: r["domains"][0].update(plugin="plugins/gone"), "plugins/gone"),
    "no demonstrations": (lambda r: r["domains"][0].update(data="gone"), "no demonstrations"),
    "unknown robot": (lambda r: r["phases"][0].update(mixture={"third": 1}), "unknown domain third; allowed: first"),
    "same row twice": (lambda r: r["domains"][1].update(domain_id=0), "domain ids must be unique"),
    "row that is not there": (
        lambda r: r["domains"][1].update(domain_id=6),
        "domains[1].domain_id: the model has no such row; found 6; allowed: 0-5",
    ),
    "no weight": (lambda r: r["phases"][0].update(mixture={"first": 0}), "not all zero"),
    "no layers": (lambda r: r["model"].update(depth=-1), "depth: expected a positive whole number; found -1"),
    "no heads": (lambda r: r["model"].update(num_heads=0), "num_heads: expected a positive whole number; found 0"),
    "odd heads": (
        lambda r: r["model"]["florence_config"]["text_config"].update(encoder_attention_heads=5),
        "model: no model can be built of these values for images of",
    ),
    "grounding on a rectangle": (
        lambda r: (r.update(image_size=[PIXELS, 2 * PIXELS]), r["phases"][0].update(grounding=0.3)),
        "image_size: grounding reads a square grid of image tokens; found",
    ),
    "more views than slots": (
        lambda r: r["model"].update(num_views=1),
        "found first with 2 cameras; allowed: at most 1",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_recipe_is_one_line(whole: Path, capfd: pytest.CaptureFixture[str], fault: str) -> None:
    """Before anything is decoded or trained."""
    change, message = FAULTS[fault]
    recipe = json.loads(json.dumps({**RECIPE, "name": "faulty"}))
    change(recipe)
    (whole / "faulty.yaml").write_text(yaml.safe_dump(recipe))
    capfd.readouterr()
    code = command("pretrain", "faulty.yaml", cwd=whole)
    result = subprocess.CompletedProcess("pretrain", code, "", capfd.readouterr().err)
    assert message in one_line_error(result)
    assert not (whole / "bases" / "faulty").exists()
