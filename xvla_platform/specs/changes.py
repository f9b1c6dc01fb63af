"""Changes to a file's values from the command line, as `model.strategy=action_heads` or `phases[1].stage.steps=2000`.

In: what a YAML file holds, and changes as words. Out: the changed values; the file stays as it is.
"""

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from xvla_platform.errors import XvlaError

OPTION = "--set"
_PART = re.compile(r"([A-Za-z0-9_]+)((?:\[\d+\])*)")
_FORM = "FIELD=VALUE, as phases[1].stage.steps=2000"


def with_changes(data: Any, changes: Sequence[str], file: Path | str) -> Any:
    """A copy of `data` with each change made, in order; a value is read as YAML.

    The last name of a field may be new, as far as the file's form allows it; all before it must be there.
    """
    out = copy.deepcopy(data)
    for change in changes:
        field, given, text = change.partition("=")
        parts = _parts(field)
        if not given or not parts:
            raise XvlaError("is no change", file=file, field=OPTION, found=change, allowed=_FORM)
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise XvlaError(f"the value is not valid YAML: {error}", file=file, field=field, found=text) from None
        holder = out
        for depth, part in enumerate(parts[:-1]):
            holder = _inside(holder, part, _shown(parts[: depth + 1]), file)
        if not (isinstance(holder, dict) and isinstance(parts[-1], str)):
            _inside(holder, parts[-1], field, file)
        holder[parts[-1]] = value
    return out


def _parts(field: str) -> list[str | int]:
    """Names and places of a dotted field; none where it is not one."""
    out: list[str | int] = []
    for word in field.split("."):
        found = _PART.fullmatch(word)
        if found is None:
            return []
        out += [found[1], *(int(index) for index in re.findall(r"\d+", found[2]))]
    return out


def _inside(holder: Any, part: str | int, field: str, file: Path | str) -> Any:
    if isinstance(holder, dict) and isinstance(part, str) and part in holder:
        return holder[part]
    if isinstance(holder, list) and isinstance(part, int) and part < len(holder):
        return holder[part]
    allowed: str | list[str] = "a value without fields"
    if isinstance(holder, dict):
        allowed = [str(name) for name in holder]
    elif isinstance(holder, list):
        allowed = f"[0] to [{len(holder) - 1}]"
    raise XvlaError("there is no such field to change", file=file, field=OPTION, found=field, allowed=allowed)


def _shown(parts: Sequence[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")
