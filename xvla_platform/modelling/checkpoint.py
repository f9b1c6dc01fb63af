"""Loading and saving whole models, strictly, one tensor at a time.

In: a folder with `config.json` and safetensors (one file, or shards with an index). Out: an `XVLA`, or the same
layout written back. A missing or unexpected key, or another shape, is an error that names it. The model is built
without memory and each tensor is put in as it is read, so no second copy ever exists.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.domain import PROMPT_STD
from xvla_platform.modelling.layouts import (
    EMBED,
    LOGITS_BIAS,
    SHARED,
    Layout,
    convert_tensor,
    detect_layout,
    from_native,
    to_native,
)
from xvla_platform.modelling.strategy import is_table, slot_tables
from xvla_platform.modelling.xvla import XVLA

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TABLES = tuple(f"{name}.weight" for name in slot_tables("soft_prompt"))  # of the published model


def random_model(config: XVLAConfig, seed: int) -> XVLA:
    """A freshly initialised model, reproducible from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return XVLA(config)


def load_model(
    folder: Path, *, device: str | torch.device = "cpu", with_vlm: bool = True, num_domains: int | None = None
) -> XVLA:
    """Load a checkpoint folder in any public layout.

    Args:
        with_vlm: False leaves Florence-2 out (cached features need the policy transformer only).
        num_domains: Grow every per-domain table to that many rows; new rows are those of a fresh model.
    """
    config = XVLAConfig.from_folder(folder)
    with torch.device("meta"):
        model = XVLA(config, with_vlm=with_vlm)
    _fill(model, folder, torch.device(device))
    if num_domains is not None and num_domains != config.num_domains:
        grow_tables(model, num_domains)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval()


def load_into(model: XVLA, folder: Path) -> None:
    """Replace the weights of an existing model by a folder's (full-tuned adaptations).

    A folder without a single tensor of Florence-2, whose stages left it frozen, leaves the model's own in place.
    """
    device = next(model.parameters()).device
    _fill(model, folder, device, vlm_optional=True)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a checkpoint folder: the single file, or the shards its index names."""
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        raise XvlaError(
            "no weights",
            file=folder,
            allowed=f"{WEIGHTS}, or shards with {INDEX}",
            hint="only safetensors are read",
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise XvlaError(f"is not a shard index: {error}", file=index) from None
    for name in names:
        if not (folder / name).is_file() or Path(name).name != name:
            raise XvlaError("a shard is missing", file=index, field="weight_map", found=name)
    return [folder / name for name in names]


def _fill(model: XVLA, folder: Path, device: torch.device, *, vlm_optional: bool = False) -> None:
    files = weight_files(folder)
    try:
        layout = detect_layout(key for file in files for key in _keys(file))
        if layout is None:
            raise XvlaError(
                "is not an X-VLA checkpoint: its tensor names are in none of the public layouts",
                file=files[0],
            )
        expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict(keep_vars=True).items()}
        skip_vlm = model.vlm is None
        wanted = model.space
        seen: set[str] = set()
        unexpected: list[str] = []
        for file in files:
            # Launched processes call the CPU `cpu:0`, a name that safetensors does not know.
            place = "cpu" if device.type == "cpu" else str(device)
            with safe_open(file, framework="pt", device=place) as handle:
                for key in handle.keys():  # noqa: SIM118  (not a mapping)
                    name = to_native(key, layout)
                    if name is None or (skip_vlm and name.startswith("vlm.")):
                        continue
                    if name not in expected:
                        unexpected.append(key)
                        continue
                    tensor = convert_tensor(name, handle.get_tensor(key), layout)
                    _check_shape(file, key, name, tuple(tensor.shape), expected[name], wanted.name)
                    _assign(model, name, tensor.float())
                    seen.add(name)
    except SafetensorError as error:
        raise XvlaError(f"is damaged: {error}", file=files[0], hint="fetch the checkpoint again") from None
    _tie_embeddings(model, seen)
    if vlm_optional and not any(name.startswith("vlm.") for name in seen):
        seen.update(name for name in expected if name.startswith("vlm."))
    missing = sorted(expected.keys() - seen)
    for fault, names in (("unexpected", sorted(unexpected)), ("missing", missing)):
        if names:
            raise XvlaError(
                f"{len(names)} {fault} tensor(s) for this configuration",
                file=files[0],
                found=", ".join(names[:3]) + (" …" if len(names) > 3 else ""),
                hint="the weights and config.json are not of one model",
            )


def _keys(file: Path) -> Iterable[str]:
    with safe_open(file, framework="pt") as handle:
        return list(handle.keys())


def _check_shape(
    file: Path, key: str, name: str, found: tuple[int, ...], expected: tuple[int, ...], space: str
) -> None:
    if found == expected:
        return
    what = "its per-domain tables have another size" if is_table(name) else "wrong shape"
    raise XvlaError(
        f"{what} than config.json says (action space {space})",
        file=file,
        field=key,
        found=list(found),
        allowed=str(list(expected)),
        hint="the weights and config.json are not of one model",
    )


def _assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor in place of a parameter or buffer, without copying it."""
    *path, last = name.split(".")
    owner = model.get_submodule(".".join(path))
    if last in owner._parameters:
        owner._parameters[last] = nn.Parameter(tensor, requires_grad=False)
    else:
        owner._buffers[last] = tensor


def _tie_embeddings(model: XVLA, seen: set[str]) -> None:
    """Give both aliases of the text embedding the one tensor that the file holds."""
    present = [name for name in (SHARED, EMBED) if name in seen]
    if model.vlm is None or not present:
        return
    language = model.vlm.language_model
    source = language.shared if present[0] == SHARED else language.encoder.embed_tokens  # type: ignore[union-attr]
    language.shared.weight = source.weight  # type: ignore[union-attr]
    language.encoder.embed_tokens.weight = source.weight  # type: ignore[union-attr]
    seen.update((SHARED, EMBED))


def grow_tables(model: XVLA, num_domains: int) -> None:
    """Append rows to every per-domain table; existing rows keep their bits."""
    current = model.config.num_domains
    if num_domains < current:
        raise XvlaError("tables only grow", field="num_domains", found=num_domains, allowed=f"at least {current}")
    if num_domains == current:
        return
    for name, module in model.transformer.named_modules():
        if isinstance(module, nn.Embedding):
            old = module.weight
            extra = torch.zeros(num_domains - current, old.shape[1], dtype=old.dtype, device=old.device)
            if name.endswith(("soft_prompt_hub", "queries")):
                extra.normal_(std=PROMPT_STD, generator=torch.Generator(old.device).manual_seed(num_domains))
            module.weight = nn.Parameter(torch.cat([old.data, extra]), requires_grad=old.requires_grad)
            module.num_embeddings = num_domains
    model.config = model.config.with_domains(num_domains)


def save_model(model: XVLA, folder: Path, *, layout: Layout = "official", dtype: torch.dtype | None = None) -> None:
    """Write `config.json` and `model.safetensors` in a public layout (one alias of the tied embedding)."""
    folder.mkdir(parents=True, exist_ok=True)
    alias = EMBED if layout == "official" else SHARED
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if name in (SHARED, EMBED) and name != alias:
            continue
        tensor = value.detach().cpu()
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        tensors[from_native(name, layout)] = convert_tensor(name, tensor, layout).contiguous()
    if layout != "lerobot" and model.vlm is not None:
        tensors[from_native(LOGITS_BIAS, layout)] = torch.zeros(1, int(model.config.florence["vocab_size"]))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.config.raw, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    shutil.copymode(folder / "config.json", folder / WEIGHTS)  # safetensors writes for its owner's eyes only
