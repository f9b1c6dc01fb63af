"""XV10x: are the numbers in the declared unit? By their range and by the speed of the motion."""

from collections.abc import Callable, Iterator

import numpy as np

from xvla_platform.check.common import Column, columns, in_episodes, severity_of, state_of
from xvla_platform.check.findings import CheckContext, Finding, Rule
from xvla_platform.data.reader import FloatArray
from xvla_platform.data.units import factor
from xvla_platform.measure.columns import wraps
from xvla_platform.measure.guess import Guess
from xvla_platform.measure.units import angle_unit, joint_unit, position_unit, scale_outliers

RULES = (
    Rule(
        code="XV101",
        slug="unit-of-position",
        title="positions are in another unit",
        why="A position in millimetres read as metres is a thousand times too large: the loss is dominated by it, and "
        "what the robot is sent is a thousand times off.",
        fix="Write the unit of the recorded numbers, `unit: mm`; where only some episodes are in it, convert those.",
    ),
    Rule(
        code="XV102",
        slug="unit-of-rotation",
        title="angles are in another unit",
        why="Degrees read as radians turn the hand through nine turns where it should turn sixty degrees; the model "
        "sees orientations that have nothing to do with the images.",
        fix="Write the unit of the recorded angles: `unit: deg`.",
    ),
    Rule(
        code="XV103",
        slug="unit-of-joints",
        title="joints are in another unit",
        why="Joint angles in degrees read as radians put every joint beyond its limits.",
        fix="Write the unit of the recorded joints: `unit: deg` (or `percent`, `normalized` for calibrated ranges).",
    ),
    Rule(
        code="XV104",
        slug="out-of-reach",
        title="positions lie where no arm on a base reaches",
        why="Positions metres away are usually in another unit or in the frame of a room instead of the robot's base. "
        "A model that knows arms within reach of their base has nothing to transfer to them.",
        fix="Check `unit`, `scale` and `frame`; a frame far from the robot is brought to its base by `frame_changes`.",
        severity="warning",
    ),
    Rule(
        code="XV114",
        slug="joint-wraps",
        title="a joint's angle jumps by a whole turn",
        why="Joints are interpolated along the line between two numbers. Across a jump of a whole turn that line is a "
        "whole turn of the joint in one tick.",
        fix="Record continuous angles, or unwrap the column before it is declared (`numpy.unwrap`).",
        severity="warning",
    ),
)
REACH_M = 3.0
EXTENT_M = 4.0


def units(context: CheckContext) -> Iterator[Finding]:
    """Declared unit against measured unit of every absolute position, angle and joint."""
    hz = context.recording.hz
    for column in columns(context, "position", "rotation", "joint"):
        if not column.absolute or not context.recording.episodes:
            continue
        found: Iterator[Finding] = iter(())
        if column.field.kind == "position":
            found = _field(context, column, "XV101", lambda values: position_unit(values, hz))
        elif column.field.kind == "rotation" and column.field.unit is not None:
            found = _field(context, column, "XV102", lambda values: angle_unit(values, hz))
        elif column.field.kind == "joint" and column.field.unit in ("rad", "deg", "percent", "normalized"):
            found = _field(context, column, "XV103", lambda values: joint_unit(values, hz))
        yield from found


def uneven(context: CheckContext) -> Iterator[Finding]:
    """One of a position's three numbers in another unit: against the two others, or an action's against the state's."""
    for column in columns(context, "position"):
        if not column.absolute or not column.episodes:
            continue
        spans = _spans(column)
        state = state_of(context, column.field) if column.vector == "action" else None
        other, least, rival = (
            (_spans(state), 5.0, f"those of {state.place}")
            if state is not None and state.absolute
            else (np.full(3, float(np.median(spans))), 30.0, "the other two")
        )
        if min(spans.min(), other.min()) <= 0:
            continue
        ratio = spans / other
        ratio = ratio / np.median(ratio)
        for dim in np.flatnonzero(np.maximum(ratio, 1 / ratio) > least):
            yield Finding(
                code="XV101",
                severity="error" if max(ratio[dim], 1 / ratio[dim]) > 60 else "warning",
                field=f"{column.place}[{dim}]",
                measured=f"{'xyz'[dim]} spans {spans[dim]:.3g}, {ratio[dim]:.3g} times what {rival} let expect",
                numbers={"spans": spans, "ratio": float(ratio[dim])},
                fix="convert this number to the unit of the others",
            )


def reach(context: CheckContext) -> Iterator[Finding]:
    """Positions that are beyond any arm in the declared unit, where no other unit explains them."""
    for column in columns(context, "position"):
        if not column.absolute or not context.recording.episodes:
            continue
        values = np.concatenate(column.scaled()) * factor(column.field.unit)
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values):
            continue
        distance = float(np.median(np.linalg.norm(values, axis=1)))
        extent = float(np.linalg.norm(np.ptp(np.percentile(values, [1, 99], axis=0), axis=0)))
        guess = position_unit(column.scaled(), context.recording.hz)
        if (distance > REACH_M or extent > EXTENT_M) and guess.value in (None, column.field.unit):
            yield Finding(
                code="XV104",
                severity="warning",
                field=column.place,
                measured=f"the hand is {distance:.3g} m from the origin and moves within {extent:.3g} m",
                numbers={"distance_m": distance, "extent_m": extent},
            )


def joint_jumps(context: CheckContext) -> Iterator[Finding]:
    """Joints that jump by a whole turn."""
    for column in columns(context, "joint"):
        if column.field.unit not in ("rad", "deg") or not column.absolute:
            continue
        turn = 2 * np.pi if column.field.unit == "rad" else 360.0
        for dim in range(column.field.size):
            counts = [wraps(values[:, dim], turn) for values in column.scaled()]
            if any(counts):
                indices, text = in_episodes(context, np.flatnonzero(counts))
                yield Finding(
                    code="XV114",
                    severity="warning",
                    field=f"{column.place}[{dim}]",
                    measured=f"the angle jumps by a whole turn {sum(counts)} times, in {text}",
                    numbers={"jumps": sum(counts)},
                    episodes=indices,
                )


def _spans(column: Column) -> FloatArray:
    """Range [3] of each number without the outermost half per cent."""
    values = np.concatenate(column.scaled())
    low, high = np.percentile(values[np.isfinite(values).all(axis=1)], [0.5, 99.5], axis=0)
    return np.asarray(high - low)


def _field(context: CheckContext, column: Column, code: str, measure: Callable[[list], Guess]) -> Iterator[Finding]:
    odd, ratio = scale_outliers(column.episodes)
    values = column.scaled()
    usual = [part for place, part in enumerate(values) if place not in odd]
    guess = measure(usual)
    context.facts.setdefault("units", {})[column.place] = {
        "declared": column.field.unit,
        "measured": guess.value,
        "confidence": guess.confidence,
    }
    severity = severity_of(guess.confidence)
    if guess.value is not None and guess.value != column.field.unit and severity is not None:
        yield Finding(
            code=code,
            severity=severity,
            field=column.place,
            measured=f"declared {column.field.unit}, but {guess.evidence}",
            numbers={"confidence": guess.confidence, **guess.numbers},
            fix=f"unit: {guess.value}",
        )
    if odd:
        indices, text = in_episodes(context, odd)
        size = ratio if ratio > 1 else 1 / ratio
        word = "larger" if ratio > 1 else "smaller"
        other = measure([part for place, part in enumerate(values) if place in odd])
        unit = f", as {other.value} would be" if other.value and other.value != guess.value else ""
        yield Finding(
            code=code,
            severity="error" if size > 20 else "warning",
            field=column.place,
            measured=f"the values are about {size:.3g} times {word} in {text}{unit}",
            numbers={"ratio": ratio},
            fix="convert these episodes to the unit of the others",
            episodes=indices,
        )


CHECKS = (units, uneven, reach, joint_jumps)
