"""XV22x: which value is closed, between which values it moves, and whether it moves at all."""

from collections.abc import Iterator

import numpy as np

from xvla_platform.check.common import Column, columns, in_episodes, severity_of, state_of
from xvla_platform.check.findings import CheckContext, Finding, Rule
from xvla_platform.data.reader import FloatArray
from xvla_platform.measure.gripper import polarity, stroke

RULES = (
    Rule(
        code="XV220",
        slug="gripper-polarity",
        title="open and closed are exchanged",
        why="The robot opens its hand when it should grasp. The loss does not notice, because the mistake is the same "
        "in every sample.",
        fix="Exchange the two: `open: 1.0, closed: 0.0`.",
    ),
    Rule(
        code="XV221",
        slug="gripper-range",
        title="the gripper moves between other values than declared",
        why="Closedness is the way from `open` to `closed`. With wrong ends a closed hand counts as half open, and the "
        "command the robot gets is as wrong.",
        fix="Write the recorded value of a fully open and of a fully closed gripper: `open: 0.08, closed: 0.0`.",
    ),
    Rule(
        code="XV222",
        slug="gripper-still",
        title="the gripper never moves",
        why="Without a single grasp in the data nothing can be learnt about grasping; most often the gripper's number "
        "was not recorded.",
        fix="Check the recorder; a robot without a gripper declares `{name: gripper, kind: ignored, size: 1}`.",
        severity="warning",
    ),
)
OUTSIDE = 0.15  # of the stroke: backlash and overshoot stay within it
FAR_OUTSIDE = 0.5
UNUSED = 0.6


def grippers(context: CheckContext) -> Iterator[Finding]:
    """Stillness, range and polarity of every gripper field."""
    for column in columns(context, "gripper"):
        if not column.episodes:
            return
        ends = stroke(column.episodes)
        field = column.field
        assert field.open is not None
        assert field.closed is not None
        declared = abs(field.closed - field.open)
        if ends.size < 0.02 * declared and ends.size < 1e-6 + 0.02 * abs(ends.high):
            yield Finding(
                code="XV222",
                severity="warning",
                field=column.place,
                measured=f"the gripper stays at {ends.low:.4g} in all {len(column.episodes)} episodes read",
                numbers={"value": ends.low},
            )
            continue
        ranges = list(_range(context, column, ends.low, ends.high))
        yield from ranges
        # Which end is closed is asked of the ends; while these are in doubt the answer would be too.
        if not ranges:
            yield from _polarity(context, column)


def _range(context: CheckContext, column: Column, low: float, high: float) -> Iterator[Finding]:
    field = column.field
    assert field.open is not None
    assert field.closed is not None
    span = field.closed - field.open
    shares = np.concatenate([(values[:, 0] - field.open) / span for values in column.episodes])
    outside = float(((shares < -OUTSIDE) | (shares > 1 + OUTSIDE)).mean())
    reach = float(max(-shares.min(), shares.max() - 1))
    used = abs((high - low) / span)
    numbers = {"low": low, "high": high, "outside": outside, "used": used}
    said = f"the values lie between {low:.4g} and {high:.4g}, declared open {field.open:g}, closed {field.closed:g}"
    closing = field.closed > field.open
    fix = f"open: {low if closing else high:.4g}, closed: {high if closing else low:.4g}"
    if outside > 0.01 and field.threshold is None:
        bad = [
            place
            for place, values in enumerate(column.episodes)
            if (np.abs((values[:, 0] - field.open) / span - 0.5) > 0.5 + OUTSIDE).mean() > 0.01
        ]
        indices, text = in_episodes(context, bad)
        every = len(bad) > 0.8 * len(column.episodes)
        yield Finding(
            code="XV221",
            severity="error" if reach > FAR_OUTSIDE else "warning",
            field=column.place,
            measured=said + ("" if every else f"; outside in {text}"),
            numbers=numbers,
            fix=fix if every else "convert or remove the episodes named",
            episodes=() if every else indices,
        )
    # A measured gripper stops at what it holds; a command has no reason to.
    elif used < (UNUSED if column.vector == "action" else 0.1):
        yield Finding(
            code="XV221",
            severity="error" if used < 0.1 else "warning",
            field=column.place,
            measured=f"{said}: {used:.0%} of the stroke",
            numbers=numbers,
            fix=fix,
        )
    elif column.vector == "action":
        yield from _odd_ranges(context, column)


def _odd_ranges(context: CheckContext, column: Column) -> Iterator[Finding]:
    """Episodes whose commands span a fraction of what the others' span."""
    spans = np.array([float(np.ptp(values[:, 0])) for values in column.episodes])
    usual = float(np.median(spans))
    odd = np.flatnonzero((spans > 1e-9) & (spans < 0.15 * usual))
    rest = np.delete(spans, odd)
    if len(odd) and len(rest) and rest.min() > 0.6 * usual:
        indices, text = in_episodes(context, odd)
        yield Finding(
            code="XV221",
            severity="warning",
            field=column.place,
            measured=f"the command spans {np.median(spans[odd]):.3g} in {text}, and {usual:.3g} in the others",
            numbers={"spans": spans},
            fix="convert or remove the episodes named",
            episodes=indices,
        )


def _polarity(context: CheckContext, column: Column) -> Iterator[Finding]:
    positions = _positions(context, column)
    states: list[FloatArray] | None = None
    if column.vector == "action":
        state = state_of(context, column.field)
        states = state.episodes if state is not None else None
    field = column.field
    assert field.open is not None
    assert field.closed is not None

    def measure(places: list[int]) -> tuple[float, float, str]:
        """Sign of closed minus open, with its confidence and evidence."""
        told = [column.episodes[place] for place in places]
        where = None if positions is None else [positions[place] for place in places]
        if states is None:
            guess = polarity(told, None, where)
        else:
            guess = polarity([states[place] for place in places], told, where)
        if guess.value is None:
            return 0.0, 0.0, guess.evidence
        return float(np.sign(guess.value["closed"] - guess.value["open"])), guess.confidence, guess.evidence

    sign = float(np.sign(field.closed - field.open))
    found, confidence, evidence = measure(list(range(len(column.episodes))))
    context.facts.setdefault("grippers", {})[column.place] = {"sign": found, "confidence": confidence}
    severity = severity_of(confidence)
    if found not in (0.0, sign) and severity:
        yield Finding(
            code="XV220",
            severity=severity,
            field=column.place,
            measured=f"declared open {field.open:g}, closed {field.closed:g}, but {evidence}",
            numbers={"confidence": confidence},
            fix=f"open: {field.closed:g}, closed: {field.open:g}",
        )
        return
    odd = []
    for place in range(len(column.episodes)):
        one, sure, _ = measure([place])
        if one not in (0.0, sign) and sure > 0.85:
            odd.append(place)
    if odd and found == sign and len(odd) <= 0.5 * len(column.episodes):
        indices, text = in_episodes(context, odd)
        yield Finding(
            code="XV220",
            severity="error" if len(odd) > 1 else "warning",
            field=column.place,
            measured=f"open and closed are exchanged in {text}: they start, and lift, at the other end",
            numbers={"episodes": len(odd)},
            fix="exchange the values in these episodes, or remove them",
            episodes=indices,
        )


def _positions(context: CheckContext, column: Column) -> list[FloatArray] | None:
    """The hand's positions of the same arm, if they are absolute and in a frame that stands still."""
    for position in columns(context, "position", vectors=("proprio",)):
        if position.field.arm == column.field.arm and position.field.frame in ("base", "world"):
            return position.episodes
    return None


CHECKS = (grippers,)
