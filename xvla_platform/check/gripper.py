"""XV22x: which value is closed, between which values it moves, and whether it moves at all."""

from collections.abc import Iterator

import numpy as np

from xvla_platform.check.common import Column, columns, in_episodes, severity_of, state_of
from xvla_platform.check.findings import CheckContext, Finding, Rule
from xvla_platform.data.reader import FloatArray
from xvla_platform.measure.gripper import BY_HABIT, polarity, stroke, together

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
FOLLOWS = 0.4  # correlation from which a measured gripper follows its command


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
    field = column.field
    assert field.open is not None
    assert field.closed is not None
    sign = float(np.sign(field.closed - field.open))
    found, confidence, evidence = _measured(context, column)
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
    elif found == sign:
        yield from _odd_polarity(context, column, sign)


def _measured(context: CheckContext, column: Column) -> tuple[float, float, str]:
    """Sign of closed minus open in the recorded numbers, with its confidence and evidence.

    A measured gripper is judged by the command it follows, where one is recorded.
    """
    positions, other = _positions(context, column), _other(context, column)
    if other is None:
        guess, follows = polarity(column.episodes, None, positions), 1.0
    elif column.vector == "action":
        guess, follows = polarity(other.episodes, column.episodes, positions), 1.0
    else:
        guess, follows = polarity(column.episodes, other.episodes, positions), together(column.episodes, other.episodes)
    if guess.value is None or abs(follows) < FOLLOWS:
        return 0.0, 0.0, guess.evidence
    sign = float(np.sign(guess.value["closed"] - guess.value["open"]) * np.sign(follows))
    if other is None or column.vector == "action":
        return sign, guess.confidence, guess.evidence
    way = "with" if follows > 0 else "against"
    return sign, guess.confidence, f"it moves {way} the command {other.place}, of which {guess.evidence}"


def _odd_polarity(context: CheckContext, column: Column, sign: float) -> Iterator[Finding]:
    """Episodes at the other end than the rest; sure only where the command runs against the measured gripper."""
    positions, other = _positions(context, column), _other(context, column)
    against, seems = [], []
    for place, values in enumerate(column.episodes):
        where = None if positions is None else [positions[place]]
        if other is not None and together([values], [other.episodes[place]]) * _usual(column, other) < -FOLLOWS:
            against.append(place)
        guess = polarity([values], None, where)
        votes = guess.numbers.get("votes", {})
        if guess.value is not None and len(votes) > 1 and all(abs(vote) == 1 for vote in votes.values()):
            one = float(np.sign(guess.value["closed"] - guess.value["open"]))
            seems += [place] if one != sign and guess.confidence >= BY_HABIT else []
    # Where the two run against each other either may be the one that is exchanged; habits say which.
    both = [place for place in seems if place in against]
    odd = both or (against if column.vector == "action" else []) or seems
    if odd and len(odd) <= 0.5 * len(column.episodes):
        indices, text = in_episodes(context, odd)
        sure = len([place for place in odd if place in against]) > 1 and bool(seems)
        yield Finding(
            code="XV220",
            severity="error" if sure else "warning",
            field=column.place,
            measured=f"open and closed seem exchanged in {text}: "
            + ("command and measured gripper run against each other" if against else "they start, and lift, otherwise"),
            numbers={"episodes": len(odd)},
            fix="exchange the values in these episodes, or remove them",
            episodes=indices,
        )


def _usual(column: Column, other: Column) -> float:
    return float(np.sign(np.median([together([a], [b]) for a, b in zip(column.episodes, other.episodes, strict=True)])))


def _other(context: CheckContext, column: Column) -> Column | None:
    """The measured gripper of a command, or the command of a measured gripper; None without exactly one."""
    if column.vector == "action":
        return state_of(context, column.field)
    same = [one for one in columns(context, "gripper", vectors=("action",)) if one.field.arm == column.field.arm]
    return same[0] if len(same) == 1 else None


def _positions(context: CheckContext, column: Column) -> list[FloatArray] | None:
    """The hand's positions of the same arm, if they are absolute and in a frame that stands still."""
    for position in columns(context, "position", vectors=("proprio",)):
        if position.field.arm == column.field.arm and position.field.frame in ("base", "world"):
            return position.episodes
    return None


CHECKS = (grippers,)
