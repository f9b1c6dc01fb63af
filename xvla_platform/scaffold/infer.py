"""From a source to a draft: names and numbers of every column, put together as one declaration.

In: a `Source`. Out: a `Result`: the draft (`plugin.yaml` with a guess in each inferred place) and notes on what was
passed over. Everything is read from the dataset; nothing is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xvla_platform.measure import actions, cameras, timing
from xvla_platform.measure.cameras_footage import Hand, look
from xvla_platform.measure.guess import LIKELY, Guess
from xvla_platform.scaffold.cameras import draft_cameras
from xvla_platform.scaffold.choose import Choice, choose
from xvla_platform.scaffold.combine import combine
from xvla_platform.scaffold.draft import Draft, complete_field, nothing
from xvla_platform.scaffold.facts import Part, common_key, draft_vectors, entry, matrices
from xvla_platform.scaffold.names import Segment
from xvla_platform.scaffold.partition import partition
from xvla_platform.scaffold.sources import Source
from xvla_platform.scaffold.table import Column, Table, read_table
from xvla_platform.specs.base import SCHEMA_VERSION

USUAL_RATES = {"hdf5": (50.0, "ALOHA's recordings have 50 Hz, robomimic's and LIBERO's 20")}
# Correlation of each number, and of half of them, with the same number of the command before it, where a state follows.
SOME, MOST = 0.6, 0.9


@dataclass(frozen=True, kw_only=True)
class Result:
    """A draft, and what is worth knowing about the dataset beside it."""

    draft: Draft
    notes: tuple[str, ...]


def infer(source: Source, name: str, *, main_camera: str | None = None) -> Result:
    """The draft of robot `name`; `main_camera` is the user's choice of main view, by key or by name."""
    table = read_table(source.features, source.reader, source.stated)
    state_columns, action_columns = cut(table)
    action = choose(action_columns)
    state = choose(state_columns, action.family if action is not None else None)
    rate = _rate(source, table)
    hz = rate.value if isinstance(rate.value, (int, float)) and rate.confidence >= LIKELY else None
    states, commands = draft_vectors(state, action, hz)
    views, camera_notes = _cameras(source, table, states, main_camera)
    draft: Draft = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "description": _description(source.robot_type or name, states, commands, len(views)),
        "control_hz": rate,
        "horizon_s": _horizon(source, hz),
        "cameras": views or [_no_camera()],
        "proprio": _vector(states, is_action=False),
        "action": _vector(commands, is_action=True),
        "dataset": _dataset(source),
    }
    timing_of = _timing(states, commands)
    if timing_of is not None:
        draft["action"] = {"key": draft["action"].get("key"), "timing": timing_of, **draft["action"]}
        if draft["action"]["key"] is None:
            del draft["action"]["key"]
    notes = [*source.notes, *table.notes, *camera_notes, *_passed("state", state), *_passed("action", action)]
    notes += _advice(states, commands)
    return Result(draft=draft, notes=tuple(dict.fromkeys(notes)))


def cut(table: Table) -> tuple[list[Column], list[Column]]:
    """Columns that no name explains are cut by their numbers; an action of the state's width may repeat its cut."""
    state = [_cut(column) for column in table.state]
    whole = next((column for column in state if column.main and column.segments), None)
    named = {column.key for column in table.state if column.segments is not None}
    out = []
    for column in table.action:
        like = whole.segments if whole is not None and whole.width == column.width else None
        if like is not None and whole is not None and whole.key in named and _follows(whole, column):
            out.append(_cut(column, like, first=True))
        else:
            out.append(_cut(column, like))
    whole = next((column for column in out if column.main and column.segments), None)
    if whole is not None:
        # The other way round: a command is tidier than what was measured.
        state = [_cut(column, whole.segments) if column.width == whole.width else column for column in state]
    return state, out


def _follows(state: Column, action: Column) -> bool:
    """Whether each number of the state runs after the same number of the action, so that both hold the same things."""
    if not state.episodes or len(state.episodes) != len(action.episodes):
        return False
    for lag in (0, 1, 2, 4, 8):
        pairs = [(s[lag:], a[: len(a) - lag]) for s, a in zip(state.episodes, action.episodes, strict=True)]
        now, told = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
        if len(now) < 20 or not (np.isfinite(now).all() and np.isfinite(told).all()):
            return False
        spread = np.minimum(now.std(axis=0), told.std(axis=0))
        moving = spread > 1e-6 * max(1.0, float(np.abs(now).max()))
        alike = [np.corrcoef(now[:, dim], told[:, dim])[0, 1] for dim in np.flatnonzero(moving)]
        if len(alike) > 2 and min(alike) > SOME and np.median(alike) > MOST:
            return True
    return False


def _cut(column: Column, like: tuple[Segment, ...] | None = None, *, first: bool = False) -> Column:
    """`first`: the cut of the other vector goes before what the numbers alone say."""
    if column.segments is not None or column.width < 2 or not column.episodes:
        return column
    found = partition(column.episodes, like=like if first else None)
    if found is None and like is not None:
        found = partition(column.episodes, like=like)
    return replace(column, segments=tuple(found)) if found else column


def _rate(source: Source, table: Table) -> Guess:
    declared = None
    if source.fps is not None:
        declared = Guess(value=_number(source.fps), confidence=0.97, evidence="the dataset's own frame rate")
    measured = timing.rate(list(table.timestamps)) if table.timestamps else None
    if declared is not None and measured is not None and measured.value is not None:
        if abs(measured.value - declared.value) < 0.02 * declared.value:
            return Guess(value=declared.value, confidence=0.99, evidence=f"{declared.evidence}; {measured.evidence}")
        return combine(declared, measured)
    if declared is not None:
        return declared
    if measured is not None and measured.value is not None:
        return Guess(value=_number(measured.value), confidence=measured.confidence, evidence=measured.evidence)
    usual = USUAL_RATES.get(source.format)
    if usual is not None:
        return Guess(value=_number(usual[0]), confidence=0.3, evidence=f"the dataset records no rate; {usual[1]}")
    return nothing("nothing is recorded yet" if source.reader is None else "the dataset records no rate")


def _horizon(source: Source, hz: float | None) -> Guess:
    """A choice, not a measurement: a second or 20 ticks, and at most half of a usual episode."""
    seconds = max(1.0, 20.0 / hz) if hz else 1.0
    evidence = "your choice: published recipes use 1 to 10 s; a second is usual, more at low rates"
    if source.reader is not None and hz and source.reader.episodes:
        median = float(np.median([episode.length for episode in source.reader.episodes])) / hz
        evidence += f" (half of the episodes are shorter than {median:.1f} s)"
        seconds = min(seconds, max(median / 2, 2.0 / hz))
    return Guess(value=float(f"{min(seconds, 60.0):.2g}"), confidence=0.7, evidence=evidence)


def _cameras(
    source: Source, table: Table, states: list[Part], main_camera: str | None
) -> tuple[list[Draft], list[str]]:
    keys = [key for key, feature in source.features.items() if feature.is_camera]
    mounts: Mapping[str, Guess] = {}
    main: Guess | None = None
    if source.reader is not None and len(keys) > 0:
        hands = _hands(table, states)
        if hands:
            seen = cameras.watch(look(source.reader, keys, hands, quick=True))
            mounts = cameras.mounts(source.reader, keys, hands, seen=seen)
            if len(keys) > 1:
                main = cameras.main_view(source.reader, keys, hands, seen=seen)
    return draft_cameras(source.features, source.reader, mounts=mounts, main=main, chosen_main=main_camera)


def _hands(table: Table, states: list[Part]) -> dict[int, tuple[Hand, ...]]:
    """How the arms moved in the sampled episodes, in whatever numbers there are."""
    moving = [part for part in states if part.kind in ("position", "rotation", "joint", None) and part.episodes]
    out: dict[int, tuple[Hand, ...]] = {}
    for place, index in enumerate(table.indices):
        hands = []
        for arm in dict.fromkeys(part.arm for part in moving):
            own = [part for part in moving if part.arm == arm and place < len(part.episodes)]
            if not own:
                continue
            position = next((part.episodes[place] for part in own if part.kind == "position"), None)
            turned = next((matrices(part) for part in own if part.kind == "rotation"), None)
            hands.append(
                Hand(
                    numbers=np.concatenate([part.episodes[place] for part in own], axis=1),
                    position=position,
                    rotation=turned[place] if turned is not None else None,
                )
            )
        if hands:
            out[index] = tuple(hands)
    return out


def _vector(parts: list[Part], *, is_action: bool) -> Draft:
    if not parts:
        unknown = nothing("the dataset has no column that looks like it")
        field = {"name": "numbers", "kind": unknown, "size": unknown}
        return {"key": unknown, "fields": [field]}
    key = common_key(parts)
    two_arms = len({part.arm for part in parts}) > 1
    fields = [
        complete_field(entry(part, own_key=key is None, is_action=is_action, two_arms=two_arms), is_action)
        for part in parts
    ]
    return {**({"key": key} if key is not None else {}), "fields": fields}


def _dataset(source: Source) -> Draft:
    out: Draft = {"format": source.format}
    if source.repo is not None:
        out |= {"repo": source.repo, **({"revision": source.revision} if source.revision else {})}
    elif source.place is None:
        out["path"] = nothing("nothing is recorded yet")
    else:
        out["path"] = ""  # known once it is decided where the plugin lies
    out["held_out"] = 0.2
    if source.reader is not None and not any(episode.instruction for episode in source.reader.episodes):
        out["instruction"] = nothing("no episode has an instruction")
    return out


def _timing(states: list[Part], commands: list[Part]) -> Guess | None:
    """`reached`, where the actions are the states of the same or of an earlier frame; None for the usual case."""
    for part in commands:
        mate = next((o for o in states if o.kind == part.kind and o.segment.size == part.segment.size), None)
        reference = part.facts.get("reference")
        if part.kind not in ("position", "joint") or mate is None or not part.episodes or reference is None:
            continue
        if reference.value != "absolute":
            continue
        shares = actions.equal_share(mate.episodes, part.episodes)
        equal = float(np.nanmean(shares)) if np.isfinite(shares).any() else 0.0
        if equal > 0.9:
            return Guess(
                value="reached",
                confidence=0.9,
                evidence=f"in {equal:.0%} of the moving frames the action is the state of the same frame",
            )
    return None


def _description(robot: str, states: list[Part], commands: list[Part], views: int) -> str:
    parts = states or commands
    arms = len({part.arm for part in parts if part.kind in ("position", "joint")}) or 1
    kinds = {part.kind for part in parts}
    what = "end-effector poses" if "position" in kinds else ("joints" if "joint" in kinds else "recorded numbers")
    arm = "two arms" if arms == 2 else "one arm"
    return f"{' '.join(robot.split())[:80]}: {arm}, {what}, {views} camera{'' if views == 1 else 's'}."


def _advice(states: list[Part], commands: list[Part]) -> list[str]:
    kinds = {part.kind for part in commands}
    if "joint" in kinds and "position" not in kinds:
        return [
            "the actions are joints; a base of end-effector poses (ee6d) needs `kinematics`, the arm's URDF or MJCF"
        ]
    return []


def _passed(vector: str, choice: Choice | None) -> list[str]:
    if choice is None or not choice.passed:
        return []
    return [f"other columns that describe the {vector}: {', '.join(choice.passed[:8])}"]


def _no_camera() -> Draft:
    unknown = nothing("the source has no camera")
    return {
        "name": unknown,
        "role": Guess(value="main", confidence=1.0, evidence="the only camera"),
        "mount": unknown,
        "resolution": unknown,
        "key": unknown,
    }


def _number(value: Any) -> Any:
    """A rate as people write it: 20, not 20.0."""
    value = float(value)
    return int(value) if value.is_integer() else float(f"{value:.6g}")
