"""What the names of columns and of their numbers say, by the table in `rules`.

In: a column's key, its width, and the names of its numbers where the dataset gives any. Out: segments that partition
the column. Names are evidence, not proof: what they say is held against the numbers before anything is written.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xvla_platform.measure.guess import Guess
from xvla_platform.scaffold.rules import (
    COLUMN_RULES,
    ELEMENT_RULES,
    KEY_FACTS,
    LETTER_CONFIDENCE,
    LETTERS,
    ORDERS,
    SIDES,
    UNIT_KINDS,
)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Consecutive numbers of one column that are one thing.

    Attributes:
        kind: `position`, `rotation`, `joint`, `gripper`, `ignored`; None where the names do not tell.
        arm: `left`, `right`, or None where the names mention no side.
        facts: Further things the names say (`format`, `unit`, `reference`).
        confidence: How sure kind and extent are.
    """

    start: int
    size: int
    kind: str | None
    arm: str | None = None
    facts: dict[str, Guess] = field(default_factory=dict)
    confidence: float
    evidence: str

    @property
    def stop(self) -> int:
        return self.start + self.size


def words(name: str) -> str:
    """`observation.state/EEF_pos` as `observation_state_eef_pos`, digits apart from letters of more than one."""
    text = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    text = re.sub(r"[^A-Za-z0-9]+", "_", text).lower()
    return re.sub(r"([a-z]{2,})(\d)", r"\1_\2", text).strip("_")


def side(name: str) -> str | None:
    """`left` or `right` where a name mentions one of them; a finger's side is not an arm's."""
    parts = words(name).split("_")
    if {"finger", "fingers"} & set(parts):
        return None
    found = {SIDES[part] for part in parts if part in SIDES}
    return found.pop() if len(found) == 1 else None


def flat_names(names: Any, width: int) -> list[str] | None:
    """The names of a column's numbers from any of the forms in use; None where they name nothing."""
    if isinstance(names, dict):
        listed = [value for value in names.values() if isinstance(value, (list, tuple))]
        names = [name for group in listed for name in group] if listed else list(names)
    while isinstance(names, (list, tuple)) and len(names) == 1 and isinstance(names[0], (list, tuple)):
        names = names[0]
    if not isinstance(names, (list, tuple)) or len(names) != width or not all(isinstance(n, str) for n in names):
        return None
    return list(names)


def read_names(key: str, width: int, names: Any = None) -> list[Segment] | None:
    """The column as its names describe it, or None where they describe nothing."""
    listed = flat_names(names, width)
    if listed is not None:
        segments = _by_elements(listed)
        if any(segment.kind is not None for segment in segments):
            return _with_key_facts(key, segments)
    return by_key(key, width)


def by_key(key: str, width: int) -> list[Segment] | None:
    """The column as its key alone describes it."""
    text = _core(key)
    for rule in COLUMN_RULES:
        if not re.search(rule.pattern, text):
            continue
        layout = f"{rule.layouts}{width}" if isinstance(rule.layouts, str) else rule.layouts.get(width)
        if layout is None:
            continue
        evidence = f"column '{key}' is {rule.why}"
        return _with_key_facts(key, segments_of(layout, rule.confidence, evidence, arm=side(key)))
    return None


def segments_of(layout: str, confidence: float, evidence: str, arm: str | None = None) -> list[Segment]:
    """A layout such as `p3 a3 g1 | p3 a3 g1` as segments; `|` parts the left arm from the right one."""
    out: list[Segment] = []
    arms = layout.split("|")
    for number, part in enumerate(arms):
        owner = ("left", "right")[number] if len(arms) == 2 else arm
        for token in part.split():
            kind, form = LETTERS[token[0]]
            start, size = (out[-1].stop if out else 0), int(token[1:])
            facts = {}
            if form is not None:
                facts["format"] = Guess(value=form, confidence=LETTER_CONFIDENCE[token[0]], evidence=evidence)
            if kind == "gripper" and size == 2:
                note = f"{evidence}; a second finger repeats the first"
                out.append(Segment(start=start, size=1, kind=kind, arm=owner, confidence=confidence, evidence=evidence))
                out.append(Segment(start=start + 1, size=1, kind="ignored", confidence=confidence, evidence=note))
                continue
            out.append(
                Segment(
                    start=start, size=size, kind=kind, arm=owner, facts=facts, confidence=confidence, evidence=evidence
                )
            )
    return out


def _core(key: str) -> str:
    return re.sub(r"^(steps_|data_|obs_|observations?_|state_|states_|actions?_(dict_)?)+(?=.)", "", words(key))


@dataclass(frozen=True)
class _Token:
    kind: str | None
    style: str
    part: str
    arm: str | None
    name: str


def _by_elements(names: Sequence[str]) -> list[Segment]:
    tokens = [_token(name) for name in names]
    out: list[Segment] = []
    start = 0
    while start < len(tokens):
        stop = start + 1
        while stop < len(tokens) and _same_thing(tokens[start], tokens[start:stop], tokens[stop]):
            stop += 1
        out.append(_segment(tokens[start:stop], start))
        start = stop
    return _one_gripper_an_arm(out)


def _token(name: str) -> _Token:
    text, arm = words(name), side(name)
    if arm is not None:
        text = "_".join(part for part in text.split("_") if part not in SIDES) or text
    for rule in ELEMENT_RULES:
        match = re.search(rule.pattern, text)
        if match:
            groups = match.groupdict()
            part = groups.get("part") or groups.get("part2") or ""
            return _Token(rule.kind, rule.style, part, arm, name)
    return _Token(None, "", "", arm, name)


def _same_thing(first: _Token, taken: Sequence[_Token], candidate: _Token) -> bool:
    if (first.kind, first.style, first.arm) != (candidate.kind, candidate.style, candidate.arm):
        return False
    if first.kind == "gripper":
        return False
    return not candidate.part or candidate.part not in {token.part for token in taken}


def _segment(tokens: Sequence[_Token], start: int) -> Segment:
    first, size = tokens[0], len(tokens)
    listed = ", ".join(token.name for token in tokens[:6]) + (", …" if size > 6 else "")
    evidence = f"named {listed}"
    kind: str | None = first.kind
    facts: dict[str, Guess] = {}
    confidence = 0.95
    order = " ".join(token.part for token in tokens)
    if kind == "position" and order != "x y z":
        kind, confidence, evidence = None, 0.0, f"{evidence}, which is no complete position"
    elif kind == "rotation":
        known = ORDERS[first.style].get(order)
        if known is None:
            kind, confidence, evidence = None, 0.0, f"{evidence}, which is no complete rotation"
        elif known[0] is not None:
            facts["format"] = Guess(value=known[0], confidence=known[1], evidence=evidence + known[2])
    elif kind is None:
        confidence, evidence = 0.0, f"{evidence}, which says nothing"
    text = " ".join(words(token.name) for token in tokens)
    if kind in ("position", "rotation", "joint") and re.search(r"(^|[ _])(d_?[xyz]|delta|droll|dpitch|dyaw)", text):
        facts["reference"] = Guess(value="relative", confidence=0.85, evidence=evidence)
    return Segment(
        start=start, size=size, kind=kind, arm=first.arm, facts=facts, confidence=confidence, evidence=evidence
    )


def _one_gripper_an_arm(segments: Sequence[Segment]) -> list[Segment]:
    """A second finger of the same arm is not a second gripper."""
    out: list[Segment] = []
    for segment in segments:
        again = segment.kind == "gripper" and any(o.kind == "gripper" and o.arm == segment.arm for o in out)
        if again:
            segment = replace(segment, kind="ignored", facts={}, evidence=f"{segment.evidence}; repeats the gripper")
        out.append(segment)
    return out


def _with_key_facts(key: str, segments: Iterable[Segment]) -> list[Segment]:
    """What the key says of each segment, where its own names do not say it already."""
    text, core = words(key), _core(key)
    out = []
    for segment in segments:
        facts = dict(segment.facts)
        for pattern, name, value, confidence, why in KEY_FACTS:
            if not (re.search(pattern, text) or re.search(pattern, core)) or not _applies(segment, name, value):
                continue
            if name not in segment.facts or segment.facts[name].confidence < confidence:
                facts[name] = Guess(value=value, confidence=confidence, evidence=f"column '{key}': {why}")
        out.append(replace(segment, facts=facts))
    return out


def _applies(segment: Segment, name: str, value: str) -> bool:
    if name == "format":
        sizes = {"quaternion": 4, "axis": 3, "euler": 3}
        return segment.kind == "rotation" and segment.size == sizes.get(value.split("_")[0], 0)
    if name == "unit":
        return segment.kind in UNIT_KINDS[value] and not (segment.kind == "rotation" and segment.size != 3)
    return segment.kind in ("position", "rotation", "joint")
