"""Stored variants of jittered frames: those that the loop would have encoded, shared, drawn alike everywhere.

That a killed run goes on with the same ones is among the cases of test_kills.py.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from adapt_helpers import command, write_place

from xvla_platform.adapt.feature_cache import FeatureCache, open_cache
from xvla_platform.adapt.feature_plan import cached_stages, jittered_variants, plan_features
from xvla_platform.adapt.feature_store import BLOCK
from xvla_platform.adapt.features import encode_batch
from xvla_platform.adapt.prepare import open_base, open_demonstrations, statistics_of
from xvla_platform.adapt.robot_data import Split, bare_split, split_samples
from xvla_platform.adapt.run import start_run
from xvla_platform.adapt.setting import Robot, Setting
from xvla_platform.adapt.sources import Draw, Jitter, assemble, draw, frames_of
from xvla_platform.data.binding import Binding
from xvla_platform.modelling.checkpoint import load_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.flops import Flops
from xvla_platform.modelling.processor import Processor
from xvla_platform.platform.embodiments import base_space
from xvla_platform.platform.records import load_embodiment
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.plan import AdaptationPlan, Stage

STRENGTH = (0.4, 0.3, 0.2)
FLOPS = Flops(encoder=10**12, policy=10**11, feature_numbers=1000)


def stage(name: str = "prompt", **changes: Any) -> Stage:
    values = {
        "name": name,
        "steps": 6,
        "batch_size": 4,
        "warmup_steps": 1,
        "eval_every": 2,
        "lr": {"soft_prompts": 1e-3},
    }
    return Stage.model_validate({**values, "color_jitter": STRENGTH, "jitter_variants": 3, **changes})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registered robot whose training frames are more than one block."""
    root = write_place(tmp_path_factory.mktemp("variants") / "place", (24, 15, 24, 24))
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    return root


class Opened:
    """The robot's splits and its cache, as a run of these stages finds them."""

    def __init__(self, root: Path, *stages: Stage, seed: int = 0) -> None:
        workspace = Workspace(root)
        record = load_embodiment(workspace, "my_arm")
        statistics = statistics_of(workspace, "my_arm")
        base = open_base(record, workspace)
        plan = AdaptationPlan(name="x", seed=seed, stages=stages)
        self.config = XVLAConfig.from_folder(base.folder)
        self.processor = Processor.from_folder(base.folder, self.config)
        self.model = load_model(base.folder, num_domains=record.slot.num_domains)
        setting = Setting(
            workspace=workspace,
            base=base,
            robots=[Robot(record=record, reader=open_demonstrations(workspace, record), statistics=statistics)],
            run=start_run(root / "runs" / "my_arm", [record], plan, {"my_arm": statistics}),
            accelerator=Accelerator(cpu=True),
            observer=None,  # type: ignore[arg-type]
            features="cache",
        )
        folder = workspace.embodiments / "my_arm"
        binding = Binding(record.spec, base_space(base), record.rotation_layout, statistics, folder=folder)
        parts = split_samples(record, setting.robots[0].reader, binding, self.config.num_actions)
        self.splits: dict[str, Split] = {
            name: bare_split(name, episodes, samples, record=record, processor=self.processor, config=self.config)
            for name, (episodes, samples) in parts.items()
        }
        self.cache: FeatureCache = open_cache(setting, record, self.splits, self.processor, self.config, frozenset())


@pytest.fixture(scope="module")
def filled(place: Path) -> tuple[Opened, dict[str, Split]]:
    opened = Opened(place, stage())
    return opened, opened.cache.fill(opened.splits, opened.model)


def test_a_stored_variant_is_the_jittered_frame_encoded_on_the_fly(filled: tuple[Opened, dict[str, Split]]) -> None:
    """Bit for bit, in every block; the first variant is the frame as it is; no two variants look alike."""
    opened, splits = filled
    samples, source = splits["train"].samples, splits["train"].source
    assert len(source) > BLOCK
    variants = [source.features, *source.variants[STRENGTH]]
    assert len(variants) == 3
    for first in range(0, len(source), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(source)))
        frames = frames_of(samples, opened.processor, rows)
        tokens = source.tokens[source.instruction_of[rows]]
        names = np.stack([samples.episode_of[rows], samples.frame_of[rows]], axis=1)
        for number, stored in enumerate(variants):
            jitter = Jitter(strength=STRENGTH) if number else None
            factors = jitter.factors(names, frames.shape[1], number) if jitter else None
            now = encode_batch(opened.model, frames, tokens, opened.processor, jitter, factors)
            assert stored is not None
            assert all(torch.equal(part[rows], again) for part, again in zip(stored, now, strict=True))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(variants[one][0], variants[other][0])  # type: ignore[index]
    for name in ("validation", "test"):
        assert not splits[name].source.variants


def test_the_jitter_of_a_frame_follows_from_its_name_alone() -> None:
    """Not from its place in a batch; within the strength; each view, frame and variant has its own."""
    frames = np.array([[3, 7], [3, 8], [4, 7]])
    jitter = Jitter(strength=STRENGTH)
    found = jitter.factors(frames, 2, 1)
    assert torch.equal(jitter.factors(frames[[2, 0]], 2, 1), found[[2, 0]])
    assert not torch.equal(jitter.factors(frames, 2, 2), found)
    assert len(torch.unique(found.reshape(6, 3), dim=0)) == 6
    many = jitter.factors(np.stack([np.zeros(500, int), np.arange(500)], axis=1), 2, 1)
    for i, strength in enumerate(STRENGTH):
        assert float((many[..., i] - 1).abs().max()) == pytest.approx(strength, rel=0.02)
        assert float(many[..., i].mean()) == pytest.approx(1.0, abs=0.05)


def test_another_run_finds_every_variant(place: Path, filled: tuple[Opened, dict[str, Split]]) -> None:
    """Whatever its seed; with fewer variants it uses the first of them, with another strength its own."""
    again = Opened(place, stage(), seed=9)
    assert again.cache.complete
    fewer, none = stage(jitter_variants=2), stage("plain", color_jitter=(0, 0, 0))
    assert Opened(place, fewer, none).cache.complete
    other = Opened(place, stage(color_jitter=(0.4, 0.3, 0.1), jitter_variants=2)).cache
    assert [stored.store.missing() == [] for stored in other.used()] == [True, True, True, False]


def test_each_variant_is_drawn_alike_on_any_number_of_processes(filled: tuple[Opened, dict[str, Split]]) -> None:
    """A step's samples come in the same variants, whoever takes them; all variants come equally often."""
    opened, splits = filled
    source = splits["train"].source
    jitter = Jitter(strength=STRENGTH)
    variants = [source.features, *source.variants[STRENGTH]]

    def batch(world: int) -> list[tuple[bytes, bytes]]:
        found = []
        for rank in range(world):
            drawn = draw([len(source)], [1.0], batch_size=12, key=(1, 0, 5), rank=rank, world=world)
            given = assemble([source], drawn, opened.processor, jitter)["features"]
            found += [(vlm.numpy().tobytes(), aux.numpy().tobytes()) for vlm, aux in zip(*given, strict=True)]
        return sorted(found)

    assert batch(1) == batch(2) == batch(3)
    drawn = draw([len(source)], [1.0], batch_size=3000, key=(1, 0, 6))
    given = assemble([source], drawn, opened.processor, jitter)["features"][0]
    counts = [int(torch.stack([(given[i] == v[0][r]).all() for i, r in enumerate(drawn.row)]).sum()) for v in variants]  # type: ignore[index]
    assert sum(counts) == 3000
    assert min(counts) > 900


def test_without_jitter_every_frame_is_as_it_is(filled: tuple[Opened, dict[str, Split]]) -> None:
    opened, splits = filled
    source = splits["train"].source
    drawn = Draw(source=np.zeros(5, dtype=np.int64), row=np.arange(5), look=np.full(5, 0.9))
    given = assemble([source], drawn, opened.processor)["features"]
    assert source.features is not None
    assert torch.equal(given[0], source.features[0][:5])


def test_without_stored_variants_the_frames_themselves_are_jittered(filled: tuple[Opened, dict[str, Split]]) -> None:
    """As after a stage that moved the encoder."""
    opened, splits = filled
    frames = frames_of(splits["train"].samples, opened.processor, np.arange(4))
    source = replace(splits["train"].source, frames=frames, variants={})
    drawn = Draw(source=np.zeros(4, dtype=np.int64), row=np.arange(4), look=np.full(4, 0.9))
    given = assemble([source], drawn, opened.processor, Jitter(strength=STRENGTH))
    assert "features" not in given
    assert given["pixel_values"].shape[0] == 4


@pytest.mark.parametrize(
    ("steps", "found", "cached", "says"),
    [
        (100, 0, True, "1600 draws from 400 frames in 4 variants: encoding once 1.6e+03 TFLOP, on the fly 1.6e+03"),
        (99, 0, False, "1584 draws from 400 frames in 4 variants: encoding once 1.6e+03 TFLOP, on the fly 1.58e+03"),
        (99, 100, True, "(100 of 1600 are in the store already)"),
    ],
)
def test_the_choice_counts_every_variant(tmp_path: Path, steps: int, found: int, cached: bool, says: str) -> None:
    """K variants cost K encodings a frame; both costs are said."""
    stages = [stage(steps=steps, batch_size=16, jitter_variants=4)]
    plan = plan_features(
        stages, frozenset(), FLOPS, frames=400, held_out=50, found=found, item_bytes=4, root=tmp_path / "stores"
    )
    assert plan.cached is cached
    assert says in plan.reason
    assert plan.size == (4 * 400 + 50) * 1000 * 4


def test_variants_are_stored_for_what_reads_the_cache_only() -> None:
    """Stages of one strength share the larger number; those after the encoder moved store none."""
    stages = [
        stage("a", jitter_variants=2),
        stage("b", jitter_variants=5),
        stage("c", color_jitter=(0, 0, 0)),
        stage("d", lr={"vlm": 1e-4}),
        stage("e", color_jitter=(0.1, 0, 0)),
    ]
    assert jittered_variants(cached_stages(stages, frozenset({"d"}))) == {STRENGTH: 4}
