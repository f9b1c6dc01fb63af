"""XV20x: are the numbers rotations in the declared format, and do they turn as an arm's hand does?"""

from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation

from xvla_platform.check.common import Column, columns, in_episodes, names_of, severity_of
from xvla_platform.check.findings import CheckContext, Finding, Rule
from xvla_platform.data.reader import FloatArray
from xvla_platform.data.rotations import geodesic_deg, to_matrix
from xvla_platform.measure import names as words
from xvla_platform.measure.guess import LIKELY
from xvla_platform.measure.rotation import (
    LYING,
    QUATERNIONS,
    SIX_D,
    UPRIGHT,
    euler_order,
    quaternion_order,
    rot6d_layout,
    rotation_format,
    valid_rows,
    vertical_share,
)
from xvla_platform.specs.fields import ANGLE_FORMATS, EULER_FORMATS

RULES = (
    Rule(
        code="XV201",
        slug="rotation-invalid",
        title="the numbers are no rotation in the declared format",
        why="A quaternion has length 1, and the columns of a matrix are orthonormal. Other numbers are in another "
        "format, scaled, or averaged; forced into a rotation they point anywhere.",
        fix="Write the format the recorder used (`format: euler_xyz_extrinsic`, `quaternion_xyzw`, `matrix`, …), or "
        "remove the frames that are broken.",
    ),
    Rule(
        code="XV202",
        slug="rot6d-layout",
        title="the six numbers are in the other 6D layout",
        why="Two layouts of the first two columns of a matrix are in use. Read in the wrong one, the hand's "
        "orientation is scrambled while every number stays plausible.",
        fix="Write `format: rot6d_columns` (identity 1 0 0 0 1 0) or `rot6d_interleaved` (identity 1 0 0 1 0 0).",
    ),
    Rule(
        code="XV203",
        slug="quaternion-order",
        title="the quaternion's scalar stands at the other end",
        why="A misread quaternion is a valid rotation, and keeps the angles between rotations, so nothing looks wrong "
        "until the hand turns about the wrong axis.",
        fix="Write `format: quaternion_xyzw` (scalar last: ROS, scipy, PyBullet) or `format: quaternion_wxyz` (scalar "
        "first: MuJoCo, Isaac, Eigen's constructor).",
    ),
    Rule(
        code="XV204",
        slug="angles-reading",
        title="the three angles are read in another order or format",
        why="The same three numbers mean different orientations as roll-pitch-yaw, in another order, or as a rotation "
        "vector. For small angles they agree, and with large ones the hand points elsewhere.",
        fix="Write the format the recorder used: `format: euler_xyz_extrinsic` (roll, pitch, yaw), another order, or "
        "`format: axis_angle`.",
    ),
    Rule(
        code="XV205",
        slug="rotation-jumps",
        title="the hand's orientation leaps",
        why="No arm turns by tens of degrees between two frames. The frames are broken, or the format is not the one "
        "declared.",
        fix="Check `format` and `unit`; if they are right, remove the episodes named.",
        severity="warning",
    ),
    Rule(
        code="XV206",
        slug="episodes-turned",
        title="some episodes' orientations are far from all others'",
        why="Episodes recorded with another tool frame, or written in another convention, teach two answers to one "
        "question.",
        fix="Convert or remove the episodes named.",
        severity="warning",
    ),
)
LEAP_DEG = 45.0
APART_DEG = 60.0


def validity(context: CheckContext) -> Iterator[Finding]:
    """Lengths, orthogonality and the 6D layout."""
    for column in columns(context, "rotation"):
        format = str(column.field.format)
        if format in ANGLE_FORMATS or not column.episodes:
            continue
        values = column.scaled()
        bad = [~valid_rows(part, format) for part in values]
        share = float(np.concatenate(bad).mean())
        other = SIX_D[1 - SIX_D.index(format)] if format in SIX_D else None
        swapped = [
            place
            for place, rows in enumerate(bad)
            if other is not None and rows.mean() > 0.5 and valid_rows(values[place], other).mean() > 0.9
        ]
        if swapped:
            indices, text = in_episodes(context, swapped)
            guess = rot6d_layout([values[place] for place in swapped])
            yield Finding(
                code="XV202",
                severity="error",
                field=column.place,
                measured=f"declared {format}, but {guess.evidence}" + _unless_all(text, indices, values),
                numbers=guess.numbers,
                fix=f"format: {other}",
                episodes=() if len(indices) == len(values) else indices,
            )
        rest = [place for place, rows in enumerate(bad) if rows.any() and place not in swapped]
        if rest:
            indices, text = in_episodes(context, rest)
            guess = rotation_format(values, names_of(context, column), context.recording.hz)
            hint = f"; {guess.evidence}" if guess.value and guess.confidence >= LIKELY else ""
            yield Finding(
                code="XV201",
                severity="error" if share > 0.001 else "warning",
                field=column.place,
                measured=f"{share:.2%} of the rows are no rotation as {format}, in {text}{hint}",
                numbers={"share": share},
                episodes=() if len(indices) == len(values) else indices,
            )


def quaternions(context: CheckContext) -> Iterator[Finding]:
    """The order of a quaternion, by its numbers' names and by the axis of turning."""
    for column in columns(context, "rotation"):
        format = str(column.field.format)
        if format not in QUATERNIONS or not column.absolute or not column.episodes:
            continue
        guess = quaternion_order(column.scaled(), names_of(context, column))
        severity = severity_of(guess.confidence)
        if guess.value not in (None, format) and severity:
            yield Finding(
                code="XV203",
                severity=severity,
                field=column.place,
                measured=f"declared {format}, but {guess.evidence}",
                numbers={"confidence": guess.confidence, **guess.numbers},
                fix=f"format: {guess.value}",
            )


def angles(context: CheckContext) -> Iterator[Finding]:
    """Order and kind of three angles, by names, wraps and the axis of turning."""
    for column in columns(context, "rotation"):
        format, unit = str(column.field.format), str(column.field.unit)
        if format not in ANGLE_FORMATS or not column.absolute or not column.episodes:
            continue
        names = names_of(context, column)
        yield from _named_angles(column, format, names)
        guess = rotation_format(column.scaled(), names, context.recording.hz)
        vector = guess.value is not None and guess.value[0] == "axis_angle"
        severity = severity_of(guess.confidence)
        broken = guess.numbers.get("wraps", 0) or guess.numbers.get("beyond_half_turn", 0.0) > 0.01
        if vector and format != "axis_angle" and severity:
            yield _angle_finding(column, f"declared {format}, but {guess.evidence}", severity, "format: axis_angle")
        elif format == "axis_angle" and broken and guess.numbers.get("unit") == unit:
            text = "single angles jump by a whole turn, or vectors are longer than half a turn, as Euler angles are"
            yield _angle_finding(column, f"declared axis_angle, but {text}", "error", "format: euler_xyz_extrinsic")
        elif format in EULER_FORMATS and not (names and words.euler_axes(names)):
            share, order = vertical_share(column.scaled(), format, unit), euler_order(column.scaled(), None, unit)
            best = order.numbers["turning"].get(order.value) if order.value else None
            if share is not None and best is not None and share < LYING and best > UPRIGHT:
                text = f"as declared {share:.0%} of the turning is about the vertical, as {order.value} {best:.0%}"
                yield _angle_finding(column, text, "warning", f"format: {order.value}")


def jumps(context: CheckContext) -> Iterator[Finding]:
    """Turns between two frames that no arm makes; the relative ones are small by themselves."""
    for column in columns(context, "rotation"):
        if not column.absolute or not column.episodes:
            continue
        found, worst = [], 0.0
        for place, matrices in enumerate(_matrices(column)):
            turn = geodesic_deg(matrices[:-1], matrices[1:])
            usual = float(np.percentile(turn, 90)) if len(turn) else 0.0
            leaping = turn > max(LEAP_DEG, 6 * usual)
            # A command may step from one goal to the next; a hand may not.
            if leaping.sum() > (1 if column.vector == "action" else 0):
                found.append(place)
                worst = max(worst, float(turn.max()))
        if found:
            indices, text = in_episodes(context, found)
            yield Finding(
                code="XV205",
                severity="warning",
                field=column.place,
                measured=f"the orientation leaps by up to {worst:.0f} degrees between two frames, in {text}",
                numbers={"worst_deg": worst},
                episodes=indices,
            )


def turned_episodes(context: CheckContext) -> Iterator[Finding]:
    """Episodes whose mean orientation is far from the others'; the other quaternion order may explain it."""
    for column in columns(context, "rotation"):
        if not column.absolute or len(column.episodes) < 4:
            continue
        means = np.stack([_mean(matrices) for matrices in _matrices(column)])
        apart = np.stack([geodesic_deg(means, mean) for mean in means])
        centre = means[int(np.argmin(np.median(apart, axis=1)))]
        away = geodesic_deg(means, centre)
        odd = np.flatnonzero(away > APART_DEG)
        if not len(odd) or len(odd) > 0.5 * len(away) or np.percentile(np.delete(away, odd), 95) > 0.6 * APART_DEG:
            continue
        indices, text = in_episodes(context, odd)
        code, fix = "XV206", None
        format = str(column.field.format)
        if format in QUATERNIONS:
            other = QUATERNIONS[1 - QUATERNIONS.index(format)]
            values = column.scaled()
            again = [_mean(to_matrix(values[place], other, strict=False)) for place in odd]
            if np.median(geodesic_deg(np.stack(again), centre)) < 0.6 * APART_DEG:
                code, fix = "XV203", f"these episodes are {other}; convert them"
        yield Finding(
            code=code,
            severity="warning" if code == "XV206" else "error",
            field=column.place,
            measured=f"the mean orientation is {np.median(away[odd]):.0f} degrees from the usual one in {text}, and "
            f"within {np.percentile(np.delete(away, odd), 95):.0f} in the others",
            numbers={"away_deg": away[odd]},
            fix=fix,
            episodes=indices,
        )


def _named_angles(column: Column, format: str, names: tuple[str, ...] | None) -> Iterator[Finding]:
    axes = words.euler_axes(names) if names else None
    if axes is not None and format[6:9] != axes:
        called = ", ".join(names or ())
        yield _angle_finding(
            column,
            f"declared {format}, but the numbers are called {called}",
            "error",
            f"format: euler_{axes}_extrinsic",
        )
    elif names and words.is_rotation_vector(names) and format != "axis_angle":
        called = ", ".join(names)
        yield _angle_finding(
            column, f"declared {format}, but the numbers are called {called}", "error", "format: axis_angle"
        )


def _angle_finding(column: Column, measured: str, severity: str, fix: str) -> Finding:
    return Finding(
        code="XV204",
        severity="error" if severity == "error" else "warning",
        field=column.place,
        measured=measured,
        fix=fix,
    )


def _matrices(column: Column) -> list[FloatArray]:
    return [to_matrix(part, str(column.field.format), column.field.unit, strict=False) for part in column.scaled()]


def _mean(matrices: FloatArray) -> FloatArray:
    out: FloatArray = Rotation.from_matrix(matrices[:: max(1, len(matrices) // 50)]).mean().as_matrix()
    return out


def _unless_all(text: str, indices: tuple[int, ...], values: list[FloatArray]) -> str:
    return "" if len(indices) == len(values) else f", in {text}"


CHECKS = (validity, quaternions, angles, jumps, turned_episodes)
