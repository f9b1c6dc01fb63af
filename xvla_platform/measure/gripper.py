"""A gripper's open and closed value, by what grippers do: start open, close low, then lift, and stop at the object.

In: recorded values, one array [L, 1] an episode. Out: a `Guess` of {"open": x, "closed": y}.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xvla_platform.data.reader import FloatArray
from xvla_platform.measure.guess import Guess

STILL = 1e-9
BY_HABIT = 0.85
MARGIN = 0.25  # of the stroke: nearer than this to an end counts as being there


@dataclass(frozen=True, kw_only=True)
class Stroke:
    """The recorded ends of a gripper: 0.5th and 99.5th percentile."""

    low: float
    high: float

    @property
    def size(self) -> float:
        return self.high - self.low


def stroke(episodes: Sequence[FloatArray]) -> Stroke:
    """Lowest and highest value of [L, 1], without the outermost half per cent."""
    values = np.concatenate([episode[:, 0] for episode in episodes]) if episodes else np.zeros(0)
    values = values[np.isfinite(values)]
    if not len(values):
        return Stroke(low=0.0, high=0.0)
    low, high = np.percentile(values, [0.5, 99.5])
    return Stroke(low=float(low), high=float(high))


def polarity(
    states: Sequence[FloatArray],
    actions: Sequence[FloatArray] | None = None,
    positions: Sequence[FloatArray] | None = None,
) -> Guess:
    """Open and closed value of a gripper field: of the actions where given, else of the states.

    Args:
        states: Measured values [L, 1].
        actions: Commanded values [L, 1] of the same frames, maybe with other ends and another polarity.
        positions: The hand's positions [L, 3], z up.
    """
    asked = actions if actions is not None else states
    ends = stroke(asked)
    if ends.size < STILL:
        return Guess(value=None, confidence=0.0, evidence="the gripper never moves", numbers={"low": ends.low})
    votes: dict[str, float] = {}
    votes["starts"] = start_vote(asked, ends)
    if positions is not None:
        votes["lifts"] = lift_vote(asked, positions, ends)
    if actions is not None:
        votes["stops short"] = _short_vote(states, actions, ends)
    # Each vote is for "low is closed" (+1) or "high is closed" (-1); what starts open is the strongest habit.
    weights = {"starts": 2.2, "lifts": 2.0, "stops short": 1.6}
    total = sum(weights[name] * vote for name, vote in votes.items())
    confidence = float(1 / (1 + np.exp(-abs(total))))
    # Putting down looks like picking up with the ends exchanged; only what the hand holds tells them apart.
    if votes.get("stops short", 0.0) * total <= 0:
        confidence = min(confidence, BY_HABIT)
    value = {"open": ends.high, "closed": ends.low} if total > 0 else {"open": ends.low, "closed": ends.high}
    said = ", ".join(f"{name} {vote:+.2f}" for name, vote in votes.items())
    return Guess(
        value=value if confidence > 0.55 else None,
        confidence=confidence if confidence > 0.55 else 0.0,
        evidence=f"{value['closed']:.3g} is closed by how episodes start, where the hand closes and where the "
        f"gripper stops (is low the closed end, from -1 (no) to +1 (yes): {said})",
        numbers={"low": ends.low, "high": ends.high, "votes": votes},
    )


def together(states: Sequence[FloatArray], actions: Sequence[FloatArray], lag: int = 3) -> float:
    """Correlation (-1 to 1) of the measured gripper with the command `lag` ticks before; 0 where either is still."""
    later = [state[lag:, 0] for state in states if len(state) > lag]
    told = [action[:-lag, 0] for action in actions if len(action) > lag]
    if not later:
        return 0.0
    x, y = np.concatenate(later), np.concatenate(told)
    if x.std() < STILL or y.std() < STILL:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def start_vote(episodes: Sequence[FloatArray], ends: Stroke) -> float:
    """+1 if every episode that uses the gripper starts at the high end, -1 if every one starts at the low end."""
    votes = [vote for vote in (start_end(episode, ends) for episode in episodes) if vote]
    return float(np.mean(votes)) if votes else 0.0


def start_end(episode: FloatArray, ends: Stroke) -> int:
    """+1 or -1: the end an episode [L, 1] starts at; 0 if it starts between or never moves the gripper."""
    values = episode[np.isfinite(episode[:, 0]), 0]
    if len(values) < 2 or np.ptp(values) < MARGIN * ends.size:
        return 0
    share = (float(np.median(values[:3])) - ends.low) / ends.size
    return 1 if share > 1 - MARGIN else -1 if share < MARGIN else 0


def lift_vote(episodes: Sequence[FloatArray], positions: Sequence[FloatArray], ends: Stroke) -> float:
    """+1 if the first switch to the low end happens near the hand's lowest point and is followed by a rise.

    -1 if that is true of the switch to the high end. Each episode is counted once for each direction.
    """
    scores = []
    for values, position in zip(episodes, positions, strict=True):
        high = values[:, 0] > ends.low + ends.size / 2
        height = position[:, 2]
        span = float(np.ptp(height))
        if span < STILL:
            continue
        down = np.flatnonzero(high[:-1] & ~high[1:])
        up = np.flatnonzero(~high[:-1] & high[1:])
        for first, sign in ((down, 1.0), (up, -1.0)):
            if len(first):
                at = int(first[0]) + 1
                low_now = (height[at] - height.min()) / span < 0.3
                rises = (height[at:].max() - height[at]) / span > 0.3
                came_down = (height[:at].max() - height[at]) / span > 0.3
                scores.append(sign if low_now and rises and came_down else 0.0)
    used = [score for score in scores if score]
    return float(np.sum(used) / max(1, len(scores))) if used else 0.0


def _short_vote(states: Sequence[FloatArray], actions: Sequence[FloatArray], ends: Stroke) -> float:
    """Told to close, a gripper stops at the object; told to open, it reaches the end.

    +1 if, told the low end, the measured value stays further from its own end than when told the high end.
    """
    state = np.concatenate([values[:, 0] for values in states])
    action = np.concatenate([values[:, 0] for values in actions])
    told_low, told_high = action < ends.low + MARGIN * ends.size, action > ends.high - MARGIN * ends.size
    if told_low.sum() < 5 or told_high.sum() < 5:
        return 0.0
    # Settled: the same command for a while.
    low_value, high_value = np.median(state[told_low]), np.median(state[told_high])
    spread = abs(high_value - low_value)
    if spread < STILL:
        return 0.0
    variation_low, variation_high = (
        float(np.subtract(*np.percentile(state[told], [75, 25]))) for told in (told_low, told_high)
    )
    return float(np.clip((variation_low - variation_high) / (0.05 * spread + variation_low + variation_high), -1, 1))
