"""Checkpoints: three layouts there and back bit for bit, strict about names and shapes, and never two copies."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapt_helpers import small_config, small_model
from conftest import REPOSITORY
from safetensors.torch import load_file, save_file
from torch import Tensor

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.checkpoint import TABLES, grow_tables, load_into, load_model, random_model, save_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.layouts import EMBED, LAYOUTS, SHARED, detect_layout
from xvla_platform.modelling.slot import SLOT_MODULES, table
from xvla_platform.modelling.xvla import XVLA

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def model() -> XVLA:
    return small_model(seed=1)


@pytest.fixture
def folder(model: XVLA, tmp_path: Path) -> Path:
    """A whole checkpoint in the official layout, free to be spoilt."""
    save_model(model, tmp_path / "model")
    return tmp_path / "model"


def equal(first: XVLA, second: XVLA) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back(model: XVLA, tmp_path: Path, layout: Any) -> None:
    """Bit-identical weights and configuration; the layout is recognised; the tied embedding is one tensor."""
    save_model(model, tmp_path, layout=layout)
    assert detect_layout(load_file(tmp_path / WEIGHTS)) == layout
    loaded = load_model(tmp_path)
    assert equal(model, loaded)
    assert loaded.config == model.config
    assert dict(loaded.named_parameters(remove_duplicate=False))[SHARED] is loaded.get_parameter(EMBED)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.training


def test_either_alias_will_do(model: XVLA, tmp_path: Path) -> None:
    """A file may keep any name of the tied embedding, or both."""
    save_model(model, tmp_path, layout="lerobot")
    tensors = load_file(tmp_path / WEIGHTS)
    shared, embed = f"model.{SHARED}", f"model.{EMBED}"
    save_file({**tensors, embed: tensors[shared].clone()}, tmp_path / WEIGHTS)
    assert equal(model, load_model(tmp_path))
    save_file({(embed if k == shared else k): v for k, v in tensors.items()}, tmp_path / WEIGHTS)
    assert equal(model, load_model(tmp_path))


def test_without_the_encoder(model: XVLA, folder: Path) -> None:
    """Cached features need the policy transformer only."""
    light = load_model(folder, with_vlm=False)
    assert light.vlm is None
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in light.state_dict().items())


def test_a_trunk_alone_replaces_the_trunk(model: XVLA, folder: Path, tmp_path: Path) -> None:
    """What was tuned without the encoder is saved without it and loads over the base; alone it is none."""
    trunk = load_model(folder, with_vlm=False)
    with torch.no_grad():
        trunk.transformer.pos_emb.add_(1.0)
    save_model(trunk, tmp_path / "trunk")
    assert all(key.startswith("transformer.") for key in load_file(tmp_path / "trunk" / WEIGHTS))
    whole = load_model(folder)
    load_into(whole, tmp_path / "trunk")
    for name, tensor in whole.state_dict().items():
        source = trunk if name.startswith("transformer.") else model
        assert torch.equal(tensor, source.state_dict()[name]), name
    with pytest.raises(XvlaError, match=r"missing tensor.*vlm"):
        load_model(tmp_path / "trunk")


def shards(folder: Path) -> None:
    """Split the weights into three files with an index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    weight_map = {}
    for number in range(3):
        name = f"model-{number + 1:05d}-of-00003.safetensors"
        part = dict(list(tensors.items())[number::3])
        save_file(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards_equal_the_single_file(model: XVLA, folder: Path) -> None:
    """The layout is recognised from all shards together."""
    shards(folder)
    assert equal(model, load_model(folder))


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(folder: Path, size: int) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:size])


def drop_shard(folder: Path) -> None:
    shards(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()


def escape(folder: Path) -> None:
    shards(folder)
    index = folder / f"{WEIGHTS}.index.json"
    index.write_text(index.read_text().replace("model-00002-of-00003", "../model-00002-of-00003"))


HUB = "transformer.soft_prompt_hub.weight"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda f: edit(f, lambda t: t.pop("transformer.norm.bias")), "1 missing.*transformer.norm.bias"),
    "unexpected": (lambda f: edit(f, lambda t: t.update(extra=torch.zeros(1))), "1 unexpected.*found extra"),
    "prefixed": (lambda f: edit(f, lambda t: t.update({"transformer.x.y": torch.zeros(1)})), "transformer.x.y"),
    "wrong shape": (
        lambda f: edit(f, lambda t: t.update({"transformer.norm.weight": torch.zeros(7)})),
        r"transformer.norm.weight: wrong shape.*found \[7\]; allowed: \[32\]",
    ),
    "other tables": (
        lambda f: edit(f, lambda t: t.update({HUB: torch.zeros(9, 64)})),
        rf"{HUB}: its per-domain tables have another size.*found \[9, 64\]; allowed: \[6, 64\]",
    ),
    "no embedding": (
        lambda f: edit(f, lambda t: t.pop("vlm.language_model.model.encoder.embed_tokens.weight")),
        "2 missing.*embed_tokens",
    ),
    "truncated": (lambda f: cut(f, 300_000), "model.safetensors: is damaged"),
    "empty": (lambda f: cut(f, 0), "model.safetensors: is damaged"),
    "not safetensors": (lambda f: (f / WEIGHTS).write_bytes(b"PK\x03\x04" * 99), "model.safetensors: is damaged"),
    "another network": (
        lambda f: save_file({"encoder.weight": torch.zeros(2)}, f / WEIGHTS),
        "is not an X-VLA checkpoint",
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "no weights; allowed: model.safetensors, or shards"),
    "missing shard": (drop_shard, "weight_map: a shard is missing; found model-00002-of-00003.safetensors"),
    "shard elsewhere": (escape, "weight_map: a shard is missing; found ../model-00002"),
    "broken index": (
        lambda f: ((f / WEIGHTS).unlink(), (f / f"{WEIGHTS}.index.json").write_text("[]")),
        "is not a shard index",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json, so this is not a model folder"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "config.json: cannot be read"),
    "config of another model": (lambda f: edit_config(f, model_type="pi0"), "found pi0; allowed: xvla"),
    "config of another size": (lambda f: edit_config(f, depth=3), "missing.*transformer.blocks.2"),
    "config of another space": (
        lambda f: edit_config(f, action_mode="joint"),
        r"transformer.action_(de|en)coder.*allowed: \[6, ",
    ),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "config.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_one_line(folder: Path, fault: str) -> None:
    """Nothing is filled in silently: the tensor or the file is named."""
    spoil, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(XvlaError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_weights_are_replaced_in_place(model: XVLA, folder: Path) -> None:
    """A full-tuned adaptation takes the place of its base's weights."""
    other = small_model(seed=9)
    assert not equal(other, model)
    load_into(other, folder)
    assert equal(other, model)


def test_grown_tables_keep_their_bits(model: XVLA, folder: Path, tmp_path: Path) -> None:
    """Old rows keep every bit, new prompts are small and reproducible, and the result saves and loads as such."""
    grown, again = load_model(folder, num_domains=9), load_model(folder, num_domains=9)
    assert grown.config.num_domains == 9
    for name in SLOT_MODULES:
        assert table(grown, name).shape[0] == 9
        assert torch.equal(table(grown, name)[:6], table(model, name))
    assert equal(grown, again)
    prompts = table(grown, "transformer.soft_prompt_hub")[6:]
    assert 0.01 < float(prompts.std()) < 0.04
    save_model(grown, tmp_path / "grown")
    assert equal(grown, load_model(tmp_path / "grown"))
    with pytest.raises(XvlaError, match="tables only grow; found 4; allowed: at least 9"):
        grow_tables(grown, 4)


def test_saving_half_precision(model: XVLA, tmp_path: Path) -> None:
    """Weights written in bfloat16 load as float32 with those values."""
    save_model(model, tmp_path, dtype=torch.bfloat16)
    loaded = load_model(tmp_path)
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())
    assert torch.equal(loaded.get_parameter(TABLES[0]), model.get_parameter(TABLES[0]).bfloat16().float())


MEASURE = """
import resource, sys
from pathlib import Path
from xvla_platform.modelling.checkpoint import load_model
load_model(Path(sys.argv[1]))
def peak():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
before = peak()
model = load_model(Path(sys.argv[2]), num_domains=int(sys.argv[3]))
total = sum(float(p.sum()) for p in model.parameters())
print(peak() - before, total)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_loading_never_holds_two_copies(folder: Path, tmp_path: Path) -> None:
    """Peak memory of loading 200 MB, every number read and the tables grown, stays near the size of the file."""
    config = small_config(hidden_size=512, depth=16, mlp_ratio=4.0)
    save_model(random_model(XVLAConfig.from_dict(config), 0), tmp_path / "large")
    size = (tmp_path / "large" / WEIGHTS).stat().st_size
    assert size > 190e6
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), str(tmp_path / "large"), "8"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    growth = int(result.stdout.split()[0])
    assert 0.5 * size < growth < 1.35 * size
