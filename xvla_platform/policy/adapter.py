"""An adaptation's weights on disk: a standard PEFT adapter.

`adapter_model.safetensors` holds one row of each per-domain table (peft's trainable tokens) and, after a LoRA
stage, the low-rank matrices; `adapter_config.json` says where they go. Plain `peft` opens the folder over the
same base. Here the rows are written straight into the tables, at any free domain id.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.slot import table, write_rows
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.specs.plan import LoraSpec
from xvla_platform.specs.records import BaseRef

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_DELTA = "trainable_tokens_delta"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What an adaptation adds to its base.

    Attributes:
        domain_id: Row the adapter was trained at; plain peft puts it back there.
        rows: One row [D] of each per-domain table, by module name.
        lora: Low-rank matrices by module-relative name (`….qkv.lora_A.weight`); empty without LoRA.
        lora_spec: Rank, scale and targets of `lora`.
    """

    domain_id: int
    rows: Mapping[str, Tensor]
    lora: Mapping[str, Tensor]
    lora_spec: LoraSpec | None


def inject_lora(model: XVLA, spec: LoraSpec, seed: int) -> None:
    """Add trainable low-rank adapters to the modules that `spec.targets` matches (a no-op until trained)."""
    import peft

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(_lora_config(spec), model)
        except ValueError as error:
            raise XvlaError(f"LoRA cannot be added: {error}", field="lora.targets", found=spec.targets) from None


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The low-rank matrices of an injected model, under peft's names on disk."""
    return {
        _disk_name(name): parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if ".lora_" in name
    }


def _disk_name(name: str) -> str:
    """peft writes no adapter name, and DoRA's magnitudes without `.weight`."""
    name = name.replace(".default.", ".")
    return name.removesuffix(".weight") if ".lora_magnitude_vector." in name else name


def _lora_config(spec: LoraSpec, **more: Any) -> Any:
    import peft

    return peft.LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=spec.targets,
        use_rslora=spec.rslora,
        use_dora=spec.dora,
        bias="none",
        **more,
    )


def write_adapter(folder: Path, adapter: Adapter, base: BaseRef) -> None:
    """Write the two files of a PEFT adapter."""
    import peft

    config: Any
    if adapter.lora_spec is None:
        config = peft.TrainableTokensConfig(target_modules=list(adapter.rows), token_indices=[adapter.domain_id])
        infix = ""
    else:
        config = _lora_config(
            adapter.lora_spec, trainable_token_indices={name: [adapter.domain_id] for name in adapter.rows}
        )
        infix = "token_adapter."
    config.base_model_name_or_path = base.id
    config.revision = base.revision
    config.inference_mode = True
    config.auto_mapping = {"base_model_class": "XVLA", "parent_library": "xvla_platform.modelling.xvla"}
    config.save_pretrained(str(folder))
    tensors = {
        f"{_PREFIX}{name}.{infix}{_DELTA}": row.detach().cpu().unsqueeze(0).contiguous()
        for name, row in adapter.rows.items()
    }
    tensors |= {f"{_PREFIX}{name}": tensor for name, tensor in adapter.lora.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    shutil.copymode(folder / CONFIG, folder / WEIGHTS)  # safetensors writes for its owner's eyes only


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter folder, strictly: every row that it declares must be there and nothing else may be."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise XvlaError(
            "a file of the adapter is missing", file=folder, found=Path(error.filename or "").name
        ) from None
    except (OSError, ValueError, SafetensorError) as error:
        raise XvlaError(f"the adapter is damaged: {error}", file=folder) from None
    rows: dict[str, Tensor] = {}
    lora: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(_PREFIX)
        if name.endswith(_DELTA):
            rows[name.removesuffix(f".{_DELTA}").removesuffix(".token_adapter")] = tensor
        else:
            lora[name] = tensor
    spec, domain_id, declared = _read_config(config, folder / CONFIG)
    missing = [name for name in declared if name not in rows]
    extra = sorted(set(rows) - set(declared)) or (sorted(lora) if spec is None else [])
    several = [name for name, row in rows.items() if row.ndim != 2 or row.shape[0] != 1]
    if missing or extra or several:
        raise XvlaError(
            "is not one slot of an X-VLA base",
            file=folder / WEIGHTS,
            found=f"missing {missing or 'nothing'}, unexpected {extra[:2] or several[:2] or 'nothing'}",
        )
    return Adapter(domain_id=domain_id, rows={name: row[0] for name, row in rows.items()}, lora=lora, lora_spec=spec)


def _read_config(config: Any, file: Path) -> tuple[LoraSpec | None, int, list[str]]:
    """LoRA settings, if any, the row that `adapter_config.json` speaks of, and its tables."""
    try:
        if config.get("peft_type") != "LORA":
            (domain,) = config["token_indices"]
            return None, int(domain), [str(name) for name in config["target_modules"]]
        spec = LoraSpec(
            rank=config["r"],
            alpha=config["lora_alpha"],
            rslora=bool(config.get("use_rslora")),
            dora=bool(config.get("use_dora")),
            dropout=config.get("lora_dropout") or 0.0,
            targets=config["target_modules"],
        )
        tables = dict(config["trainable_token_indices"])
        ((domain,),) = {tuple(indices) for indices in tables.values()}
        return spec, int(domain), list(tables)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise XvlaError("is not the configuration of one slot of an X-VLA base", file=file) from None


@torch.no_grad()
def attach(model: XVLA, adapter: Adapter, domain_id: int, file: Path) -> None:
    """Put the adapter into a model, at row `domain_id`; shapes that do not fit are an error."""
    if set(adapter.rows) != set(model.config.slot_tables):
        raise XvlaError(
            "the adaptation's rows are not those of this base's strategy",
            file=file,
            found=", ".join(sorted(adapter.rows)),
            allowed=sorted(model.config.slot_tables),
            hint=f"the base's strategy is {model.config.strategy}",
        )
    for name, row in adapter.rows.items():
        expected = table(model, name).shape[1]
        if row.numel() != expected:
            raise XvlaError(
                "the adaptation was made for a base with other tables",
                file=file,
                field=name,
                found=f"{row.numel()} numbers",
                allowed=f"{expected}",
            )
    write_rows(model, domain_id, adapter.rows)
    if adapter.lora_spec is None:
        return
    inject_lora(model, adapter.lora_spec, seed=0)
    parameters = {_disk_name(name): p for name, p in model.named_parameters() if ".lora_" in name}
    odd = sorted(set(parameters) ^ set(adapter.lora)) or sorted(
        name for name, parameter in parameters.items() if parameter.shape != adapter.lora[name].shape
    )
    if odd:
        raise XvlaError("its LoRA does not fit this base", file=file, found=", ".join(odd[:2]))
    for name, parameter in parameters.items():
        parameter.copy_(adapter.lora[name])
        parameter.requires_grad_(False)
