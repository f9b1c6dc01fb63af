"""An adaptation is a standard PEFT adapter: plain `peft` opens it over the same base and answers the same chunks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapt_helpers import small_batch, small_model, write_small_base
from safetensors.torch import load_file, save_file
from torch import Tensor

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.checkpoint import load_model
from xvla_platform.modelling.slot import SLOT_MODULES, random_rows, read_rows, table
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.policy.adapter import Adapter, attach, inject_lora, lora_state, read_adapter, write_adapter
from xvla_platform.specs.plan import LoraSpec
from xvla_platform.specs.records import BaseRef

MINE = 4
BASE = BaseRef(id="user/base", revision="a" * 40, fingerprint="f" * 64)
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_base(tmp_path_factory.mktemp("base") / "base")


def make_adapter(base: Path, lora: bool) -> Adapter:
    """Random rows and, if wanted, low-rank matrices that do change the answer."""
    model, spec = load_model(base), LoraSpec(rank=4, alpha=8) if lora else None
    if spec is not None:
        inject_lora(model, spec, seed=1)
        torch.manual_seed(2)
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.05)
    return Adapter(domain_id=MINE, rows=random_rows(model, 5), lora=lora_state(model), lora_spec=spec)


@pytest.fixture(params=[False, True], ids=["prompt", "lora"])
def folder(request: pytest.FixtureRequest, base: Path, tmp_path: Path) -> Path:
    """The files of a prompt-only adapter, and of one with LoRA."""
    write_adapter(tmp_path, make_adapter(base, request.param), BASE)
    return tmp_path


def chunk(model: XVLA, domain: int) -> Tensor:
    batch = small_batch([domain], model)
    return model.generate(
        domain_id=batch["domain_id"],
        features=batch["features"],
        proprio=batch["proprio"],
        noise=batch["noise"],
    )


def attached(base: Path, folder: Path, domain: int = MINE, **options: Any) -> XVLA:
    model = load_model(base, **options)
    attach(model, read_adapter(folder), domain, folder)
    return model


def test_plain_peft_answers_the_same(base: Path, folder: Path) -> None:
    """`PeftModel.from_pretrained` over the base, without a line of ours, gives our chunks."""
    peft = pytest.importorskip("peft")
    ours = chunk(attached(base, folder), MINE)
    unadapted = chunk(load_model(base), MINE)
    opened = peft.PeftModel.from_pretrained(load_model(base), str(folder))
    theirs = chunk(opened.get_base_model().eval(), MINE)
    assert float((ours - theirs).abs().max()) <= 1e-5
    assert float((ours - unadapted).abs().max()) > 1e-3


def test_the_files_say_where_they_belong(folder: Path) -> None:
    """Base and revision are those it was made for; the folder is ready for inference."""
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "user/base"
    assert config["revision"] == "a" * 40
    assert config["inference_mode"] is True
    rows = {key: t for key, t in load_file(folder / WEIGHTS).items() if key.endswith("trainable_tokens_delta")}
    assert len(rows) == len(SLOT_MODULES)
    assert all(tensor.shape[0] == 1 for tensor in rows.values())


def test_there_and_back(base: Path, folder: Path) -> None:
    """Rows, matrices and LoRA settings are read back bit for bit; attached, they are frozen."""
    adapter = read_adapter(folder)
    wanted = make_adapter(base, adapter.lora_spec is not None)
    assert adapter.lora_spec == wanted.lora_spec
    assert adapter.domain_id == MINE
    assert adapter.rows.keys() == wanted.rows.keys()
    assert adapter.lora.keys() == wanted.lora.keys()
    assert all(torch.equal(adapter.rows[name], row) for name, row in wanted.rows.items())
    assert all(torch.equal(adapter.lora[name], matrix) for name, matrix in wanted.lora.items())
    model = attached(base, folder)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_any_free_row_will_do(base: Path, folder: Path) -> None:
    """A slot is an address: at another row, even a new one, the chunk is the same, and no other robot's row moves."""
    home, away, grown = attached(base, folder), attached(base, folder, 5), attached(base, folder, 7, num_domains=8)
    assert torch.equal(chunk(home, MINE), chunk(away, 5))
    assert torch.equal(chunk(home, MINE), chunk(grown, 7))
    before = load_model(base)
    for domain in (0, 1, 2, 3):
        rows = read_rows(before, domain)
        assert all(torch.equal(row, read_rows(away, domain)[name]) for name, row in rows.items())


def test_another_base_is_refused(folder: Path) -> None:
    """Tables of another width, and a trunk of another width or depth, are named."""
    lora = read_adapter(folder).lora_spec is not None
    with pytest.raises(XvlaError, match=r"made for a base with other tables; found \d+ numbers; allowed: \d+"):
        attach(small_model(hidden_size=48, num_heads=2), read_adapter(folder), MINE, folder)
    if lora:
        with pytest.raises(XvlaError, match="its LoRA does not fit this base"):
            attach(small_model(depth=3), read_adapter(folder), MINE, folder)
        with pytest.raises(XvlaError, match="its LoRA does not fit this base"):
            attach(small_model(mlp_ratio=4.0), read_adapter(folder), MINE, folder)


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def a_row(tensors: dict[str, Tensor]) -> str:
    return next(key for key in sorted(tensors) if "soft_prompt_hub" in key)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing row": (lambda f: edit(f, lambda t: t.pop(a_row(t))), "missing .*soft_prompt_hub"),
    "extra row": (
        lambda f: edit(f, lambda t: t.update({a_row(t).replace("soft_prompt_hub", "other"): torch.zeros(1, 4)})),
        "unexpected .*transformer.other",
    ),
    "two rows": (
        lambda f: edit(f, lambda t: t.update({a_row(t): torch.cat([t[a_row(t)]] * 2)})),
        "soft_prompt_hub",
    ),
    "truncated": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:900]), "the adapter is damaged"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "a file of the adapter is missing"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "a file of the adapter is missing"),
    "broken config": (lambda f: (f / "adapter_config.json").write_text("{"), "the adapter is damaged"),
    "config is a list": (
        lambda f: (f / "adapter_config.json").write_text("[]"),
        "is not the configuration of one slot",
    ),
    "config without fields": (
        lambda f: (f / "adapter_config.json").write_text('{"peft_type": "LORA"}'),
        "is not the configuration of one slot",
    ),
    "extra tensor": (
        lambda f: edit(f, lambda t: t.update({"base_model.model.transformer.pos_emb": torch.zeros(2)})),
        "pos_emb|its LoRA does not fit",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_one_slot_is_refused(base: Path, folder: Path, fault: str) -> None:
    """Strictly five rows and what LoRA needs; anything else is one line."""
    spoil, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(XvlaError, match=message):
        attached(base, folder)


def test_lora_that_meets_nothing_is_an_error(base: Path) -> None:
    """A pattern that matches no module would train nothing."""
    with pytest.raises(XvlaError, match=r"lora\.targets: LoRA cannot be added"):
        inject_lora(load_model(base), LoraSpec(targets="nowhere"), seed=0)


def test_fresh_lora_changes_nothing_and_is_reproducible(base: Path) -> None:
    """Before training the low-rank matrices add nothing; their start depends on the seed alone."""
    plain, first, second = (load_model(base) for _ in range(3))
    torch.manual_seed(11)
    inject_lora(first, LoraSpec(), seed=3)
    torch.manual_seed(12)
    inject_lora(second, LoraSpec(), seed=3)
    assert torch.equal(chunk(plain, 0), chunk(first, 0))
    assert all(torch.equal(a, lora_state(second)[name]) for name, a in lora_state(first).items())
    assert table(first, SLOT_MODULES[0]).shape == table(plain, SLOT_MODULES[0]).shape
