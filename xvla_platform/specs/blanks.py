"""Named blanks: a value that nobody has decided yet is written `???`, and validation refuses it by name.

In: the raw value of a file and the model it is meant for. Out: nothing, or one `XvlaError` that asks the question
of the first blank, says what may be answered, and lists every other blank. A blank is never a default: a declaration
in which something is unknown does not load.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel

from xvla_platform.errors import XvlaError

BLANK: Final = "???"
Place = tuple[int | str, ...]

# The question behind each field that can be left blank, by the field's own name.
QUESTIONS: dict[str, str] = {
    "name": "what shall it be called",
    "description": "which robot is this, in one sentence",
    "control_hz": "how many frames a second were recorded",
    "horizon_s": "how many seconds ahead does one predicted chunk reach",
    "key": "which key of the dataset is it",
    "role": "is this the view that shows the whole scene (main), or a further one (auxiliary)",
    "mount": "does the camera move with the hand (wrist), or where else does it sit",
    "resolution": "how many pixels high and wide are the recorded frames",
    "kind": "what are these numbers",
    "size": "how many numbers does the field take",
    "unit": "in which unit were these numbers recorded",
    "scale": "how many units does a recorded 1 stand for",
    "frame": "in which frame are these numbers given",
    "format": "how do these numbers describe a rotation",
    "arm": "which arm do these numbers belong to",
    "open": "which number was recorded while the gripper was fully open",
    "closed": "which number was recorded while the gripper was fully closed",
    "reference": "is the recorded action the target itself (absolute) or a step from the state (relative)",
    "axes": "are the recorded steps along the axes of the declared frame (frame) or of the tool (tool)",
    "value": "which number is sent to the robot in this place",
    "path": "where do the demonstrations lie",
    "repo": "which dataset on the Hub holds the demonstrations",
    "instruction": "what was the robot told to do, since the dataset records no instruction",
}


def refuse_blanks(model: type[BaseModel], data: Any, file: Path | str) -> None:
    """Raise for the first blank in `data`, naming its question, its allowed values and all other blanks."""
    places = list(find_blanks(data))
    if not places:
        return
    first, others = places[0], places[1:]
    field = str(first[-1]) if isinstance(first[-1], str) else ""
    about = _owner(data, first)
    question = QUESTIONS.get(field, "what belongs here")
    hint = None
    if others:
        hint = f"{len(others)} more blank{'s' if len(others) > 1 else ''}: {', '.join(map(dotted, others))}"
    raise XvlaError(
        f"is still blank ({BLANK}): {question}{f', in {about}' if about else ''}",
        file=file,
        field=dotted(first),
        allowed=shown(allowed_values(model, data, first)) or None,
        hint=hint,
    )


def find_blanks(data: Any, place: Place = ()) -> Iterator[Place]:
    """Where blanks stand, in the file's order."""
    if data == BLANK and isinstance(data, str):
        yield place
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from find_blanks(value, (*place, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from find_blanks(value, (*place, index))


def allowed_values(model: type[BaseModel], data: Any, place: Place) -> tuple[str, ...]:
    """The words that may stand at `place`, narrowed by what its neighbours already say; () where any number may."""
    field, around = place[-1], data
    for part in place[:-1]:
        around = around[part]
    siblings = around if isinstance(around, dict) else {}
    narrowed = _narrowed(str(field), siblings)
    return narrowed or _literals(_annotation(model, place))


def shown(words: tuple[str, ...]) -> str:
    """Allowed values in one line; the many Euler formats are named by their pattern."""
    euler = [word for word in words if word.startswith("euler_")]
    if len(euler) < 4:
        return ", ".join(words)
    pattern = "euler_<axes>_extrinsic, euler_<axes>_intrinsic (axes: xyz, zyx, ...)"
    return ", ".join([pattern, *(word for word in words if word not in euler)])


def dotted(place: Place) -> str:
    """`action.fields[0].unit`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def _owner(data: Any, place: Place) -> str:
    """The named thing a blank belongs to: `field 'rotation'`, `camera 'front'`."""
    current, label = data, ""
    for depth, part in enumerate(place[:-1]):
        current = current[part]
        if isinstance(part, int) and isinstance(current, dict):
            name = current.get("name")
            if isinstance(name, str) and name != BLANK:
                label = f"{'camera' if place[depth - 1] == 'cameras' else 'field'} '{name}'"
    return label


def _narrowed(field: str, siblings: dict[Any, Any]) -> tuple[str, ...]:
    # Imported here: the fields' vocabulary is itself built on the models that this module serves.
    from xvla_platform.specs.fields import ANGLE_FORMATS, ROTATION_SIZE, UNITS_OF_KIND

    kind, size, form = siblings.get("kind"), siblings.get("size"), siblings.get("format")
    if field == "unit" and isinstance(kind, str) and kind in UNITS_OF_KIND:
        if isinstance(form, str) and form in ROTATION_SIZE and form not in ANGLE_FORMATS:
            return ()
        return UNITS_OF_KIND[kind]
    if field == "format" and kind == "rotation" and isinstance(size, int):
        return tuple(name for name, width in ROTATION_SIZE.items() if width == size)
    return ()


def _annotation(model: Any, place: Place) -> Any:
    current: Any = model
    for part in place:
        if isinstance(part, int):
            continue
        fields = getattr(_model_of(current), "model_fields", None)
        if fields is None or part not in fields:
            return None
        current = fields[part].annotation
    return current


def _model_of(annotation: Any) -> Any:
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_of(part)) is not None), None)


def _literals(annotation: Any) -> tuple[str, ...]:
    words: list[str] = []
    for part in get_args(annotation):
        words += [part] if isinstance(part, str) else _literals(part)
    return tuple(words)
