"""XV11x: columns that say nothing, say it twice, or leap."""

from collections.abc import Iterator

import numpy as np

from xvla_platform.check.common import Column, columns, in_episodes
from xvla_platform.check.findings import CheckContext, Finding, Rule
from xvla_platform.measure.columns import (
    FAR,
    constant_dims,
    duplicate_dims,
    spikes,
    still_episodes,
    worst_quantile_value,
)

RULES = (
    Rule(
        code="XV110",
        slug="constant-dimension",
        title="a number never changes",
        why="A constant carries no information. Often it is a sensor that was not connected, or a column that was "
        "filled with zeros; divided by its spread it becomes infinite.",
        fix="If the robot has it but does not use it, declare `{name: unused, kind: ignored, size: 1}` (actions: with "
        "`value:`); if it should move, mend the recorder.",
        severity="warning",
    ),
    Rule(
        code="XV111",
        slug="degenerate-quantiles",
        title="a number hardly ever changes, and then far",
        why="Its 1st and 99th percentiles nearly coincide, so normalised by quantiles the rare values become hundreds "
        "or thousands, and one sample outweighs all others in the loss.",
        fix="Write `normalization: none` for the field, or remove the episodes in which it leaps.",
        severity="warning",
    ),
    Rule(
        code="XV112",
        slug="duplicate-dimension",
        title="two numbers hold the same motion",
        why="The same quantity twice under two names usually means that the recorder copied one column over another, "
        "so the second quantity is lost.",
        fix="Check the recorder; if both are meant to be the same, declare one of them `kind: ignored`.",
        severity="warning",
    ),
    Rule(
        code="XV113",
        slug="outlier-spikes",
        title="single values leap far away and back",
        why="A spike of one frame is a sensor or transmission fault. It widens every statistic, and the model learns "
        "to leap.",
        fix="Remove the episodes named, or repair the frames before they are declared.",
        severity="warning",
    ),
)


def constants(context: CheckContext) -> Iterator[Finding]:
    """Dims that never change, in all episodes or in some; grippers have a check of their own."""
    for column in columns(context, "position", "rotation", "joint"):
        if not context.recording.episodes:
            return
        dims = constant_dims(column.episodes)
        if dims and not (
            column.field.kind == "rotation" and len(dims) < column.field.size and _rotation_may(column, dims)
        ):
            value = column.episodes[0][0, dims[0]]
            # A tool held upright has constant angles; a hand or a joint that never moves is a dead sensor.
            yield Finding(
                code="XV110",
                severity="warning" if column.field.kind == "rotation" else "error",
                field=_dims(column, dims),
                measured=f"is {value:.6g} in every frame of {len(column.episodes)} episodes",
                numbers={"dims": dims, "value": float(value)},
            )
        for dim, places in still_episodes(column.episodes).items():
            indices, text = in_episodes(context, places)
            yield Finding(
                code="XV110",
                severity="warning",
                field=f"{column.place}[{dim}]",
                measured=f"stands still throughout {text}, and moves in all others",
                numbers={"dim": dim},
                episodes=indices,
            )


def quantiles(context: CheckContext) -> Iterator[Finding]:
    """Dims whose quantiles nearly coincide although they move."""
    for column in columns(context, "position", "joint"):
        values = np.concatenate(column.episodes) if column.episodes else np.zeros((0, 1))
        values = values[np.isfinite(values).all(axis=1)]
        if len(values) < 50:
            continue
        worst = worst_quantile_value(values)
        for dim in np.flatnonzero(worst > FAR):
            reached = "infinity" if np.isinf(worst[dim]) else f"{worst[dim]:.4g}"
            normalised = column.field.normalization != "none"
            yield Finding(
                code="XV111",
                severity="error" if column.field.normalization in ("quantile", "min_max") else "warning",
                field=f"{column.place}[{dim}]",
                measured=f"normalised by its 1st and 99th percentiles it would reach {reached}"
                + ("" if normalised else " (it is declared without normalization)"),
                numbers={"dim": int(dim), "worst": float(worst[dim])},
            )


def duplicates(context: CheckContext) -> Iterator[Finding]:
    """Pairs of dims of one vector that move as one; entries of one rotation may well be equal."""
    for vector in ("proprio", "action"):
        found = [column for column in columns(context, vectors=(vector,)) if column.episodes]
        if not found:
            continue
        places = [(column, dim) for column in found for dim in range(column.field.size)]
        values = np.concatenate([np.concatenate(column.episodes) for column in found], axis=1)
        values = values[np.isfinite(values).all(axis=1)]
        for first, second, scale in duplicate_dims(values) if len(values) > 10 else ():
            (one, one_dim), (other, other_dim) = places[first], places[second]
            if one is other and one.field.kind == "rotation" and one.field.size > 3:
                continue
            yield Finding(
                code="XV112",
                severity="warning",
                field=f"{other.place}[{other_dim}]",
                measured=f"moves exactly as {one.place}[{one_dim}] does (times {scale:.4g})",
                numbers={"scale": scale},
            )


def leaps(context: CheckContext) -> Iterator[Finding]:
    """Single frames far outside; rotations are judged as rotations elsewhere."""
    for column in columns(context, "position", "joint", "gripper"):
        for dim, where in spikes(column.episodes).items():
            indices, text = in_episodes(context, (place for place, _ in where))
            place, frame = where[0]
            value = column.episodes[place][frame, dim]
            yield Finding(
                code="XV113",
                severity="warning",
                field=f"{column.place}[{dim}]",
                measured=f"{len(where)} single frames leap away and back, in {text}; frame {frame} of episode "
                f"{context.recording.episodes[place].index} is {value:.4g}",
                numbers={"dim": dim, "count": len(where)},
                episodes=indices,
            )


def _rotation_may(column: Column, dims: list[int]) -> bool:
    """A rotation about one axis leaves entries of a quaternion or a matrix at 0 or 1."""
    return column.field.size > 3 and len(dims) < column.field.size


def _dims(column: Column, dims: list[int]) -> str:
    return column.place if len(dims) == column.field.size else f"{column.place}[{', '.join(str(dim) for dim in dims)}]"


CHECKS = (constants, quantiles, duplicates, leaps)
