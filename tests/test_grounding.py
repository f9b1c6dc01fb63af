"""Grounding on rendered scenes: the heads find what is named, and what is held out is never trained on."""

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from adapt_helpers import PIXELS, command, small_config
from conftest import ROBOT, write_plugin
from data_helpers import FRONT, WRIST, write_dataset
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file

from xvla_platform.adapt.grounding import GroundedXVLA, attach_heads, count_things, errors, locate, things_named
from xvla_platform.adapt.held_out import measure
from xvla_platform.adapt.mixture import Mixture, Stock, build_stock, chances, marks, mixture_weights, split_scenes
from xvla_platform.adapt.run import read_lines
from xvla_platform.adapt.sources import Draw, assemble, build_source, decode_frames, frames_shape
from xvla_platform.adapt.tokenizer import train_tokenizer
from xvla_platform.data.binding import Binding
from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.lerobot_video import VideoSettings
from xvla_platform.data.lerobot_writer import CameraColumn, LeRobotWriter, VectorColumn
from xvla_platform.data.samples import Samples
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.checkpoint import load_model, random_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import Processor
from xvla_platform.platform.workspace import CONFIG_NAME, CONFIG_TEXT
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.recipe import Balance, Domain, Phase

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230)}
SCENES = 40
SIDE = 32
STEPS = 100
UV, PLACE_UV = "grounding.uv", "grounding.place_uv"


def scene(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture [SIDE, SIDE, 3] with a square of each colour in another cell, and their centres [3, 2] in 0..1."""
    image = np.full((SIDE, SIDE, 3), 110, dtype=np.uint8)
    cells = generator.permutation(4)[:3]
    centres = np.stack([cells % 2, cells // 2], axis=1) * 16 + generator.integers(4, 12, (3, 2))
    for (x, y), colour in zip(centres, COLOURS.values(), strict=True):
        image[y - 4 : y + 4, x - 4 : x + 4] = colour
    return image, centres / SIDE


def write_stills(root: Path, scenes: int = SCENES, seed: int = 0, *, places: bool = False) -> Path:
    """One-frame episodes, three of each scene: each names another square, and its action lies where that is.

    With `places` the second thing that is named is the next colour's square, else there is none.
    """
    generator = np.random.default_rng(seed)
    cameras = [CameraColumn(key, SIDE, SIDE) for key in (FRONT, WRIST)]
    state = [VectorColumn(key, [f"{key}{i}" for i in range(7)]) for key in ("observation.state", "action")]
    vectors = [*state, VectorColumn(UV, ("u", "v")), VectorColumn(PLACE_UV, ("u", "v"))]
    with LeRobotWriter(root, fps=10, vectors=vectors, cameras=cameras, video=VideoSettings(preset="ultrafast")) as out:
        for _ in range(scenes):
            image, centres = scene(generator)
            for i, (colour, centre) in enumerate(zip(COLOURS, centres, strict=True)):
                action = np.array([[*(centre - 0.5), 0.2, 0.0, 0.0, 0.0, 0.08]])
                columns = {"observation.state": np.zeros((1, 7)), "action": action, UV: centre[None]}
                columns[PLACE_UV] = centres[(i + 1) % 3][None] if places else np.full((1, 2), -1.0)
                out.add_episode(f"touch the {colour} square", columns, {FRONT: image[None], WRIST: image[None]})
    return root


@dataclass(frozen=True, kw_only=True)
class Room:
    """Still scenes ready for training, and the processor of their model."""

    stock: Stock
    samples: Samples
    processor: Processor
    config: XVLAConfig


def write_preprocessor(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": PIXELS, "width": PIXELS}}))


def open_room(root: Path, share: float = 0.2, **domain: Any) -> Room:
    """The still scenes in `root`, of which the last share is held out."""
    words = root.parent / "words"
    words.mkdir(exist_ok=True)
    size = train_tokenizer([f"touch the {colour} square" for colour in COLOURS], 300, words)
    write_preprocessor(words)
    config = XVLAConfig.from_dict(small_config(size))
    spec, processor = EmbodimentSpec.model_validate(ROBOT), Processor.from_folder(words, config)
    reader = open_lerobot(root)
    binding = Binding(spec, config.space, config.rotation_layout, None)
    samples = Samples(reader, spec, binding, range(len(reader.episodes)), config.num_actions)
    frames = np.zeros(frames_shape(samples, processor), dtype=np.uint8)
    decode_frames(samples, processor, frames)
    frames = frames[np.arange(len(frames)) // 3 * 3]  # without what the video codec left between equal pictures
    source = build_source(samples, frames, name="stills", domain_id=1, processor=processor, config=config)
    about = Domain(**{"name": "stills", "domain_id": 1, "plugin": "plugins/stills", "per_scene": 3, **domain})
    instructions = sorted({episode.instruction for episode in reader.episodes})
    stock = build_stock(source, samples, about, things_named(instructions, {}), share)
    return Room(stock=stock, samples=samples, processor=processor, config=config)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return open_room(write_stills(tmp_path_factory.mktemp("room") / "stills"))


def grounded(room: Room, *, acts: bool) -> GroundedXVLA:
    torch.manual_seed(0)
    model = GroundedXVLA(room.config)
    attach_heads(model, count_things([""] * len(COLOURS), {}), seed=0)
    model.weight, model.acts = 1.0, acts
    return model


def batch_of(room: Room, step: int, size: int = 12) -> dict[str, Any]:
    """What a step is given, with noise and time."""
    drawn, more = Mixture(stocks=[room.stock], weights=[1.0])(batch_size=size, key=(0, 0, step))
    batch = assemble([room.stock.source], drawn, room.processor)
    noise = torch.randn(batch["action"].shape, generator=torch.Generator().manual_seed(step))
    return {**batch, **more, "noise": noise, "t": torch.linspace(0, 0.9, size)}


def test_the_loss_falls_and_the_named_square_is_found(room: Room) -> None:
    """A hundred-odd steps of the encoder alone: held-out squares are found by name, and the policy was not touched."""
    model = grounded(room, acts=False)
    policy = {name: tensor.clone() for name, tensor in model.transformer.state_dict().items()}
    before = measure(model, [room.stock], room.processor, acts=False)["held_out/stills/seen"]
    assert before < 0.7
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        terms = model(**batch_of(room, step))
        assert set(terms) == {"grounding_raw", "grounding_fused"}
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    found = measure(model, [room.stock], room.processor, acts=False)
    assert found["held_out/stills/seen"] > 0.85, found
    assert all(torch.equal(tensor, policy[name]) for name, tensor in model.transformer.state_dict().items())


def test_a_picture_is_encoded_once_and_answers_as_if_it_were_not(room: Room) -> None:
    """Three questions about one picture: the same losses as with every picture encoded by itself."""
    model = grounded(room, acts=True).eval()
    batch = batch_of(room, 0, size=24)
    assert len(set(batch["picture"].tolist())) <= 8
    seen: list[int] = []
    handle = model.vlm.vision_tower.register_forward_pre_hook(lambda _, images: seen.append(len(images[0])))  # type: ignore[union-attr]
    shared = model(**batch)
    apart = model(**{**batch, "picture": torch.arange(24)})
    handle.remove()
    assert seen == [2 * len(set(batch["picture"].tolist())), 2 * 24]
    assert set(shared) == {"position_loss", "rotate6D_loss", "gripper_loss", "grounding_raw", "grounding_fused"}
    for name, value in shared.items():
        assert float(value) == pytest.approx(float(apart[name]), rel=1e-4), name
    drawn = Draw(source=np.zeros(24, dtype=np.int64), row=room.stock.sets[:8].reshape(-1))
    assert len(set(marks([room.stock], drawn)["picture"].tolist())) == 8


def test_micro_batches_add_up_and_unknown_places_do_not_count(room: Room) -> None:
    """Grounding is the mean over the samples whose place is known, however the batch is cut."""
    model = grounded(room, acts=False).eval()
    stock = replace(room.stock, uv=room.stock.uv.clone())  # type: ignore[union-attr]
    stock.uv[::2] = torch.nan  # type: ignore[index]
    drawn, more = Mixture(stocks=[stock], weights=[1.0])(batch_size=24, key=(0, 0, 0))
    batch = {**assemble([stock.source], drawn, room.processor), **more}
    whole = model(**batch)
    halves = [
        model(**{name: value[part] if len(value) == 24 else value for name, value in batch.items()})
        for part in (slice(0, 12), slice(12, 24))
    ]
    known = more["uv"].isfinite().all(2)[:, 0]
    assert 0 < int(known.sum()) < 24
    assert float(more["share"].sum(1).mean()) == pytest.approx(1.0)
    only = model(**{name: value[known] if len(value) == 24 else value for name, value in batch.items()}) | {}
    for name, value in whole.items():
        assert float(value) == pytest.approx(float(sum(half[name] for half in halves) / 2), rel=1e-5), name
        assert float(value) == pytest.approx(float(only[name]) * int(known.sum()) / 24, rel=1e-5), name


def test_held_out_scenes_are_never_drawn(room: Room) -> None:
    """The last fifth of the scenes, whole; every other row is drawn sooner or later, with its whole scene."""
    stock = room.stock
    assert set(stock.scene_of[stock.held]) == set(range(32, 40))
    mixture = Mixture(stocks=[stock], weights=[1.0])
    drawn = [mixture(batch_size=24, key=(0, 0, step))[0].row for step in range(60)]
    assert not np.isin(np.concatenate(drawn), stock.held).any()
    assert set(np.concatenate(drawn)) == set(range(96))
    assert all((rows.reshape(-1, 3) == rows.reshape(-1, 3)[:, :1] + np.arange(3)).all() for rows in drawn)
    both = [mixture(batch_size=24, key=(0, 0, 7), rank=rank, world=2)[0].row for rank in (0, 1)]
    assert np.array_equal(np.stack(both, 1).reshape(-1), drawn[7])


def test_heads_read_and_say_places() -> None:
    """An answer that is right has no offset error and is located where it was drawn."""
    uv = torch.tensor([[0.1, 0.9], [0.5, 0.5], [1.0, 0.0]])
    answer = torch.zeros(3, 16, 3)
    for i, (u, v) in enumerate((uv * 4).clamp(0, 3.999).tolist()):
        cell = int(v) * 4 + int(u)
        answer[i, cell] = torch.tensor([50.0, u % 1 - 0.5, v % 1 - 0.5])
    assert torch.allclose(locate(answer), uv, atol=1e-3)
    assert float(errors(answer, uv).max()) < 1e-5
    assert float(errors(answer, 1 - uv)[0]) > 40


def test_the_second_thing_is_asked_for_where_it_is_known(tmp_path: Path, room: Room) -> None:
    """Both columns reach the batch, each question counts alike, and each head has an answer of its own."""
    other = open_room(write_stills(tmp_path / "stills", 6, places=True))
    uv, classes = other.stock.uv, other.stock.classes
    assert uv is not None
    assert torch.equal(uv[:3, 1], uv[[1, 2, 0], 0])
    assert torch.equal(classes[:, 1], classes[:, 0] + 3)
    mixture = Mixture(stocks=[room.stock, other.stock], weights=[1.0, 1.0])
    _, more = mixture(batch_size=24, key=(0, 0, 0))
    asked = more["uv"].isfinite().all(2)
    assert asked[:, 0].all()
    assert 0 < int(asked[:, 1].sum()) < 24
    assert torch.allclose(more["share"], asked.float() * 24 / int(asked.sum()))
    model = grounded(other, acts=False).eval()
    drawn, more = Mixture(stocks=[other.stock], weights=[1.0])(batch_size=6, key=(0, 0, 0))
    batch = {**assemble([other.stock.source], drawn, other.processor), **more}
    both = model(**batch)
    first = model(**{**batch, "share": torch.tensor([[2.0, 0.0]]).expand(6, 2)})
    second = model(**{**batch, "share": torch.tensor([[0.0, 2.0]]).expand(6, 2)})
    for name, value in both.items():
        assert float(first[name].detach()) != pytest.approx(float(second[name].detach()), rel=1e-3)
        assert float(value.detach()) == pytest.approx(float((first[name] + second[name]).detach()) / 4, rel=1e-5)


def test_what_is_named_first_and_second() -> None:
    """By place in the sentence, whatever the phrase; one thing alone has no second, and nothing is refused."""
    objects = {"red cube": ("red cube", "red block"), "blue cube": ("blue cube",), "blue plate": ("blue plate",)}
    words = ["Lift the red block", "put the blue cube on the blue plate", "stack the blue cube on the red cube"]
    assert list(things_named(words, objects).values()) == [(0, 0), (1, 2), (1, 0)]
    assert count_things(words, objects) == 3
    assert things_named(words, {})[words[1]] == (1, 4)
    assert count_things(words, {}) == 6
    with pytest.raises(XvlaError, match="names none of the objects"):
        things_named(["open the drawer"], objects)


def test_scenes_are_split_whole() -> None:
    assert [split_scenes(30, 3, share) for share in (0.0, 0.1, 0.34, 0.99)] == [30, 27, 21, 3]
    assert split_scenes(3, 1, 0.1) == 3


EPISODES = np.repeat([0, 1, 2], [6, 2, 4])
FRAMES = np.concatenate([np.arange(6), np.arange(2), np.arange(4)])
LENGTHS = np.array([6, 2, 4])
TASKS = np.array([0, 0, 1])[EPISODES]


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        ({}, [6 / 12, 2 / 12, 4 / 12]),
        ({"tasks": True}, [3 / 8, 1 / 8, 1 / 2]),
        ({"episodes": True}, [1 / 3, 1 / 3, 1 / 3]),
        ({"tasks": True, "episodes": True}, [1 / 4, 1 / 4, 1 / 2]),
    ],
)
def test_tasks_and_episodes_are_balanced(balance: dict[str, Any], expected: list[float]) -> None:
    """Chance of each episode: by frames, by instruction, by episode, and by episode within an instruction."""
    chance = chances(Balance(**balance), EPISODES, FRAMES, TASKS, LENGTHS)
    assert np.bincount(EPISODES, chance) == pytest.approx(expected)
    assert all(np.ptp(chance[np.flatnonzero(episode == EPISODES)]) < 1e-12 for episode in range(3))


def test_positions_within_an_episode_are_balanced() -> None:
    """The first half twice as often as the second, in each episode; parts that are 0 are never drawn."""
    chance = chances(Balance(positions=(2, 1), episodes=True), EPISODES, FRAMES, TASKS, LENGTHS)
    first = LENGTHS[EPISODES] > FRAMES * 2
    assert chance[first].sum() == pytest.approx(2 / 3)
    chance = chances(Balance(positions=(0, 1)), EPISODES, FRAMES, TASKS, LENGTHS)
    assert chance[first].sum() == 0
    with pytest.raises(XvlaError, match="no sample has a chance"):
        chances(Balance(positions=(0, 1)), np.zeros(1, int), np.zeros(1, int), np.zeros(1, int), np.array([4]))


def test_the_published_mixture_is_the_papers() -> None:
    """Its seven weights sum to 1; a recipe without one of its robots has to write its own."""
    names = ["robomind-ur", "AGIBOT", "Droid-Left", "Droid-Right", "robomind-franka", "robomind-agilex"]
    everyone = [*names, "robomind-franka-dual", "my_arm"]
    weights = mixture_weights("x-vla", everyone, "recipe.yaml")
    assert dict(zip(everyone, weights, strict=True))["AGIBOT"] == 0.4
    assert sum(weights) == pytest.approx(1.0)
    assert weights[-1] == 0
    with pytest.raises(XvlaError, match=r"does not have; found robomind-franka-dual.*Write the weights"):
        mixture_weights("x-vla", names, "recipe.yaml")
    with pytest.raises(XvlaError, match="unknown mixture; found x; allowed: x-vla"):
        mixture_weights("x", names, "recipe.yaml")


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ({"per_scene": 7}, "the episodes are not whole scenes; found 120 episodes, 7 a scene"),
        ({"per_scene": 6}, "the still pictures of one scene differ; found 6"),
    ],
)
def test_wrong_scenes_are_refused(room: Room, domain: dict[str, Any], message: str) -> None:
    """Pictures that are not one would be trained with another's answers."""
    about = Domain(name="stills", domain_id=1, plugin="plugins/stills", **domain)
    sentences = [f"touch the {colour} square" for colour in sorted(COLOURS)]
    with pytest.raises(XvlaError) as error:
        build_stock(room.stock.source, room.samples, about, things_named(sentences, {}), 0.2)
    assert message in str(error.value)


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
