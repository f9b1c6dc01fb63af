"""What each field of a draft is: unit, format, frame, ends of a gripper, and what an action refers to.

In: the chosen parts of state and action with their numbers. Out: entries of `fields:`, each value a `Guess` that
combines what names say with what is measured. An action is read against the state of the same kind and arm.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xvla_platform.data.reader import FloatArray
from xvla_platform.data.rotations import to_matrix
from xvla_platform.errors import XvlaError
from xvla_platform.measure import actions, rotation, units
from xvla_platform.measure.guess import LIKELY, Guess
from xvla_platform.scaffold.choose import Choice
from xvla_platform.scaffold.combine import combine, weakened
from xvla_platform.scaffold.draft import FRAME, Draft, nothing
from xvla_platform.scaffold.grippers import describe_grippers, gripper_unit
from xvla_platform.scaffold.part import Part
from xvla_platform.specs.fields import ANGLE_FORMATS, ROTATION_SIZE

SAME_GAIN = (0.5, 2.0)  # an action that is a step in the state's own unit has a gain between these
QUICK = 3  # ticks within which a step is followed closely enough to tell its unit
FIELD_NAMES = {"position": "position", "rotation": "rotation", "joint": "joints", "gripper": "gripper"}


def draft_vectors(state: Choice | None, action: Choice | None, hz: float | None) -> tuple[list[Part], list[Part]]:
    """The fields of `proprio` and `action` with everything that names and numbers say about them."""
    states, commands = parts_of(state), parts_of(action)
    for part in states:
        _describe(part, hz)
    for part in commands:
        mate = _mate(part, states)
        if part.kind == "gripper":
            _unit_and_frame(part, hz)
        elif part.kind in ("position", "rotation", "joint"):
            _describe_command(part, mate, states, hz)
        elif part.kind == "ignored":
            part.facts["value"] = _filler(part)
    _grippers(states, commands)
    return states, commands


def entry(part: Part, *, own_key: bool, is_action: bool, two_arms: bool) -> Draft:
    """The part as an entry of `fields:`."""
    kind = part.kind
    segment = part.segment
    out: Draft = {
        "name": part.name,
        "kind": Guess(value=kind, confidence=segment.confidence, evidence=segment.evidence),
        "size": segment.size,
    }
    if own_key:
        out["key"] = part.column.key
    out |= {name: part.facts[name] for name in ("unit", "scale", "format", "frame") if name in part.facts}
    if two_arms and kind in FIELD_NAMES:
        out["arm"] = part.arm
    out |= {name: part.facts[name] for name in ("open", "closed") if name in part.facts}
    if is_action:
        out |= {name: part.facts[name] for name in ("reference", "axes", "value") if name in part.facts}
    return out


def parts_of(choice: Choice | None) -> list[Part]:
    """The choice's segments in order, named and with their numbers."""
    out: list[Part] = []
    if choice is None:
        return out
    segments = [segment for _, group in choice.columns for segment in group]
    used = {segment.arm for segment in segments if segment.kind in FIELD_NAMES} - {None}
    for column, group in choice.columns:
        for segment in group:
            arm = segment.arm if len(used) > 1 and segment.arm else "left"
            base = FIELD_NAMES.get(segment.kind or "", "ignored" if segment.kind == "ignored" else "numbers")
            name = f"{arm}_{base}" if len(used) > 1 and segment.kind in FIELD_NAMES else base
            taken = {part.name for part in out}
            number = 2
            unique = name
            while unique in taken:
                unique, number = f"{name}{number}", number + 1
            episodes = [values[:, segment.start : segment.stop] for values in column.episodes]
            out.append(Part(column=column, segment=segment, name=unique, arm=arm, episodes=episodes))
    return out


def matrices(part: Part) -> list[FloatArray] | None:
    """A rotation's numbers as [L, 3, 3] under the likeliest format; None where that is unknown."""
    form = part.facts.get("format")
    if form is None or form.value is None or form.confidence <= 0 or ROTATION_SIZE[form.value] != part.segment.size:
        return None
    unit = part.facts["unit"].value if form.value in ANGLE_FORMATS and "unit" in part.facts else None
    if form.value in ANGLE_FORMATS and unit is None:
        return None
    try:
        return [to_matrix(values, form.value, unit, strict=False) for values in part.episodes]
    except XvlaError:
        return None


def _describe(part: Part, hz: float | None) -> None:
    """Unit, format and frame of a state field, or of an action in absolute terms."""
    _unit_and_frame(part, hz)
    if part.kind == "rotation":
        _format(part, hz)


def _unit_and_frame(part: Part, hz: float | None) -> None:
    named = part.segment.facts.get("unit")
    if part.kind in ("position", "rotation"):
        part.facts["frame"] = FRAME
    if part.kind == "position":
        part.facts["unit"] = combine(named, units.position_unit(part.episodes, hz or 10.0) if part.episodes else None)
    elif part.kind == "joint":
        part.facts["unit"] = combine(named, units.joint_unit(part.episodes, hz) if part.episodes else None)
    elif part.kind == "rotation" and part.segment.size == 3:
        part.facts["unit"] = combine(named, units.angle_unit(part.episodes, hz) if part.episodes else None)
    elif part.kind == "gripper":
        part.facts["unit"] = combine(named, gripper_unit(part.episodes))


def _format(part: Part, hz: float | None) -> None:
    named = part.segment.facts.get("format")
    measured = rotation.rotation_format(part.episodes, None, hz) if part.episodes else None
    if measured is not None:
        value = measured.value[0] if measured.value else None
        measured = Guess(
            value=value, confidence=measured.confidence, evidence=measured.evidence, numbers=measured.numbers
        )
    if named is not None and part.episodes and not _fits(part, named.value):
        measured = Guess(value=f"no {named.value}", confidence=0.9, evidence="the numbers are no such rotation")
        part.facts["format"] = weakened(combine(named, measured), 0.4, "contradicted by the numbers")
        return
    part.facts["format"] = combine(named, measured)


def _fits(part: Part, form: str) -> bool:
    """Whether nearly all recorded rows are a rotation in that format."""
    if ROTATION_SIZE[form] != part.segment.size:
        return False
    return bool(rotation.valid_rows(np.concatenate(part.episodes), form).mean() > 0.9)


def _describe_command(part: Part, mate: Part | None, states: Sequence[Part], hz: float | None) -> None:
    """Reference, axes, unit, scale and format of a position, rotation or joint command."""
    named = part.segment.facts.get("reference")
    if mate is None:
        _describe(part, hz)
        part.facts["reference"] = combine(named, nothing(f"the state has no {part.kind} to compare with"))
        _axes(part, None, states)
        return
    absolute = Part(**{**part.__dict__, "facts": {}})
    _describe(absolute, hz)
    if part.kind == "rotation" and mate.segment.size == part.segment.size:
        # As far as the reference is concerned, both are read in the state's format.
        part.facts["format"] = mate.facts["format"]
        if "unit" in mate.facts:
            part.facts["unit"] = mate.facts["unit"]
    elif part.kind == "rotation":
        part.facts |= absolute.facts
    measured = _reference(part, mate, states)
    reference = combine(named, measured)
    part.facts = {"reference": reference, **({"frame": FRAME} if part.kind != "joint" else {})}
    if reference.value == "absolute":
        shared = min(reference.confidence, 0.97)
        for name in ("unit", "format"):
            if name not in absolute.facts:
                continue
            part.facts[name] = _as_state(part, mate, name, absolute.facts[name], shared)
    else:
        _relative_terms(part, mate, measured)
    _axes(part, mate, states)


def _as_state(part: Part, mate: Part, name: str, own: Guess, shared: float) -> Guess:
    """A fact of an action that the state reaches: the state's own, unless the action's evidence objects."""
    known, told = mate.facts.get(name), part.segment.facts.get(name)
    if known is None or mate.segment.size != part.segment.size:
        return own
    same = Guess(
        value=known.value,
        confidence=min(known.confidence, shared),
        evidence="as the state, which follows it",
        numbers=known.numbers,
    )
    if told is not None and told.value != known.value and told.confidence >= LIKELY:
        return combine(same, told)
    if own.value is not None and own.value != known.value and own.confidence >= LIKELY:
        return combine(same, own)
    return same


def _relative_terms(part: Part, mate: Part, measured: Guess | None) -> None:
    """Unit, scale and format of steps: small numbers that say little by themselves."""
    if part.kind != "rotation" or part.segment.size == 3:
        part.facts |= _step_unit(part, mate, measured.numbers if measured is not None else {})
    if part.kind != "rotation":
        return
    unclear = "small turns look alike as axis-angle and as Euler angles"
    guess = nothing(unclear)
    if part.segment.facts.get("format") is not None:
        guess = part.segment.facts["format"]
    elif part.segment.size == 3:
        guess = Guess(value="axis_angle", confidence=0.4, evidence=unclear)
    elif part.segment.size == mate.segment.size and mate.facts["format"].value is not None:
        guess = weakened(mate.facts["format"], 0.7, "as the state")
    part.facts["format"] = guess


def _step_unit(part: Part, mate: Part, numbers: Mapping[str, Any]) -> dict[str, Guess]:
    """The unit of steps, by how far the state moves for a recorded 1, and a scale where that is no unit of its own."""
    named, known = part.segment.facts.get("unit"), mate.facts.get("unit")
    gain, lag = abs(float(numbers.get("gain") or 0.0)), int(numbers.get("lag_ticks") or 0)
    if known is None or known.value is None or not gain:
        return {"unit": combine(named, nothing("the state's unit, or how it follows, is not known"))}
    # What a controller reaches in many ticks says little of the step it was told.
    plain = SAME_GAIN[0] < gain < SAME_GAIN[1] and lag <= QUICK and not _fills_a_box(part)
    moved = f"the state moves by {1 / gain:.3g} {known.value} for a recorded 1, {lag} ticks on"
    guess = Guess(value=known.value, confidence=min(known.confidence, 0.85) if plain else 0.4, evidence=moved)
    if plain:
        return {"unit": combine(named, guess)}
    scale = Guess(value=float(f"{1 / gain:.2g}"), confidence=0.4, evidence=f"{moved}, as far as it follows")
    return {"unit": combine(named, guess), "scale": scale}


def _fills_a_box(part: Part) -> bool:
    """Whether the numbers are cut off at -1 and 1, as commands are that stand for a share of the largest step."""
    values = np.abs(np.concatenate(part.episodes)) if part.episodes else np.zeros((1, 1))
    return bool((values <= 1.0 + 1e-6).all() and (values > 0.999).any())


def _reference(part: Part, mate: Part, states: Sequence[Part]) -> Guess | None:
    """Absolute or relative, measured; None where nothing was recorded."""
    if not part.episodes or not mate.episodes or part.kind is None:
        return None
    if part.kind == "rotation":
        now, told = matrices(mate), matrices(part)
        if now is None or told is None:
            return _unformatted(part, mate)
        guess = actions.reference(now, told, "rotation")
        doubt = min(mate.facts["format"].confidence, 1.0)
        # Read in a wrong format, targets and states still agree; steps do not.
        return guess if guess.value == "absolute" or doubt >= LIKELY else weakened(guess, 0.5, "in an unsure format")
    if mate.segment.size != part.segment.size:
        return nothing(f"the state has {mate.segment.size} numbers of this kind, the action {part.segment.size}")
    turn = next((other for other in states if other.kind == "rotation" and other.arm == part.arm), None)
    turns = matrices(turn) if turn is not None and part.kind == "position" else None
    return actions.reference(mate.episodes, part.episodes, part.kind, turns)


def _unformatted(part: Part, mate: Part) -> Guess:
    """Whether rotations of unknown format are absolute: then the bare numbers of state and action agree."""
    unclear = "the rotations' format is not known, so that they cannot be compared"
    if mate.segment.size != part.segment.size:
        return nothing(unclear)
    guess = actions.reference(mate.episodes, part.episodes, "joint")
    return guess if guess.value == "absolute" else nothing(unclear)


def _axes(part: Part, mate: Part | None, states: Sequence[Part]) -> None:
    reference = part.facts["reference"]
    if part.kind == "joint" or reference.value in (None, "absolute") or reference.confidence < LIKELY:
        return
    measured: Guess | None = None
    if mate is not None and part.episodes:
        turn = next((other for other in states if other.kind == "rotation" and other.arm == part.arm), None)
        turns = matrices(turn) if turn is not None else None
        if part.kind == "rotation":
            now, told = matrices(mate), matrices(part)
            measured = actions.axes(now, told, "rotation", None) if now and told else None
        elif turns is not None:
            measured = actions.axes(mate.episodes, part.episodes, "position", turns)
    part.facts["axes"] = measured or nothing("there is nothing to compare with")


def _grippers(states: Sequence[Part], commands: Sequence[Part]) -> None:
    """Everything about grippers, state and command of one arm together."""
    for part in commands:
        if part.kind == "gripper":
            part.facts["reference"] = Guess(
                value="absolute", confidence=1.0, evidence="a gripper command is always absolute"
            )
    for arm in ("left", "right"):
        state = next((part for part in states if part.kind == "gripper" and part.arm == arm), None)
        command = next((part for part in commands if part.kind == "gripper" and part.arm == arm), None)
        position = next((part for part in states if part.kind == "position" and part.arm == arm), None)
        describe_grippers(state, command, position)


def _filler(part: Part) -> Guess:
    """What an unused number of the action is filled with: what it was recorded as."""
    told = part.segment.facts.get("value")
    if told is not None:
        return told
    if not part.episodes:
        return Guess(value=0.0, confidence=LIKELY, evidence="not recorded yet")
    values = np.concatenate(part.episodes)
    middle = float(np.median(values))
    constant = bool(np.ptp(values) < 1e-9)
    return Guess(
        value=float(f"{middle:.6g}"),
        confidence=0.9 if constant else LIKELY,
        evidence="its recorded value, which never changes" if constant else "the median of what was recorded",
    )


def _mate(part: Part, states: Sequence[Part]) -> Part | None:
    """The state field that an action field refers to."""
    same = [other for other in states if other.kind == part.kind and other.arm == part.arm]
    return next((other for other in same if other.segment.size == part.segment.size), same[0] if same else None)


def common_key(parts: Sequence[Part]) -> str | None:
    """The one column of all parts, or None where there are several."""
    keys = {part.column.key for part in parts}
    return keys.pop() if len(keys) == 1 else None
