"""Which rotation these numbers are: valid in which formats, and which of the valid ones moves like an arm.

In: recorded values, one array [L, n] an episode. Out: a `Guess`. Norms and orthogonality decide the format and the
6D layout without doubt. The order of a quaternion or of Euler angles leaves no such trace: a misread quaternion is
a unit quaternion too, and keeps every angle between rotations. What does differ is the axis of turning. Arms over a
table turn mostly about the vertical, and a misread rotation turns about a horizontal axis; that, and what the numbers
are called, is the evidence, and it is never certain without names.
"""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from xvla_platform.data.reader import FloatArray
from xvla_platform.data.rotations import to_matrix
from xvla_platform.measure import names as words
from xvla_platform.measure.guess import Guess
from xvla_platform.measure.units import angle_unit
from xvla_platform.specs.fields import ANGLE_FORMATS

UNIT_LENGTH = 0.02  # a recorded unit vector is that close to length 1, and two orthogonal ones to a product of 0
SIX_D = ("rot6d_columns", "rot6d_interleaved")
QUATERNIONS = ("quaternion_xyzw", "quaternion_wxyz")
TAIT_BRYAN = ("xyz", "xzy", "yxz", "yzx", "zxy", "zyx")
SAMPLE = 4000
UPRIGHT, LYING = 0.75, 0.35  # share of the turning about the vertical: surely upright, surely not
BY_AXIS = 0.8  # how sure the axis of turning alone can make one
MOVES_RAD = 0.05
UNPROVEN = 0.6  # small Euler angles and a small rotation vector are nearly the same three numbers


def valid_rows(values: FloatArray, format: str) -> np.ndarray:
    """Which rows [L, n] are a rotation in `format`, up to rounding; angles are whenever they are finite."""
    finite: np.ndarray = np.asarray(np.isfinite(values).all(axis=1))
    values = np.where(finite[:, None], values, 0.0)
    if format in ANGLE_FORMATS:
        return np.asarray(finite)
    return np.asarray(finite & (residuals(values, format) < UNIT_LENGTH))


def residuals(values: FloatArray, format: str) -> FloatArray:
    """How far each row [L, n] is from a rotation in `format`: the largest error of a length or an inner product."""
    if format in QUATERNIONS:
        return np.asarray(np.abs(np.linalg.norm(values, axis=1) - 1.0))
    if format in SIX_D:
        first, second = (values[:, :3], values[:, 3:]) if format == SIX_D[0] else (values[:, 0::2], values[:, 1::2])
        lengths = [np.abs(np.linalg.norm(part, axis=1) - 1.0) for part in (first, second)]
        return np.asarray(np.max([*lengths, np.abs((first * second).sum(axis=1))], axis=0))
    if format == "matrix":
        matrices = values.reshape(-1, 3, 3)
        off = np.abs(np.swapaxes(matrices, 1, 2) @ matrices - np.eye(3)).max(axis=(1, 2))
        return np.asarray(np.where(np.linalg.det(matrices) > 0, off, 2.0))
    return np.zeros(len(values))


def rotation_format(
    episodes: Sequence[FloatArray], names: Sequence[str] | None = None, hz: float | None = None
) -> Guess:
    """(format, unit) of absolute rotations [L, n]; None where no format, or more than one, fits.

    `names` are those of the n numbers, where the dataset has them.
    """
    size = episodes[0].shape[1] if len(episodes) else 0
    if size == 4:
        return _paired(quaternion_order(episodes, names))
    if size == 6:
        return _paired(rot6d_layout(episodes))
    if size == 9:
        share = _share_valid(episodes, "matrix")
        if share > 0.98:
            return Guess(
                value=("matrix", None),
                confidence=0.95,
                evidence=f"{share:.1%} of the rows are orthonormal 3x3 matrices",
                numbers={"valid": share},
            )
    if size == 3:
        return _angles(episodes, names, hz)
    return Guess(value=None, confidence=0.0, evidence=f"{size} numbers that are no rotation in any format")


def rot6d_layout(episodes: Sequence[FloatArray]) -> Guess:
    """`rot6d_columns` or `rot6d_interleaved` of six numbers [L, 6], by which two vectors are orthonormal."""
    shares = {format: _share_valid(episodes, format) for format in SIX_D}
    best = max(shares, key=lambda format: shares[format])
    other = min(shares.values())
    if shares[best] < 0.5:
        return Guess(value=None, confidence=0.0, evidence="six numbers in neither 6D layout", numbers=shares)
    return Guess(
        value=best,
        confidence=0.99 if shares[best] > 0.98 and other < 0.2 else 0.6 * shares[best],
        evidence=f"{shares['rot6d_columns']:.1%} of the rows are orthonormal read as columns, "
        f"{shares['rot6d_interleaved']:.1%} read interleaved",
        numbers=shares,
    )


def quaternion_order(episodes: Sequence[FloatArray], names: Sequence[str] | None = None) -> Guess:
    """`quaternion_xyzw` or `quaternion_wxyz` of unit quaternions [L, 4]."""
    valid = _share_valid(episodes, QUATERNIONS[0])
    if valid < 0.9:
        return Guess(
            value=None,
            confidence=0.0,
            evidence=f"only {valid:.1%} of the rows have length 1",
            numbers={"valid": valid},
        )
    turning = {format: vertical_share(episodes, format) for format in QUATERNIONS}
    named = words.quaternion_format(names) if names else None
    return _by_axis(turning, named, extra={"valid": valid})


def euler_order(episodes: Sequence[FloatArray], names: Sequence[str] | None = None, unit: str = "rad") -> Guess:
    """The Euler format of three angles [L, 3]; the sense (extrinsic or intrinsic) is a convention, not a measurement.

    `numbers["turning"]` holds, for every order, the share of the turning that is about the vertical.
    """
    turning = {
        f"euler_{order}_{sense}": vertical_share(episodes, f"euler_{order}_{sense}", unit)
        for order in TAIT_BRYAN
        for sense in ("extrinsic", "intrinsic")
    }
    axes = words.euler_axes(names) if names else None
    # Roll, pitch and yaw mean turns about the fixed x, y and z in nearly every recording of an arm.
    named = f"euler_{axes}_extrinsic" if axes else None
    usual = {"euler_xyz_extrinsic": turning["euler_xyz_extrinsic"]}
    best = max(turning, key=lambda format: turning[format] or 0.0)
    if named is None and (usual["euler_xyz_extrinsic"] or 0.0) > UPRIGHT:
        best = "euler_xyz_extrinsic"
    rivals = {
        best: turning[best],
        **({named: turning[named]} if named else {}),
        **{format: share for format, share in turning.items() if format[6:9] != best[6:9]},
    }
    guess = _by_axis({best: turning[best], "other": _middle(rivals, best)}, None)
    if named is not None and ((turning[named] or 1.0) >= LYING or guess.value != best):
        return Guess(
            value=named,
            confidence=0.9,
            evidence=f"the numbers are called {', '.join(names or ())}",
            numbers={"turning": turning},
        )
    value = best if guess.value == best else None
    return Guess(
        value=value,
        confidence=min(guess.confidence, 0.75) if value else 0.0,
        evidence=guess.evidence if value else "the angles do not tell their order",
        numbers={"turning": turning},
    )


def vertical_share(episodes: Sequence[FloatArray], format: str, unit: str | None = None) -> float | None:
    """Share (0 to 1) of the turning away from the mean rotation that is about the z axis of the frame.

    None where the rotations hardly differ (under `MOVES_RAD` on average).
    """
    matrices = to_matrix(_sample(episodes), format, unit, strict=False)
    if len(matrices) < 2:
        return None
    rotations = Rotation.from_matrix(matrices)
    vectors = (rotations * rotations.mean().inv()).as_rotvec()
    squares = (vectors**2).mean(axis=0)
    total = float(squares.sum())
    return float(squares[2] / total) if total > MOVES_RAD**2 else None


def _angles(episodes: Sequence[FloatArray], names: Sequence[str] | None, hz: float | None) -> Guess:
    unit = angle_unit(episodes, hz)
    if unit.value is None:
        return Guess(value=None, confidence=0.0, evidence=unit.evidence, numbers=unit.numbers)
    turn = 2 * np.pi if unit.value == "rad" else 360.0
    values = _sample(episodes)
    beyond = float((np.linalg.norm(values, axis=1) > turn / 2 * 1.01).mean())
    singles, flips = _jumps(episodes, turn)
    numbers = {"beyond_half_turn": beyond, "wraps": singles, "flips": flips, "unit": unit.value}
    named_vector = bool(names) and words.is_rotation_vector(names or ())
    if flips and not singles and beyond < 0.01:
        return Guess(
            value=("axis_angle", unit.value),
            confidence=min(unit.confidence, 0.92),
            evidence=f"the three numbers change sign together {flips} times at half a turn, as rotation vectors do",
            numbers=numbers,
        )
    if named_vector and beyond < 0.01 and not singles:
        return Guess(
            value=("axis_angle", unit.value),
            confidence=min(unit.confidence, 0.92),
            evidence="the numbers are called a rotation vector",
            numbers=numbers,
        )
    order = euler_order(episodes, names, unit.value)
    proof = beyond > 0.01 or singles > 0 or (bool(names) and words.euler_axes(names or ()) is not None)
    confidence = min(unit.confidence, order.confidence) * (1.0 if proof else UNPROVEN)
    return Guess(
        value=None if order.value is None else (order.value, unit.value),
        confidence=confidence if order.value else 0.0,
        evidence=f"{order.evidence}; {unit.evidence}",
        numbers={**numbers, **order.numbers},
    )


def _by_axis(turning: dict[str, float | None], named: str | None, extra: dict[str, float] | None = None) -> Guess:
    """One of two readings, by the axis of turning and by name."""
    numbers = {**(extra or {}), "turning": dict(turning)}
    known = {format: share for format, share in turning.items() if share is not None}
    best = max(known, key=lambda format: known[format]) if known else None
    clear = best is not None and known[best] > UPRIGHT and min(known.values()) < LYING and len(known) > 1
    if best is not None and clear:
        evidence = (
            f"read as {best}, {known[best]:.0%} of the turning is about the vertical, else {min(known.values()):.0%}"
        )
        if named is None:
            return Guess(value=best, confidence=BY_AXIS, evidence=evidence, numbers=numbers)
        agree = named == best
        return Guess(
            value=best,
            confidence=0.98 if agree else 0.65,
            evidence=f"{evidence}; the names {'say so too' if agree else f'say {named}'}",
            numbers=numbers,
        )
    if named is not None:
        return Guess(value=named, confidence=0.92, evidence="the names of the numbers say so", numbers=numbers)
    return Guess(value=None, confidence=0.0, evidence="the rotations do not tell their order", numbers=numbers)


def _middle(rivals: dict[str, float | None], best: str) -> float | None:
    """The best share among readings that turn about other axes than `best` does."""
    shares = [share for format, share in rivals.items() if format != best and share is not None]
    return float(np.median(shares)) if shares else None


def _jumps(episodes: Sequence[FloatArray], turn: float) -> tuple[int, int]:
    """Jumps of a single angle by a whole turn, and of all three to about their negative at half a turn."""
    singles = flips = 0
    for values in episodes:
        if len(values) < 2:
            continue
        step = np.abs(np.diff(values, axis=0))
        single = (np.abs(step - turn) < 0.15 * turn).sum(axis=1) == 1
        length = np.linalg.norm(values, axis=1)
        near = np.minimum(length[1:], length[:-1]) > 0.4 * turn
        opposite = np.linalg.norm(values[1:] + values[:-1], axis=1) < 0.15 * turn
        singles += int((single & ~(near & opposite)).sum())
        flips += int((near & opposite).sum())
    return singles, flips


def _share_valid(episodes: Sequence[FloatArray], format: str) -> float:
    rows = [valid_rows(values, format) for values in episodes if len(values)]
    return float(np.concatenate(rows).mean()) if rows else 0.0


def _sample(episodes: Sequence[FloatArray]) -> FloatArray:
    """At most `SAMPLE` finite rows, evenly taken."""
    values = np.concatenate([episode for episode in episodes if len(episode)]) if len(episodes) else np.zeros((0, 3))
    values = values[np.isfinite(values).all(axis=1)]
    return values[:: max(1, len(values) // SAMPLE)]


def _paired(guess: Guess) -> Guess:
    value = None if guess.value is None else (guess.value, None)
    return Guess(value=value, confidence=guess.confidence, evidence=guess.evidence, numbers=guess.numbers)
