"""Units by range and by speed: an arm's hand moves within decimetres, at centimetres to a metre a second.

In: absolute recorded values, one array [L, n] an episode. Out: a `Guess` of the unit. Nothing about a robot is
assumed but that it is an arm on a table or a small base; what fits two units about as well is said to be unsure.
"""

from collections.abc import Sequence

import numpy as np

from xvla_platform.data.reader import FloatArray
from xvla_platform.measure.guess import Guess

# Logarithms of what arms do, in metres and seconds: (usual value, spread in e-folds).
EXTENT_M = (0.45, 0.75)
SPEED_M_S = (0.25, 1.0)
DISTANCE_M = (0.6, 1.0)
TURN_RAD = (0.9, 1.0)
TURN_RAD_S = (0.7, 1.1)
LENGTHS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
ANGLES = {"rad": 1.0, "deg": np.pi / 180.0}
# Recordings in centimetres are rare; in degrees they are common.
PRIOR = {"m": 0.6, "cm": 0.1, "mm": 0.3, "rad": 0.6, "deg": 0.4}
STILL = 1e-9


def position_unit(episodes: Sequence[FloatArray], hz: float) -> Guess:
    """m, cm or mm of absolute positions [L, 3]."""
    values = _finite(episodes)
    if not len(values):
        return Guess(value=None, confidence=0.0, evidence="no positions were recorded")
    low, high = np.percentile(values, [0.5, 99.5], axis=0)
    extent, distance = float(np.linalg.norm(high - low)), float(np.median(np.linalg.norm(values, axis=1)))
    speed = _speed(episodes, hz)
    numbers = {"extent": extent, "speed": speed, "distance": distance}
    if extent < STILL:
        return Guess(value=None, confidence=0.0, evidence="the positions never change", numbers=numbers)
    seen = ((extent, EXTENT_M), (speed, SPEED_M_S), (distance, DISTANCE_M))
    evidence = (
        f"the positions span {extent:.3g} and move at up to {speed:.3g} a second, "
        f"{distance:.3g} from the origin; {{best}} {{unit}} fits an arm"
    )
    boxed = bool((np.abs(values) <= 1.0 + 1e-6).all() and (np.abs(values).max(axis=0) > 0.999).all())
    guess = _choose(seen, LENGTHS, numbers, evidence)
    if boxed and guess.value == "m":
        # Scaled numbers fill -1..1; metres do so by chance only.
        return Guess(
            value=None, confidence=0.0, evidence="the positions fill -1..1, as scaled numbers do", numbers=numbers
        )
    return guess


def angle_unit(episodes: Sequence[FloatArray], hz: float | None = None) -> Guess:
    """rad or deg of angles [L, n] (Euler angles, rotation vectors or joints)."""
    values = _finite(episodes)
    if not len(values):
        return Guess(value=None, confidence=0.0, evidence="no angles were recorded")
    largest = float(np.abs(values).max())
    extent = float(np.ptp(np.percentile(values, [0.5, 99.5], axis=0), axis=0).max())
    numbers: dict[str, float] = {"largest": largest, "extent": extent}
    wraps = _wraps(episodes)
    if wraps is not None:
        unit, count = wraps
        numbers["wraps"] = count
        turn = "6.28" if unit == "rad" else "360"
        return Guess(
            value=unit,
            confidence=0.98,
            evidence=f"the angles jump by {turn} {count} times, one turn in {unit}",
            numbers=numbers,
        )
    if largest > 4 * np.pi:
        return Guess(
            value="deg",
            confidence=0.98 if largest > 25.0 else 0.9,
            evidence=f"the angles reach {largest:.3g}, {largest / (2 * np.pi):.1f} turns if they were radians",
            numbers=numbers,
        )
    if extent < 1e-6:
        return _of_constant(values, numbers)
    speed = _speed(episodes, hz) if hz else 0.0
    numbers["speed"] = speed
    seen = ((extent, TURN_RAD), *(((speed, TURN_RAD_S),) if speed else ()))
    evidence = f"the angles span {extent:.3g} and reach {largest:.3g}; {{best}} {{unit}} fits an arm"
    return _choose(seen, ANGLES, numbers, evidence)


def joint_unit(episodes: Sequence[FloatArray], hz: float | None = None) -> Guess:
    """rad, deg, percent or normalized of revolute joints [L, n]."""
    values = _finite(episodes)
    if not len(values):
        return Guess(value=None, confidence=0.0, evidence="no joints were recorded")
    reach = np.abs(values).max(axis=0)
    for limit, unit in ((1.0, "normalized"), (100.0, "percent")):
        full = int((np.abs(reach - limit) < 1e-6 * limit).sum())
        if reach.max() <= limit * (1 + 1e-6) and full >= max(2, len(reach) // 2):
            return Guess(
                value=unit,
                confidence=0.85,
                evidence=f"no joint exceeds {limit:g} and {full} of {len(reach)} end just there, as scaled values do",
                numbers={"largest": float(reach.max()), "full": full},
            )
    guess = angle_unit(episodes, hz)
    if guess.value == "deg" and reach.max() <= 100.0 + 1e-9 and "wraps" not in guess.numbers:
        # LeRobot's calibrated arms record -100..100 per cent of each joint's range.
        return Guess(
            value="deg",
            confidence=min(guess.confidence, 0.75),
            evidence=f"{guess.evidence}; within ±100 they may also be per cent of each joint's range",
            numbers=guess.numbers,
        )
    return guess


def scale_outliers(episodes: Sequence[FloatArray], *, least: float = 6.0) -> tuple[dict[int, float], float]:
    """Episodes (by place) whose values are of another scale than the rest, and the factor between both groups.

    Values [L, n] are taken by their largest size, so this suits positions away from the origin and angles. Two
    groups are told apart by one wide gap (`least` or more) between neighbouring episodes.
    """
    size = np.array([float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) for values in episodes])
    alive = np.flatnonzero(size > STILL)
    if len(alive) < 3:
        return {}, 1.0
    order = alive[np.argsort(size[alive])]
    steps = np.diff(np.log(size[order]))
    cut = int(np.argmax(steps))
    gap = float(np.exp(steps[cut]))
    # Within either group sizes are alike; otherwise the gap is only the widest of many.
    rest = np.delete(steps, cut)
    if gap < least or (len(rest) and np.exp(rest.max()) > np.sqrt(gap)):
        return {}, 1.0
    low, high = order[: cut + 1], order[cut + 1 :]
    odd, usual = (low, high) if len(low) < len(high) else (high, low)
    ratio = float(np.exp(np.log(size[odd]).mean() - np.log(size[usual]).mean()))
    return {int(place): float(size[place]) for place in odd}, ratio


def _choose(
    seen: Sequence[tuple[float, tuple[float, float]]],
    factors: dict[str, float],
    numbers: dict[str, float],
    evidence: str,
) -> Guess:
    """The unit under which the seen quantities are least surprising; unsure where even that surprises."""
    surprise = {}
    for unit, scale in factors.items():
        parts = [(np.log(max(value, STILL) * scale / usual) / spread) ** 2 for value, (usual, spread) in seen]
        # Extent, speed and distance of one motion hang together, so they do not count as independent.
        surprise[unit] = 0.7 * float(sum(parts))
    weights = {unit: PRIOR[unit] * np.exp(-0.5 * (value - min(surprise.values()))) for unit, value in surprise.items()}
    best = max(weights, key=lambda unit: weights[unit])
    share = weights[best] / sum(weights.values())
    # Beyond three spreads nothing fits: the numbers may be scaled, or no arm's.
    strange = max(0.0, np.sqrt(surprise[best] / 0.7 / len(seen)) - 2.0)
    confidence = float(np.clip(share * np.exp(-0.5 * strange), 0.0, 0.99))
    return Guess(
        value=best if confidence >= 0.5 else None,
        confidence=confidence if confidence >= 0.5 else 0.0,
        evidence=evidence.format(best="only" if share > 0.95 else "best", unit=best),
        numbers={**numbers, "share": {unit: float(value / sum(weights.values())) for unit, value in weights.items()}},
    )


def _of_constant(values: FloatArray, numbers: dict[str, float]) -> Guess:
    """Angles that never move say something only if they are quarter turns."""
    typical = np.median(values, axis=0)
    for unit, quarter in (("rad", np.pi / 2), ("deg", 90.0)):
        turns = typical / quarter
        if (np.abs(turns) > 0.5).any() and (np.abs(turns - np.round(turns)) * quarter < 0.02 * quarter).all():
            return Guess(
                value=unit, confidence=0.8, evidence=f"the angles stay at quarter turns in {unit}", numbers=numbers
            )
    return Guess(value=None, confidence=0.0, evidence="the angles never change", numbers=numbers)


def _wraps(episodes: Sequence[FloatArray]) -> tuple[str, int] | None:
    """Whether single angles jump by one full turn between frames, in which unit, and how often."""
    for unit, turn in (("rad", 2 * np.pi), ("deg", 360.0)):
        count = 0
        for values in episodes:
            step = np.abs(np.diff(values, axis=0))
            count += int((np.abs(step - turn) < 0.12 * turn).sum())
        beyond = max((float(np.abs(values).max(initial=0.0)) for values in episodes), default=0.0)
        if count and beyond < 1.05 * turn:
            return unit, count
    return None


def _speed(episodes: Sequence[FloatArray], hz: float) -> float:
    """95th percentile of the speed of change over the moving frames, in recorded units a second."""
    steps = [np.linalg.norm(np.diff(values, axis=0), axis=1) for values in episodes if len(values) > 1]
    moving = np.concatenate(steps) if steps else np.zeros(0)
    moving = moving[np.isfinite(moving) & (moving > 0)]
    return float(np.percentile(moving, 95) * hz) if len(moving) else 0.0


def _finite(episodes: Sequence[FloatArray]) -> FloatArray:
    values = [episode[np.isfinite(episode).all(axis=1)] for episode in episodes if len(episode)]
    return np.concatenate(values) if values else np.zeros((0, 1))
