"""Strict pydantic models and the one place where YAML/JSON from a user becomes typed values.

In: a file. Out: a frozen model, or an `XvlaError` that names file, field, found and allowed.
"""

from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xvla_platform.errors import XvlaError
from xvla_platform.specs.blanks import refuse_blanks

SCHEMA_VERSION: Final = 1
LARGEST_FILE = 4 * 2**20  # characters; the largest real one, a manifest with its hashes, has some thousands
MOST_VALUES = 200_000
# torch draws from 64-bit seeds, datasets keep 63 bits, and runs count upwards from their first one.
LARGEST_SEED: Final = 2**62
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class StrictModel(BaseModel):
    """Frozen, and an unknown field is an error: a misspelt name must never become a silent default.

    Numbers are finite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=StrictModel)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML silently keeps the last of two equal keys; here that is an error."""


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not used", key_node.start_mark)
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (dict, list, set)):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(path: Path) -> Any:
    """Parse a YAML (or JSON) file; every way in which it can be unreadable is an `XvlaError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise XvlaError("file not found", file=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise XvlaError(f"cannot be read: {error}", file=path) from None
    if len(text) > LARGEST_FILE:
        raise XvlaError(f"is larger than {LARGEST_FILE // 2**20} MiB", file=path)
    try:
        value = yaml.load(text, Loader=_UniqueKeyLoader)
        _expanded_size(value, {})
        return value
    except yaml.YAMLError as error:
        raise XvlaError(f"is not valid YAML: {error}", file=path) from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise XvlaError(f"is not valid YAML: {type(error).__name__} {error}", file=path) from None


def _expanded_size(value: Any, sizes: dict[int, int]) -> int:
    """Values in `value` with every alias written out; a few lines of aliases can stand for billions."""
    if not isinstance(value, (dict, list)):
        return 1
    known = sizes.get(id(value))
    if known is None:
        sizes[id(value)] = 0  # meeting it again before it is counted means that it contains itself
        parts = value.values() if isinstance(value, dict) else value
        known = sizes[id(value)] = 1 + sum(_expanded_size(part, sizes) for part in parts)
    if not 0 < known <= MOST_VALUES:
        raise ValueError("aliases (*name) expand without end")
    return known


def load_model(model: type[Model], path: Path) -> Model:
    """Read `path` and validate it as `model`."""
    return validate_model(model, read_yaml(path), path)


def validate_model(model: type[Model], data: Any, file: Path | str) -> Model:
    """Validate `data` as `model`, reporting the first fault in the project's own words."""
    if not isinstance(data, dict):
        raise XvlaError("expected a mapping of fields", file=file, found=type(data).__name__)
    version = data.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise XvlaError(
            "was written by a newer version of the platform",
            file=file,
            field="schema_version",
            found=version,
            allowed=f"up to {SCHEMA_VERSION}",
            hint="upgrade xvla-platform",
        )
    refuse_blanks(model, data, file)
    try:
        value = model.model_validate(data)
    except ValidationError as error:
        raise _translate(error, model, file) from None
    place = _truth_as_number(data, value)
    if place is not None:
        raise XvlaError(
            "expected a number, not a truth value",
            file=file,
            field=_dotted(place),
            hint="YAML reads yes and on as true",
        )
    return value


def _truth_as_number(data: Any, value: Any) -> tuple[int | str, ...] | None:
    """The place where `data` has true or false and `value`, made from it, a number: pydantic takes true for 1."""
    if isinstance(data, bool):
        return () if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    pairs: list[tuple[int | str, Any, Any]] = []
    if isinstance(data, dict) and isinstance(value, StrictModel):
        pairs = [(name, data[name], getattr(value, name)) for name in type(value).model_fields if name in data]
    elif isinstance(data, dict) and isinstance(value, dict):
        pairs = [(str(name), part, value[name]) for name, part in data.items() if name in value]
    elif isinstance(data, (list, tuple)) and isinstance(value, (list, tuple)) and len(data) == len(value):
        pairs = [(number, part, value[number]) for number, part in enumerate(data)]
    for name, part, made in pairs:
        inside = _truth_as_number(part, made)
        if inside is not None:
            return (name, *inside)
    return None


def require_seed(seed: int) -> None:
    """Refuse what is no whole number from 0 to `LARGEST_SEED`."""
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed <= LARGEST_SEED:
        raise XvlaError("is no seed", field="seed", found=seed, allowed=f"a whole number from 0 to {LARGEST_SEED}")


def _translate(error: ValidationError, model: type[StrictModel], file: Path | str) -> XvlaError:
    faults = error.errors(include_url=False)
    fault = faults[0]
    field = _dotted(fault["loc"])
    found: object = fault.get("input")
    if fault["type"] == "missing":
        return XvlaError("required field is missing", file=file, field=field, hint=_more(faults))
    if fault["type"] == "extra_forbidden":
        return XvlaError(
            "unknown field",
            file=file,
            field=field,
            allowed=_siblings(model, fault["loc"]),
            hint=_more(faults),
        )
    context = fault.get("ctx", {})
    allowed = context.get("expected") if fault["type"] in ("literal_error", "enum") else None
    message = str(fault["msg"]).removeprefix("Value error, ")
    if allowed is not None:
        message = "unknown value"
    if fault["type"] == "value_error" and isinstance(found, dict):
        found = None  # a cross-field rule: its message already names the values
    return XvlaError(message, file=file, field=field or None, found=found, allowed=allowed, hint=_more(faults))


def _more(faults: list[Any]) -> str | None:
    if len(faults) == 1:
        return None
    others = ", ".join(_dotted(fault["loc"]) or "whole file" for fault in faults[1:4])
    return f"also wrong: {others}" + (" …" if len(faults) > 4 else "")


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def _siblings(model: type[StrictModel], location: tuple[int | str, ...]) -> str | None:
    """The field names that exist at the place of an unknown one, found by walking the model."""
    current: Any = model
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        info = current.model_fields.get(part) if hasattr(current, "model_fields") else None
        if info is None:
            return None
        current = _inner_model(info.annotation)
    return ", ".join(sorted(current.model_fields)) if hasattr(current, "model_fields") else None


def _inner_model(annotation: Any) -> Any:
    if hasattr(annotation, "model_fields"):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        inner = _inner_model(argument)
        if inner is not None:
            return inner
    return None
