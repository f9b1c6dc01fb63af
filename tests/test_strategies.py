"""The four strategies and both backbones: what a slot is in each, that it stays apart, and that each can be adapted."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from adapt_helpers import command, predicted, small_batch, small_config, small_model, write_place, write_small_base
from torch import nn

from xvla_platform.adapt.tokenizer import train_tokenizer
from xvla_platform.adapt.trainables import build_optimizer, group_of, select_trainables
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.checkpoint import grow_tables, load_model, random_model, save_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.named import resolve_config
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.slot import close_slot, open_slot, random_rows, read_rows, table, write_rows
from xvla_platform.modelling.strategy import STRATEGIES, describe, is_table
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.policy.adapter import Adapter, attach, read_adapter, write_adapter
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.plan import Stage
from xvla_platform.specs.records import BaseRef

MINE = 3
QUERIES = 4
BASE = BaseRef(id="base", fingerprint="f" * 64)
VARIANTS: list[dict[str, Any]] = [
    *({"strategy": strategy, "backbone": backbone} for strategy in STRATEGIES for backbone in ("encoder", "dit")),
    {"strategy": "soft_prompt", "use_hetero_proj": True},
]
variants = pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(str(x) for x in v.values()))


def model_of(variant: dict[str, Any], seed: int = 0) -> XVLA:
    """A random small model; a DiT's gates are opened, as training would."""
    model = small_model(seed, len_queries=QUERIES, **variant)
    for name, parameter in model.named_parameters():
        if "modulation" in name:
            torch.manual_seed(seed)
            nn.init.normal_(parameter, std=0.2)
    return model


def test_the_default_is_the_published_model() -> None:
    """A configuration that names neither is the soft-prompted encoder, to the bit."""
    plain, named = small_model(), small_model(strategy="soft_prompt", backbone="encoder")
    assert plain.state_dict().keys() == named.state_dict().keys()
    assert torch.equal(predicted(plain, [1]), predicted(named, [1]))


@variants
def test_a_slot_is_every_table_of_the_model(variant: dict[str, Any]) -> None:
    """The names that the configuration states are those of the model's tables, and its count is theirs."""
    model = model_of(variant)
    found = {f"transformer.{n}" for n, m in model.transformer.named_modules() if isinstance(m, nn.Embedding)}
    assert found == set(model.config.slot_tables)
    assert sum(table(model, name).shape[1] for name in found) == model.config.slot_numbers
    for name, _ in model.named_parameters():
        assert is_table(name) == (name.removesuffix(".weight") in found), name
        assert not is_table(name) or group_of(name) in ("soft_prompts", "action_heads"), name


@variants
def test_written_and_read_it_answers_the_same(variant: dict[str, Any], tmp_path: Path) -> None:
    """The official layout with two more keys in `config.json`; another strategy's weights do not fit it."""
    model = model_of(variant)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert (again.config.strategy, again.config.backbone) == (model.config.strategy, model.config.backbone)
    assert torch.equal(predicted(again, [2]), predicted(model, [2]))
    config = json.loads((tmp_path / "config.json").read_text())
    other = "hpt_projection" if variant["strategy"] != "hpt_projection" else "soft_prompt"
    (tmp_path / "config.json").write_text(json.dumps({**config, "strategy": other, "use_hetero_proj": False}))
    with pytest.raises(XvlaError, match=r"The weights and config\.json are not of one model"):
        load_model(tmp_path)


@variants
def test_another_row_changes_nothing_here(variant: dict[str, Any]) -> None:
    """Overwriting one robot's rows changes its answer and no bit of any other's, also in a batch of both."""
    model = model_of(variant)
    domains = [0, MINE, 1, MINE]
    alone, mixed, own = predicted(model, [1]), predicted(model, domains), predicted(model, [MINE])
    write_rows(model, MINE, {name: row + 0.1 for name, row in read_rows(model, MINE).items()})
    assert torch.equal(predicted(model, [1]), alone)
    after = predicted(model, domains)
    assert torch.equal(after[[0, 2]], mixed[[0, 2]])
    assert not torch.equal(predicted(model, [MINE]), own)
    assert not torch.equal(after[1], mixed[1])


@variants
def test_only_the_slots_rows_train(variant: dict[str, Any]) -> None:
    """A step on an open slot moves each of its rows and nothing else, and no other robot's answer."""
    model = model_of(variant)
    before, others = {n: t.clone() for n, t in model.state_dict().items()}, predicted(model, [0])
    slot = open_slot(model, MINE)
    stage = Stage(name="prompt", steps=1, warmup_steps=0, lr={"soft_prompts": 1e-2, "action_heads": 1e-2})
    trainables = select_trainables(model, stage)
    assert {t.name for t in trainables} == {f"{name}.row" for name in model.config.slot_tables}
    optimizer = build_optimizer(trainables, stage)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    torch.stack(list(model(**small_batch([MINE], model)).values())).sum().backward()
    optimizer.step()
    close_slot(model, slot)
    for name, tensor in model.state_dict().items():
        if name.removesuffix(".weight") not in model.config.slot_tables:
            assert torch.equal(tensor, before[name]), name
            continue
        rest = [row for row in range(len(tensor)) if row != MINE]
        assert torch.equal(tensor[rest], before[name][rest]), name
        assert not torch.equal(tensor[MINE], before[name][MINE]), name
    assert torch.equal(predicted(model, [0]), others)


@variants
def test_tables_grow_and_rows_are_drawn(variant: dict[str, Any]) -> None:
    """New rows are those of a fresh model in kind, and old ones keep their bits."""
    model = model_of(variant)
    kept = predicted(model, [1])
    grow_tables(model, 8)
    assert torch.equal(predicted(model, [1]), kept)
    rows = random_rows(model, 0)
    for name, row in rows.items():
        fresh = table(model, name)[:6]
        assert row.std() == pytest.approx(float(fresh.std()), rel=0.35, abs=1e-9), name
    write_rows(model, 7, rows)
    assert predicted(model, [7]).isfinite().all()


@variants
def test_an_adapter_carries_the_rows_of_its_strategy(variant: dict[str, Any], tmp_path: Path) -> None:
    """Written, read and attached it answers the same at another row; over another strategy it is refused."""
    model = model_of(variant)
    rows = random_rows(model, 5)
    write_adapter(tmp_path, Adapter(domain_id=MINE, rows=rows, lora={}, lora_spec=None), BASE)
    write_rows(model, MINE, rows)
    away = model_of(variant)
    attach(away, read_adapter(tmp_path), 5, tmp_path)
    assert torch.equal(predicted(away, [5]), predicted(model, [MINE]))
    other = "hpt_projection" if variant["strategy"] != "hpt_projection" else "action_heads"
    with pytest.raises(XvlaError, match=f"The base's strategy is {other}"):
        attach(small_model(strategy=other), read_adapter(tmp_path), 5, tmp_path)


def test_a_dit_begins_closed_and_reads_time_through_its_norms() -> None:
    """At the start no block and no time reaches the answer; with open gates both do, though no token holds the time."""
    closed, opened = small_model(backbone="dit"), model_of({"backbone": "dit"})
    early, late = torch.full((4,), 0.1), torch.full((4,), 0.9)
    assert torch.equal(predicted(closed, [1], t=early), predicted(closed, [1], t=late))
    assert not torch.equal(predicted(opened, [1], t=early), predicted(opened, [1], t=late))
    assert closed.config.encoder_inputs == small_model().config.encoder_inputs - closed.config.dim_time
    opened.transformer.checkpointing = True
    batch = small_batch([1], opened)
    opened.eval()
    plain = opened(**batch)
    opened.train()
    assert {name: float(value) for name, value in opened(**batch).items()} == pytest.approx(
        {name: float(value) for name, value in plain.items()}
    )


def test_a_resampler_reads_any_number_of_tokens_and_none() -> None:
    """The trunk's sequence is as long as the queries say; a base with one view has nothing in the second stem."""
    model = model_of({"strategy": "hpt_projection"})
    stem = model.transformer.vlm_proj
    for count in (0, 1, 37):
        assert stem(torch.randn(2, count, 32), torch.tensor([1])).shape == (2, QUERIES if count else 0, 32)
    features = torch.randn(3, 9, 32)
    mixed = stem(features, torch.tensor([0, 1, 2]))
    for domain in range(3):
        alone = stem(features[domain : domain + 1], torch.tensor([domain]))[0]
        assert torch.allclose(mixed[domain], alone, atol=1e-6)


def write_described_base(folder: Path, **changes: Any) -> Path:
    """A base that reads descriptions, with a tokenizer that has seen some."""
    write_small_base(folder)
    sentence = "Embodiment: An arm of the tests, Camera Setup: front / wrist, Freq: 10Hz"
    size = train_tokenizer([f"lift the cube {i} {sentence}" for i in range(9)], 400, folder)
    config = small_config(
        size, **{"strategy": "language_prompt", "language_max_length": 48, "max_len_seq": 96, **changes}
    )
    save_model(random_model(XVLAConfig.from_dict(config), 0), folder)
    return folder


def test_a_described_robot_is_part_of_the_instruction(tmp_path: Path, robot: dict[str, Any]) -> None:
    """Two robots get different tokens for the same words; without a robot nothing is read; other bases read no more."""
    spec = EmbodimentSpec.model_validate(robot)
    assert describe(spec) == "Embodiment: An arm of the tests, Camera Setup: front / wrist, Freq: 10Hz"
    other = EmbodimentSpec.model_validate({**robot, "control_hz": 25})
    folder = write_described_base(tmp_path / "base")
    processor = Processor.from_folder(folder, XVLAConfig.from_folder(folder))
    with pytest.raises(AssertionError, match="use for_robot first"):
        processor.tokens("lift the cube 0")
    assert processor.for_robot(spec).tokens("lift the cube 0") != processor.for_robot(other).tokens("lift the cube 0")
    plain = write_small_base(tmp_path / "plain")
    processor = Processor.from_folder(plain, XVLAConfig.from_folder(plain))
    assert processor.for_robot(spec) is processor
    short = write_described_base(tmp_path / "short", language_max_length=16)
    with pytest.raises(XvlaError, match=r"this base reads 16.*Shorten the robot's description"):
        Processor.from_folder(short, XVLAConfig.from_folder(short)).for_robot(spec).tokens("lift the cube 0")


def test_the_preliminary_model_has_the_papers_size() -> None:
    """12 adaptive layers of 768 over Florence-2-base; each strategy differs in its slot alone."""
    config = XVLAConfig.from_dict(resolve_config({"from": "xvla-preliminary", "strategy": "action_heads"}, "recipe"))
    with torch.device("meta"):
        model = XVLA(config)
    assert (len(model.transformer.blocks), config.hidden_size, config.backbone) == (12, 768, "dit")
    assert model.vlm is not None
    assert sum(p.numel() for p in model.vlm.parameters()) == 173_913_856
    prompted = XVLAConfig.from_dict(resolve_config({"from": "xvla-preliminary"}, "recipe"))
    assert prompted.slot_numbers - config.slot_numbers == 32 * 768
    with pytest.raises(XvlaError, match=r"model.from: unknown configuration; found xvla-2; allowed: xvla-0.9b"):
        resolve_config({"from": "xvla-2"}, "recipe")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "moe"}, "strategy: unknown value; found moe; allowed: soft_prompt, action_heads"),
        ({"backbone": "mamba"}, "backbone: unknown value; found mamba; allowed: encoder, dit"),
        ({"strategy": "hpt_projection", "use_hetero_proj": True}, "use_hetero_proj: a resampler takes the place"),
        ({"len_queries": 0}, "len_queries: expected a positive whole number; found 0"),
    ],
)
def test_an_impossible_configuration_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(XvlaError) as error:
        small_model(**change)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "variant",
    [
        {"strategy": "hpt_projection", "len_queries": QUERIES},
        pytest.param({"strategy": "action_heads"}, marks=pytest.mark.slow),
        pytest.param({"strategy": "language_prompt"}, marks=pytest.mark.slow),
        pytest.param({"strategy": "soft_prompt", "backbone": "dit"}, marks=pytest.mark.slow),
    ],
    ids=lambda v: "-".join(str(x) for x in v.values()),
)
def test_each_strategy_is_adapted_from_end_to_end(tmp_path: Path, variant: dict[str, Any]) -> None:
    """Registered, trained with a slot and LoRA, loaded back and measured as any user would."""
    root = write_place(tmp_path / "place", lengths=(12, 11, 12, 11))
    shutil.rmtree(root / "base")
    (write_described_base if variant["strategy"] == "language_prompt" else write_small_base)(root / "base", **variant)
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    short = ("--steps", "3", "--batch-size", "4")
    assert command("adapt", "--embodiment", "my_arm", "--then", "lora", *short, cwd=root) == 0
    assert command("eval", "my_arm", cwd=root) == 0
    adapter = read_adapter(root / "registry" / "my_arm" / "v1")
    assert set(adapter.rows) == set(load_model(root / "base").config.slot_tables)
