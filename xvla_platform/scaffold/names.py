"""What the names of columns and of their numbers say: one table of rules, each with its reason and its confidence.

In: a column's key, its width, and the names of its numbers where the dataset gives any. Out: segments that partition
the column. Names are evidence, not proof: what they say is held against the numbers before anything is written.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xvla_platform.measure.guess import Guess


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


@dataclass(frozen=True)
class ElementRule:
    """A name of one number: `pattern` on the words joined by `_`, what it is, and which component of it."""

    pattern: str
    kind: str
    style: str = ""


# Rules are tried in order; the first that matches decides. `style` tells apart what must not be mixed in one segment.
ELEMENT_RULES: tuple[ElementRule, ...] = (
    ElementRule(r"(^|_)(pad|padding|unused|dummy|empty|reserved)(_|$)", "ignored", "padding"),
    ElementRule(
        r"(^|_)(vel|velocity|speed|torque|effort|force|current|acc|acceleration|temperature)(_|$)", "ignored", "motion"
    ),
    ElementRule(r"(^|_)(terminate|terminate_episode|done|is_terminal|mode|control_mode)$", "ignored", "flag"),
    # Joints first: `wrist_roll` and `forearm_roll` are motors, not angles of a tool.
    ElementRule(
        r"(^|_)(joint|joints|motor|shoulder|elbow|wrist|forearm|waist|torso|hip|neck)(_.*)?"
        r"(roll|pitch|yaw|pan|lift|flex|rotate|rotation|angle)(_\d+)?(_pos|_position|_rad|_deg)?$",
        "joint",
    ),
    ElementRule(r"(^|_)q_?(?P<part>[xyzw])$|(^|_)quat(ernion)?_(?P<part2>[xyzw])$", "rotation", "quaternion"),
    ElementRule(r"(^|_)(rot_?6d|r_?6d|rotation_6d|ortho_?6d)_(?P<part>[0-5])$", "rotation", "rot6d"),
    ElementRule(r"(^|_)(rotmat|rot_mat|rotation_matrix|matrix)_(?P<part>[0-8])$", "rotation", "matrix"),
    ElementRule(r"(^|_)(rot_?vec|axis_angle|aa)_(?P<part>[xyz012])$|(^|_)w(?P<part2>[xyz])$", "rotation", "axis_angle"),
    ElementRule(r"(^|_)euler(_angle)?_(?P<part>[xyz012])$", "rotation", "euler"),
    ElementRule(r"(^|_)(d|delta|d_|delta_)?(?P<part>roll|pitch|yaw)(_rad|_deg)?$", "rotation", "rpy"),
    ElementRule(
        r"(^|_)(d|delta_)?r(?P<part>[xyz])$|(^|_)(rot|rotation|ori|orientation)_(delta_)?(?P<part2>[xyzw])$",
        "rotation",
        "r",
    ),
    ElementRule(r"(^|_)(d|delta_)?(?P<part>[xyz])(_m|_mm|_cm)?$", "position", "xyz"),
    ElementRule(r"(^|_)(gripper|grip|jaw|claw|finger|fingers|clamp)(_|$)", "gripper"),
    ElementRule(r"(^|_)(joint|joints|j)_?\d+(_|$)", "joint"),
    ElementRule(r"(^|_)(shoulder|elbow|wrist|forearm|waist|torso)(_|$)", "joint"),
    ElementRule(r".+_pos(ition)?$", "joint"),  # LeRobot: `<motor>.pos`
)


@dataclass(frozen=True)
class ColumnRule:
    """A column whose own name says what it is; `layouts` maps a width to parts such as `p3 a3 g1`.

    Parts: p position; a axis-angle, e Euler angles, r rotation of unknown format, q quaternion, s 6D rotation,
    m matrix; g gripper; j joints; i ignored.
    """

    pattern: str
    layouts: dict[int, str] | str
    confidence: float
    why: str


# Tried in order on the key's words joined by `_`. A layout given as one letter takes every number of the column.
COLUMN_RULES: tuple[ColumnRule, ...] = (
    ColumnRule(
        r"(vel|velocity|velocities|torque|effort|force|current|acc|wrench|tactile|sin|cos|timestamp|temperature)"
        r"(_lin|_ang|_linear|_angular)?$",
        "i",
        0.95,
        "motion or force, not a pose",
    ),
    ColumnRule(
        r"(eef?|ee|tcp|end_effector|hand|effector|wrist_pose|arm)?_?(orientation|ori|rotation|rot|quat|quaternion)$",
        {3: "r3", 4: "q4", 6: "s6", 9: "m9"},
        0.9,
        "named as an orientation",
    ),
    ColumnRule(r"(axis_?angle|rot_?vec)$", {3: "a3"}, 0.95, "named axis-angle"),
    ColumnRule(r"(rot(ation)?_?6d|ortho_?6d)$", {6: "s6"}, 0.95, "named 6D rotation"),
    ColumnRule(r"(rpy|euler|euler_angles?)$", {3: "e3"}, 0.95, "named Euler angles"),
    ColumnRule(
        r"(gripper|grippers|gripper_(q?pos|position|positions|state|states|width|command|open|close|action|control)"
        r"|finger(s|_pos|_position)?|hand_gripper|effector_position)$",
        {1: "g1", 2: "g2"},
        0.95,
        "named as a gripper",
    ),
    ColumnRule(
        r"(joints?|arm_joints?|joint_(pos|qpos|position|positions|state|states|angle|angles|action)|arm_q?pos"
        r"|(left|right)_arm)$",
        "j",
        0.9,
        "named as joints",
    ),
    ColumnRule(
        r"(ee|eef|eef?_state|ee_states?|eef_states?|tcp_pose|ee_pose|eef_pose|end_effector_pose|end_pose|pose"
        r"|cartesian(_(pose|position|state))?|endpose|end_position)$",
        {
            6: "p3 r3",
            7: "p3 q4",
            8: "p3 q4 g1",
            9: "p3 s6",
            10: "p3 s6 g1",
            12: "p3 r3 | p3 r3",
            14: "p3 q4 | p3 q4",
            16: "p3 q4 g1 | p3 q4 g1",
            18: "p3 s6 | p3 s6",
            20: "p3 s6 g1 | p3 s6 g1",
        },
        0.8,
        "named as an end-effector pose",
    ),
    ColumnRule(
        r"(eef?|ee|tcp|end_effector|hand|effector)_(pos|position|xyz|translation)$",
        {3: "p3", 6: "p3 | p3"},
        0.95,
        "named as an end-effector position",
    ),
    ColumnRule(r"(^|_)(xyz|translation|position|pos)$", {3: "p3"}, 0.9, "named as a position"),
    ColumnRule(
        r"q_?pos$",
        {6: "j5 g1", 7: "j6 g1", 8: "j7 g1", 9: "j7 g2", 14: "j6 g1 | j6 g1", 16: "j7 g1 | j7 g1"},
        0.7,
        "named qpos: joints and then a gripper, as in ALOHA's recordings",
    ),
)

# What a whole key reveals beyond its rule: pattern, field of the declaration, value, confidence, reason.
KEY_FACTS: tuple[tuple[str, str, str, float, str], ...] = (
    (r"quat_wxyz|wxyz", "format", "quaternion_wxyz", 0.95, "the name says wxyz"),
    (r"quat_xyzw|xyzw", "format", "quaternion_xyzw", 0.95, "the name says xyzw"),
    (r"(^|_)robot_\d_eef_quat", "format", "quaternion_xyzw", 0.85, "robosuite's recordings have the scalar last"),
    (r"(^|_)ee_(ori|states)$", "format", "axis_angle", 0.8, "LIBERO's recordings give the orientation as axis-angle"),
    (r"axis_?angle|rot_?vec", "format", "axis_angle", 0.95, "named axis-angle"),
    (r"(^|_)(rpy|euler)", "format", "euler_xyz_extrinsic", 0.65, "named Euler angles; most mean fixed axes x, y, z"),
    (r"cartesian_position$", "format", "euler_xyz_extrinsic", 0.65, "DROID's recordings give Euler angles here"),
    (r"(^|_)(delta|relative|rel)(_|$)", "reference", "relative", 0.8, "the name says delta"),
    (r"(^|_)(abs|absolute|target)(_|$)", "reference", "absolute", 0.7, "the name says absolute"),
    (r"(^|_)(deg|degrees?)(_|$)", "unit", "deg", 0.9, "the name says degrees"),
    (r"(^|_)(rad|radians?)(_|$)", "unit", "rad", 0.9, "the name says radians"),
    (r"(^|_)mm(_|$)", "unit", "mm", 0.9, "the name says mm"),
    (r"(^|_)cm(_|$)", "unit", "cm", 0.9, "the name says cm"),
)

UNIT_KINDS = {"deg": ("rotation", "joint"), "rad": ("rotation", "joint"), "mm": ("position",), "cm": ("position",)}
LETTERS = {
    "p": ("position", None),
    "a": ("rotation", "axis_angle"),
    "e": ("rotation", "euler_xyz_extrinsic"),
    "r": ("rotation", None),
    "q": ("rotation", None),
    "s": ("rotation", None),
    "m": ("rotation", "matrix"),
    "g": ("gripper", None),
    "j": ("joint", None),
    "i": ("ignored", None),
}
LETTER_CONFIDENCE = {"a": 0.9, "e": 0.65, "m": 0.97}
SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}


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


# Style of a rotation's names: component order to format, with how sure that is.
ORDERS: dict[str, dict[str, tuple[str | None, float, str]]] = {
    "quaternion": {
        "x y z w": ("quaternion_xyzw", 0.95, ""),
        "w x y z": ("quaternion_wxyz", 0.95, ""),
    },
    "rot6d": {"0 1 2 3 4 5": (None, 0.0, "")},
    "matrix": {"0 1 2 3 4 5 6 7 8": ("matrix", 0.97, "")},
    "axis_angle": {"x y z": ("axis_angle", 0.9, ""), "0 1 2": ("axis_angle", 0.9, "")},
    "euler": {
        "x y z": ("euler_xyz_extrinsic", 0.65, "; most mean fixed axes x, y, z"),
        "0 1 2": ("euler_xyz_extrinsic", 0.6, "; most mean fixed axes x, y, z"),
    },
    "rpy": {
        "roll pitch yaw": ("euler_xyz_extrinsic", 0.7, "; most mean fixed axes x, y, z"),
        "yaw pitch roll": ("euler_zyx_intrinsic", 0.65, "; most mean z, then the turned y, then the turned x"),
    },
    "r": {
        "x y z": ("axis_angle", 0.5, "; axis-angle on some robots, Euler angles on others"),
        "x y z w": ("quaternion_xyzw", 0.95, ""),
        "w x y z": ("quaternion_wxyz", 0.95, ""),
    },
}


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
