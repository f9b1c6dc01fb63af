"""A declaration in the making: the shape of `plugin.yaml`, with a `Guess` in each place that was inferred.

In: a nested mapping whose leaves are plain values or guesses. Out: the plain mapping (a guess that is not sure enough
becomes a blank), its uncertain points in the order of the file, and a copy with one point answered.
"""

from collections.abc import Iterator
from typing import Any, Literal

from xvla_platform.measure.guess import LIKELY, SURE, Guess
from xvla_platform.specs.blanks import BLANK, Place
from xvla_platform.specs.fields import ROTATION_SIZE

Draft = dict[str, Any]
State = Literal["sure", "check", "blank"]

FRAME = Guess(
    value="base",
    confidence=0.7,
    evidence="numbers cannot tell; a pose is nearly always given in the robot's base frame",
)


def state_of(guess: Guess) -> State:
    """`sure`: written as it is; `check`: written and to be looked at; `blank`: not written."""
    if guess.value is None or guess.confidence < LIKELY:
        return "blank"
    return "sure" if guess.confidence >= SURE else "check"


def decided(value: Any) -> Any:
    """What is written for a leaf."""
    if not isinstance(value, Guess):
        return value
    return BLANK if state_of(value) == "blank" else value.value


def resolve(draft: Any) -> Any:
    """The draft as plain data, the way it will be read from the file."""
    if isinstance(draft, dict):
        return {key: resolve(value) for key, value in draft.items()}
    if isinstance(draft, list):
        return [resolve(value) for value in draft]
    return decided(draft)


def leaves(draft: Any, place: Place = ()) -> Iterator[tuple[Place, Guess]]:
    """Every guess and its place, in the order of the file."""
    if isinstance(draft, Guess):
        yield place, draft
    elif isinstance(draft, dict):
        for key, value in draft.items():
            yield from leaves(value, (*place, key))
    elif isinstance(draft, list):
        for index, value in enumerate(draft):
            yield from leaves(value, (*place, index))


def at(draft: Any, place: Place) -> Any:
    """What stands at `place`."""
    for part in place:
        draft = draft[part]
    return draft


def answered(draft: Any, place: Place, value: Any) -> Draft:
    """A copy with `value` at `place`, and what follows from it: a relative step needs axes, a kind its own entries."""
    copy = _replaced(draft, place, Guess(value=value, confidence=1.0, evidence="answered"))
    owner = place[:-1]
    if len(owner) >= 2 and owner[-2] == "fields":
        copy = _replaced(copy, owner, complete_field(at(copy, owner), owner[0] == "action"))
    return copy


def complete_field(entry: Draft, is_action: bool) -> Draft:
    """The field with the entries that its kind calls for, as blanks where nothing is known, and without others."""
    kind = decided(entry.get("kind"))
    if kind == BLANK:
        return entry
    wanted = _entries(kind, entry, is_action)
    out = {key: value for key, value in entry.items() if key in ("name", "kind", "size", "key", "arm")}
    for key, unknown in wanted.items():
        out[key] = entry.get(key, unknown)
    return out


def nothing(evidence: str) -> Guess:
    """A blank with a reason."""
    return Guess(value=None, confidence=0.0, evidence=evidence)


def _entries(kind: str, entry: Draft, is_action: bool) -> Draft:
    unknown, out = nothing("not measured"), {}
    if kind == "ignored":
        return {"value": unknown} if is_action else {}
    angles = kind == "rotation" and entry.get("size") in (3, BLANK)
    if kind != "rotation" or angles:
        out["unit"] = unknown
    if "scale" in entry and (kind != "rotation" or angles) and kind != "gripper":
        out["scale"] = unknown
    if kind == "rotation":
        fitting = [name for name, size in ROTATION_SIZE.items() if size == entry.get("size")]
        only = Guess(value=fitting[0], confidence=0.95, evidence="its size") if len(fitting) == 1 else unknown
        out["format"] = only
    if kind in ("position", "rotation"):
        out["frame"] = FRAME
    if kind == "gripper":
        out |= {"open": unknown, "closed": unknown}
    if is_action:
        certain = Guess(value="absolute", confidence=1.0, evidence="a gripper command is always absolute")
        out["reference"] = certain if kind == "gripper" else unknown
        turned = decided(entry.get("reference")) in ("relative", "relative_to_first")
        if turned and kind in ("position", "rotation"):
            out["axes"] = unknown
    return out


def _replaced(draft: Any, place: Place, value: Any) -> Any:
    if not place:
        return value
    first, rest = place[0], place[1:]
    if isinstance(draft, list):
        assert isinstance(first, int)
        return [_replaced(part, rest, value) if number == first else part for number, part in enumerate(draft)]
    return {key: _replaced(part, rest, value) if key == first else part for key, part in draft.items()}
