"""Grounding on rendered scenes: the heads find what is named, and what is held out is never trained on."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapt_helpers import PIXELS, small_config
from conftest import ROBOT
from grounding_helpers import COLOURS, write_stills
from loop_helpers import make_stage

from xvla_platform.adapt.grounding import (
    NOTHING,
    GroundedXVLA,
    attach_heads,
    count_things,
    errors,
    locate,
    things_named,
)
from xvla_platform.adapt.held_out import measure
from xvla_platform.adapt.mixture import Mixture, Stock, build_stock, marks, split_scenes
from xvla_platform.adapt.sources import Draw, assemble, build_source, decode_frames, frames_shape
from xvla_platform.adapt.tokenizer import train_tokenizer
from xvla_platform.adapt.trainables import select_trainables
from xvla_platform.data.binding import Binding
from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.samples import Samples
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import Processor
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.recipe import Domain

STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Room:
    """Still scenes ready for training, and the processor of their model."""

    stock: Stock
    samples: Samples
    processor: Processor
    config: XVLAConfig


def write_preprocessor(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": PIXELS, "width": PIXELS}}))


def open_room(root: Path, share: float = 0.2, objects: dict[str, list[str]] | None = None, **domain: Any) -> Room:
    """The still scenes in `root`, of which the last share is held out; `objects` as in a recipe."""
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
    stock = build_stock(source, samples, about, things_named(instructions, objects or {}), share)
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


def test_the_loss_falls_and_what_is_named_is_found(tmp_path: Path) -> None:
    """A hundred steps of the encoder alone: held-out squares are found by name, both of them, without the policy."""
    room = open_room(write_stills(tmp_path / "stills", places=True))
    model = grounded(room, acts=False)
    policy = {name: tensor.clone() for name, tensor in model.transformer.state_dict().items()}
    before = measure(model, [room.stock], room.processor, acts=False)
    assert set(before) == {"held_out/stills/seen", "held_out/stills/seen_second"}
    assert max(before.values()) < 0.7
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
    assert min(found.values()) > 0.85, found
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
    assert list(things_named(words, objects).values()) == [(0, NOTHING), (1, 2), (1, 0)]
    assert count_things(words, objects) == 3
    assert things_named(words, {})[words[1]] == (1, 4)
    assert count_things(words, {}) == 6
    with pytest.raises(XvlaError, match="names none of the objects"):
        things_named(["open the drawer"], objects)


def test_a_second_place_without_a_name_is_refused(tmp_path: Path) -> None:
    """Else the place of what is not listed would be taught as that of the first of the objects."""
    objects = {f"{colour} square": [f"{colour} square"] for colour in COLOURS}
    with pytest.raises(XvlaError, match="names one object alone"):
        open_room(write_stills(tmp_path / "stills", 2, places=True), objects=objects)
    assert open_room(write_stills(tmp_path / "others", 2), objects=objects).stock.classes.min() == 0


def test_scenes_are_split_whole() -> None:
    assert [split_scenes(30, 3, share) for share in (0.0, 0.1, 0.34, 0.99)] == [30, 27, 21, 3]
    assert split_scenes(3, 1, 0.1) == 3


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


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_heads_are_trained_where_there_is_grounding_alone(weight: float) -> None:
    """In another phase they would have no gradient, for which several processes would wait."""
    model = GroundedXVLA(XVLAConfig.from_dict(small_config()))
    attach_heads(model, 3, seed=0)
    model.weight = weight
    trained = {t.name for t in select_trainables(model, make_stage("full"))}
    assert any(name.startswith("vlm.grounding.") for name in trained) == bool(weight)
    assert model.get_submodule("vlm.grounding").raw.weight.requires_grad == bool(weight)
