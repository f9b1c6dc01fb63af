"""Tables of fields: what a model's file may hold, with the meaning from its docstring or from here."""

import dataclasses
import importlib
import re
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from docs_from_code.common import DOCS, table

# What the docstrings leave to the obvious is said here once. A field without either is an error.
MEANINGS = {
    "EmbodimentSpec.name": "The robot's name: lower-case letters, digits and `_`. Also its folder in `embodiments/`.",
    "EmbodimentSpec.description": "One sentence for people; it goes into the model card.",
    "EmbodimentSpec.control_hz": "Rate of the recording and of control, in Hz. Must be the dataset's own rate.",
    "EmbodimentSpec.horizon_s": "Seconds that one action chunk covers, whatever the rate.",
    "EmbodimentSpec.cameras": "The camera streams; exactly one has `role: main`.",
    "EmbodimentSpec.proprio": "The state column, as ordered fields.",
    "EmbodimentSpec.action": "The action column, as ordered fields.",
    "EmbodimentSpec.dataset": "The demonstrations.",
    "EmbodimentSpec.prompt": "How the prompt slot starts.",
    "CameraSpec.name": "Name under which an observation carries the image.",
    "DatasetSpec.path": "Folder of the dataset, relative to the plugin folder. Exactly one of `path` and `repo`.",
    "DatasetSpec.repo": "Dataset id on the Hub.",
    "DatasetSpec.revision": "Commit, tag or branch of `repo`.",
    "PromptSpec.init": "`nearest`: a copy of the existing slot with the lowest measured loss on this robot's training "
    "episodes; `mean` of the slots used in pretraining; `mixture` of them, with weights learned on those episodes; "
    "`random` as in a fresh base; `copy` of `copy_from`.",
    "PromptSpec.copy_from": "Domain id to copy; goes with `init: copy`, and only with it.",
    "VectorSpec.key": "Dataset key of the column, for every field that names none of its own.",
    "VectorSpec.fields": "Consecutive slices; their sizes add up to the column's width.",
    "ActionSpec.key": "Dataset key of the column, for every field that names none of its own.",
    "ActionSpec.space": "Action space the base must have; without it, the base's own is used.",
    "ActionSpec.fields": "Consecutive slices; their sizes add up to the column's width.",
    "ActionFieldSpec.reference": "Written for every field but an ignored one. `absolute`: the target itself. "
    "`relative`: as seen from the state of the same frame; `relative_to_first`: as seen from the state at the "
    "episode's first frame.",
    "AdaptationPlan.name": "Name of the plan, for people.",
    "AdaptationPlan.seed": "Everything random in the run is derived from it.",
    "AdaptationPlan.stages": "The stages, in order.",
    "Stage.name": "Name in metrics and files.",
    "Stage.lora": "Low-rank adapters to add; goes with a rate for group `lora`.",
    "LoraSpec.rank": "Rank of the matrices.",
    "LoraSpec.alpha": "Scale: the update is multiplied by alpha / rank.",
    "LoraSpec.dropout": "Dropout on the adapters' inputs.",
    "PoseSpec.position_m": "Metres.",
    "PoseSpec.quaternion_xyzw": "Unit quaternion, scalar last.",
    "EmbodimentSpec.frame_changes": "Per arm, from the recorded frame and tool to the model's.",
    "EmbodimentSpec.kinematics": "Per arm, from recorded joints to the end effector's pose, by its URDF or MJCF.",
    "LoraSpec.rslora": "Scale by alpha / sqrt(rank) instead (rank-stabilised LoRA).",
    "LoraSpec.dora": "Train magnitude and direction of the weights apart (DoRA).",
    "LoraSpec.targets": "Regular expression matched against full module names of the official layout.",
    "BaseRef.id": "Shipped name, Hub id, or folder (`./path` inside the workspace).",
    "BaseRef.revision": "Commit on the Hub.",
    "BaseRef.fingerprint": "sha256 over the names and hashes of the weight files.",
    "PromptSlot.domain_id": "Row of the five per-domain tables.",
    "DataRef.format": "Dataset reader.",
    "DataRef.path": "Folder, relative to the plugin folder.",
    "DataRef.repo": "Dataset id on the Hub.",
    "DataRef.revision": "Revision of `repo`.",
    "DataRef.fingerprint": "sha256 of the dataset's content.",
    "DataRef.episodes": "Number of episodes.",
    "DataRef.frames": "Number of frames.",
    "DataRef.fps": "Recorded rate in Hz.",
    "EmbodimentRecord.spec": "The declaration as it was checked.",
    "EmbodimentRecord.base": "The exact base model.",
    "EmbodimentRecord.slot": "The prompt slot.",
    "EmbodimentRecord.data": "The dataset it was checked against.",
    "Manifest.embodiment": "The robot.",
    "Manifest.version": "Number it was made with; a pulled folder may lie under another one.",
    "Manifest.created": "UTC, to the second.",
    "Manifest.base": "The exact base model.",
    "Manifest.slot": "The prompt slot.",
    "Manifest.data": "The dataset.",
    "Manifest.seed": "Seed of the run.",
    "Manifest.git": "Commit of the checkout the command ran in, with `+` for uncommitted changes.",
    "PretrainRecipe.name": "Name of the base; the default output folder is `bases/<name>`.",
    "PretrainRecipe.description": "One sentence for people.",
    "PretrainRecipe.seed": "Everything random is derived from it.",
    "PretrainRecipe.domains": "The rows and who trains them.",
    "PretrainRecipe.phases": "The phases, in order.",
    "Domain.domain_id": "The row.",
    "Phase.stage": "A stage, as in an adaptation plan; without an open slot its groups are the whole tables.",
    "Phase.mixture": "Sampling weight by domain name; absent means 0.",
    "Storage.summary": "One line for listings.",
    "Factory.summary": "One line for listings.",
    "PushRequest.name": "The robot.",
    "PushRequest.version": "Number of the version folder.",
    "PushRequest.folder": "The sealed folder to share.",
    "PushRequest.location": "What the user wrote after `--to`, without the scheme.",
    "PushRequest.public": "Whether `--public` was given.",
    "PushReceipt.location": "Where it lies now, as `xvla pull` takes it.",
    "PushReceipt.revision": "At which revision.",
    "PushReceipt.already_there": "Nothing had to be sent.",
}
VERSION_FIELD = "Version of this file's format; a newer one is refused."


def fields(target: str, only: str = "") -> str:
    """`fields package.module:Model`: one row a field. With `own` behind it, inherited fields are left out."""
    module, _, name = target.partition(":")
    model = getattr(importlib.import_module(module), name)
    inherited = getattr(model.__mro__[1], "model_fields", {}) if only == "own" else {}
    rows = []
    for field, kind, default in _fields_of(model):
        if field in inherited:
            continue
        meaning = _meaning(model, field)
        if not meaning:
            raise SystemExit(
                f"{name}.{field} has no meaning: write it into the docstring or into {Path(__file__).name}"
            )
        rows.append((f"`{field}`", kind, default, meaning))
    return table(("field", "value", "default", "meaning"), rows)


def _fields_of(model: Any) -> list[tuple[str, str, str]]:
    if dataclasses.is_dataclass(model):
        missing = dataclasses.MISSING
        hints = {f.name: str(f.type) for f in dataclasses.fields(model)}
        return [
            (f.name, f"`{hints[f.name]}`", "required" if f.default is missing else f"`{f.default!r}`")
            for f in dataclasses.fields(model)
        ]
    return [(name, _kind(info.annotation, info.metadata), _default(info)) for name, info in model.model_fields.items()]


def _link(name: str) -> str:
    """To the section of that name, on whichever page it is."""
    for page in sorted(DOCS.glob("*.md")):
        if f"### {name}\n" in page.read_text(encoding="utf-8"):
            return f"[{name}]({page.name}#{name.lower()})"
    raise SystemExit(f"no page has a section {name}")


def _meaning(model: Any, field: str) -> str:
    if field == "schema_version":
        return VERSION_FIELD
    for owner in model.__mro__:
        if text := MEANINGS.get(f"{owner.__name__}.{field}"):
            return text
        info = getattr(owner, "model_fields", {}).get(field)
        if info is not None and info.description:
            return str(info.description)
        names = [f[0] for f in _fields_of(owner)] if hasattr(owner, "model_fields") or _is_data(owner) else []
        if text := attributes(owner.__doc__ or "", names).get(field):
            return text
    return ""


def _is_data(owner: Any) -> bool:
    return dataclasses.is_dataclass(owner)


def attributes(docstring: str, names: Sequence[str]) -> dict[str, str]:
    """The `Attributes:` section as name to text, whichever way its lines were wrapped."""
    _, _, section = " ".join(docstring.split()).partition("Attributes: ")
    if not section or not names:
        return {}
    either = "|".join(map(re.escape, names))
    parts = re.split(rf"(?:^|(?<=[.;] )|(?<= ))((?:{either})(?:, (?:{either}))*): ", section)
    found: dict[str, str] = {}
    for label, text in zip(parts[1::2], parts[2::2], strict=True):
        for name in label.split(", "):
            found[name] = text.strip().rstrip(";")
    return found


def _kind(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return "[height, width]" if arguments[0] == tuple[int, int] else _kind(arguments[0], metadata)
    if origin is typing.Literal:
        euler = [value for value in arguments if str(value).startswith("euler_")]
        values = [value for value in arguments if value not in euler]
        orders = "`euler_<order>_extrinsic` `euler_<order>_intrinsic` (twelve orders: `xyz` `zyx` …) " if euler else ""
        return orders + " ".join(f"`{value}`" for value in values)
    if type(None) in arguments:
        return _kind(next(a for a in arguments if a is not type(None)), metadata)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"list of {_kind(arguments[0])}"
        return f"{len(arguments)} {'whole ' if arguments[0] is int else ''}numbers"
    if origin is dict:
        return f"mapping of {_kind(arguments[0])} to {_kind(arguments[1])}"
    if hasattr(annotation, "model_fields"):
        return _link(annotation.__name__)
    word = {int: "whole number", float: "number", str: "text", bool: "true or false"}.get(annotation, "anything")
    return f"{word}{_bounds(metadata)}"


def _bounds(metadata: Iterable[Any]) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    parts = [
        f"{sign} {getattr(item, key):g}"
        for item in metadata
        for key, sign in signs.items()
        if getattr(item, key, None) is not None
    ]
    return " " + ", ".join(parts) if parts else ""


def _default(info: Any) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None or value in ({}, ()):
        return ""
    return "its defaults" if hasattr(value, "model_dump") else f"`{value}`"
