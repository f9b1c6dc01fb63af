"""Open, closed and unit of a gripper, from its state and its command together.

In: the gripper parts of one arm. Out: their facts. Which end is closed is measured on each and must agree through the
correlation of the two; the closed end itself is taken from the command where both run over the same range, because a
gripper that holds something never closes fully.
"""

from collections.abc import Sequence

import numpy as np

from xvla_platform.data.reader import FloatArray
from xvla_platform.measure import gripper
from xvla_platform.measure.guess import Guess
from xvla_platform.scaffold.combine import combine, weakened
from xvla_platform.scaffold.draft import nothing
from xvla_platform.scaffold.part import Part

# A gripper's recorded ends, and the unit they speak for.
RANGES = (((0, 1), "normalized", 0.92), ((-1, 1), "normalized", 0.9), ((0, 100), "percent", 0.8))
TIDY = (-1.0, 0.0, 1.0, 100.0, 255.0, 1000.0)
SAME_END = 0.06  # of the stroke
CORRELATED = 0.4


def describe_grippers(state: Part | None, command: Part | None, position: Part | None) -> None:
    """Set `open`, `closed` and `unit` of both parts; `position` is the same arm's, by which lifting is seen."""
    parts = [part for part in (state, command) if part is not None]
    for part in parts:
        part.facts |= dict.fromkeys(("open", "closed"), nothing("there is no recording"))
    recorded = [part for part in parts if part.episodes]
    if not recorded:
        return
    heights = position.episodes if position is not None and position.episodes else None
    both = state is not None and command is not None and len(recorded) == 2
    directions = {id(part): _direction(part, heights) for part in recorded}
    sense = 0
    if both:
        assert state is not None
        assert command is not None
        together = gripper.polarity(state.episodes, command.episodes, heights)
        directions[id(command)] = _as_direction(together, command)
        sense = _sense(state, command)
        if sense:
            first, second = directions[id(state)], _turned(directions[id(command)], sense)
            agreed = combine(first, second)
            votes = ", ".join(f"{name} {vote:+.2f}" for name, vote in together.numbers.get("votes", {}).items())
            run = "alike" if sense > 0 else "against each other"
            note = f"state and command run {run}; is low the closed end, from -1 (no) to +1 (yes): {votes}"
            agreed = Guess(value=agreed.value, confidence=agreed.confidence, evidence=note, numbers=together.numbers)
            directions = {id(state): agreed, id(command): _turned(agreed, sense)}
        else:
            note = "state and command do not move together"
            directions = {key: weakened(guess, 0.5, note) for key, guess in directions.items()}
    for part in recorded:
        low, high, certain = _ends(part, command if both and part is state else None)
        closed = directions[id(part)]
        for name in ("open", "closed"):
            at_low = (closed.value == "low") == (name == "closed")
            guess = Guess(
                value=None if closed.value is None else (low if at_low else high),
                confidence=closed.confidence,
                evidence=closed.evidence,
                numbers=closed.numbers,
            )
            part.facts[name] = guess if certain else weakened(guess, 0.8, "it may never have reached its ends")
    if both:
        _share_unit(state, command, sense)


def gripper_unit(episodes: Sequence[FloatArray]) -> Guess | None:
    """The unit of one number [L, 1] by its range; what matters is open and closed, the unit is for people."""
    if not episodes:
        return None
    values = np.concatenate(episodes)
    low, high = float(values.min()), float(values.max())
    evidence = f"runs from {low:.3g} to {high:.3g}"
    for ends, unit, confidence in RANGES:
        span = ends[1] - ends[0]
        if abs(low - ends[0]) < 0.03 * span and abs(high - ends[1]) < 0.03 * span:
            return Guess(value=unit, confidence=confidence, evidence=evidence)
    if low > -1e-3 and 0.015 < high < 0.16:
        return Guess(value="m", confidence=0.85, evidence=f"{evidence}, a jaw's opening in metres")
    if low > -0.05 and abs(high - 1.0) < 0.02:
        return Guess(value="normalized", confidence=0.75, evidence=evidence)
    if low > -5 and abs(high - 100.0) < 2:
        return Guess(value="percent", confidence=0.7, evidence=evidence)
    if low > -1 and 15 < high < 160:
        return Guess(value="mm", confidence=0.4, evidence=f"{evidence}; millimetres, degrees or per cent")
    return Guess(value=None, confidence=0.0, evidence=evidence)


def _direction(part: Part, heights: list[FloatArray] | None) -> Guess:
    return _as_direction(gripper.polarity(part.episodes, None, heights), part)


def _as_direction(guess: Guess, part: Part) -> Guess:
    """Which end is closed, `low` or `high`, instead of the values."""
    value = None
    if guess.value is not None:
        value = "low" if guess.value["closed"] < guess.value["open"] else "high"
    return Guess(value=value, confidence=guess.confidence, evidence=guess.evidence, numbers=guess.numbers)


def _turned(guess: Guess, sense: int) -> Guess:
    """The same answer on a scale that runs the other way, where `sense` is below 0."""
    if sense > 0 or guess.value is None:
        return guess
    other = "high" if guess.value == "low" else "low"
    return Guess(value=other, confidence=guess.confidence, evidence=guess.evidence, numbers=guess.numbers)


def _sense(state: Part, command: Part) -> int:
    """+1 or -1: whether the state grows or falls with its command, some ticks later; 0 where it does neither."""
    best = 0.0
    for lag in (0, 2, 5, 10):
        pairs = [
            (now[lag:, 0], told[: len(told) - lag, 0])
            for now, told in zip(state.episodes, command.episodes, strict=True)
            if len(now) > lag + 2
        ]
        if not pairs:
            continue
        now, told = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
        if now.std() < 1e-9 or told.std() < 1e-9:
            continue
        found = float(np.corrcoef(now, told)[0, 1])
        best = found if abs(found) > abs(best) else best
    return int(np.sign(best)) if abs(best) > CORRELATED else 0


def _ends(part: Part, command: Part | None) -> tuple[float, float, bool]:
    """Low and high end, and whether both are surely the gripper's own."""
    seen = gripper.stroke(part.episodes)
    size = seen.size
    if command is not None:
        told = gripper.stroke(command.episodes)
        near = [abs(a - b) < SAME_END * told.size for a, b in ((seen.low, told.low), (seen.high, told.high))]
        inside = told.low - SAME_END * told.size < seen.low and seen.high < told.high + SAME_END * told.size
        if any(near) and inside and told.size > 0:
            return _tidy(told.low, told.size), _tidy(told.high, told.size), True
    low, high = _tidy(seen.low, size), _tidy(seen.high, size)
    return low, high, (low in TIDY and high in TIDY) or _two_valued(part, seen)


def _two_valued(part: Part, seen: gripper.Stroke) -> bool:
    values = np.concatenate(part.episodes)[:, 0]
    away = np.minimum(np.abs(values - seen.low), np.abs(values - seen.high))
    return bool((away < 0.02 * seen.size).mean() > 0.9)


def _tidy(value: float, size: float) -> float:
    """The round number that a recorded end stands for."""
    nearest = min(TIDY, key=lambda end: abs(value - end))
    return nearest if abs(value - nearest) < 0.03 * size else float(f"{value:.4g}")


def _share_unit(state: Part | None, command: Part | None, sense: int) -> None:
    """A state that runs between the same ends as its command is in the command's unit."""
    assert state is not None
    assert command is not None
    ends = [part.facts[name].value for part in (state, command) for name in ("open", "closed")]
    if None in ends or sense < 0:
        return
    stroke = abs(ends[2] - ends[3])
    if max(abs(ends[0] - ends[2]), abs(ends[1] - ends[3])) < SAME_END * stroke:
        best = max((state, command), key=lambda part: part.facts["unit"].confidence)
        for part in (state, command):
            part.facts["unit"] = best.facts["unit"]
