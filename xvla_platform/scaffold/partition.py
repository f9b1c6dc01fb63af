"""Cutting a column without names: which of the usual layouts its numbers fit.

In: the numbers of one column. Out: segments with a confidence, or None where no layout stands out. Unit quaternions,
orthonormal 6D rotations and matrices betray themselves, a gripper dwells at its ends, an angle that jumps by a full
turn is an angle of a pose; joints and Euler angles that do none of this look alike, and then nothing is claimed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xvla_platform.data.reader import FloatArray
from xvla_platform.measure.guess import Guess
from xvla_platform.scaffold.names import Segment, segments_of

# Usual layouts by width; `g2` is a pair of fingers. Two arms are parted by `|`.
ARM_LAYOUTS = (
    "p3 r3",
    "p3 q4",
    "p3 s6",
    "p3 m9",
    "p3 r3 g1",
    "p3 q4 g1",
    "p3 s6 g1",
    "p3 m9 g1",
    "p3 r3 g2",
    "p3 q4 g2",
    "j5 g1",
    "j6",
    "j6 g1",
    "j7",
    "j7 g1",
    "j7 g2",
    "q4",
    "g1",
)
LETTERS = {
    "p": "position",
    "r": "rotation",
    "q": "quaternion",
    "s": "6D rotation",
    "m": "rotation matrix",
    "j": "joints",
    "g": "gripper",
}
BENT_RAD, BENT_DEG = 0.9, 50.0
CLEAR = 3.0  # log-odds by which the best layout must lead to be taken for sure
LEADS = 1.2


@dataclass(frozen=True, kw_only=True)
class _Scored:
    layout: str
    score: float
    reasons: tuple[str, ...]


def partition(episodes: Sequence[FloatArray], *, like: Sequence[Segment] | None = None) -> list[Segment] | None:
    """The column as the layout its numbers fit best.

    Args:
        episodes: Per episode [L, width].
        like: Segments of another vector of the same width (the state, when an action is cut), which it may repeat.
    """
    values = np.concatenate(episodes) if episodes else np.zeros((0, 1))
    if len(values) < 20 or not np.isfinite(values).all():
        return None
    if like is not None and _repeats(like, values):
        note = "as the state of the same width is cut"
        return [replace(part, facts={}, confidence=min(part.confidence, 0.85), evidence=note) for part in like]
    dead = _padding(values)
    used = [dim for dim in range(values.shape[1]) if dim not in dead]
    scored = [_score(layout, episodes, values, used) for layout in _layouts(len(used))]
    ranked = sorted((item for item in scored if item is not None), key=lambda item: -item.score)
    if not ranked:
        return None
    lead = ranked[0].score - (ranked[1].score if len(ranked) > 1 else 0.0)
    lead = min(lead, ranked[0].score)
    if lead < LEADS:
        return None
    confidence = 0.92 if lead >= CLEAR else 0.7
    evidence = f"unnamed; its numbers fit {_in_words(ranked[0].layout)}: {', '.join(ranked[0].reasons)}"
    if "|" in ranked[0].layout:
        confidence = min(confidence, 0.8)  # that the left arm comes first is a habit
        evidence += "; the first arm is taken for the left one"
    return _spread(segments_of(ranked[0].layout, confidence, evidence), used, values)


def gripper_likeness(column: FloatArray) -> tuple[float, str]:
    """How much one number [N] behaves like a gripper, as log-odds, and the reason."""
    low, high = float(column.min()), float(column.max())
    if high - low < 1e-9:
        return -1.0, "never changes"
    at_ends = float(((column - low < 0.03 * (high - low)) | (high - column < 0.03 * (high - low))).mean())
    tidy = any(
        abs(low - a) < 0.02 * abs(b - a) and abs(high - b) < 0.02 * abs(b - a)
        for a, b in ((0, 1), (-1, 1), (0, 100), (0, 255), (0, 1000))
    )
    score = 4.0 * (at_ends - 0.45) + (1.0 if tidy else 0.0)
    return float(np.clip(score, -2.0, 3.0)), f"the last number is within 3 % of its ends in {at_ends:.0%} of frames"


def _layouts(width: int) -> list[str]:
    single = [layout for layout in ARM_LAYOUTS if _size(layout) == width]
    double = [f"{layout} | {layout}" for layout in ARM_LAYOUTS if 2 * _size(layout) == width and _size(layout) > 4]
    return single + double


def _in_words(layout: str) -> str:
    """`p3 r3 g1` as a person reads it: position (3), rotation (3), gripper (1)."""
    arms = layout.split(" | ")
    return "; then ".join(", ".join(f"{LETTERS[token[0]]} ({token[1:]})" for token in arm.split()) for arm in arms)


def _size(layout: str) -> int:
    return sum(int(token[1:]) for token in layout.replace("|", " ").split())


def _padding(values: FloatArray) -> set[int]:
    """Dims that are zero throughout."""
    return {dim for dim in range(values.shape[1]) if not values[:, dim].any()}


def _score(layout: str, episodes: Sequence[FloatArray], values: FloatArray, used: Sequence[int]) -> _Scored | None:
    """Log-odds of a layout; None where it is impossible."""
    score, reasons, start = 0.0, [], 0
    for token in layout.replace("|", " ").split():
        dims, letter = list(used[start : start + int(token[1:])]), token[0]
        start += len(dims)
        if letter != "g" and dims != list(range(dims[0], dims[0] + len(dims))):
            return None
        verdict = _verdict(letter, dims, episodes, values)
        if verdict is None:
            return None
        score += verdict[0]
        if verdict[1]:
            reasons.append(verdict[1])
    return _Scored(layout=layout, score=score, reasons=tuple(dict.fromkeys(reasons)))


def _verdict(
    letter: str, dims: Sequence[int], episodes: Sequence[FloatArray], values: FloatArray
) -> tuple[float, str] | None:
    part = values[:, dims]
    if letter == "q":
        return (5.0, "four numbers of length 1") if _unit_length(part) else None
    if letter == "s":
        return (6.0, "six numbers that are two orthonormal columns") if _orthonormal_pair(part) else None
    if letter == "m":
        rows = part.reshape(-1, 3, 3)
        whole = np.abs(rows @ rows.transpose(0, 2, 1) - np.eye(3)).max() < 2e-3
        return (8.0, "nine numbers that are a rotation matrix") if whole else None
    if letter == "g":
        return gripper_likeness(part[:, 0])
    if letter == "r":
        return _rotation_likeness([episode[:, dims] for episode in episodes])
    if letter == "p":
        return _position_likeness(part)
    return _joint_likeness([episode[:, dims] for episode in episodes])


def _unit_length(part: FloatArray) -> bool:
    return bool(np.abs(np.linalg.norm(part, axis=1) - 1.0).max() < 5e-3)


def _orthonormal_pair(part: FloatArray) -> bool:
    for first, second in ((part[:, :3], part[:, 3:]), (part[:, 0::2], part[:, 1::2])):
        skew = np.abs((first * second).sum(axis=1)).max()
        if _unit_length(first) and _unit_length(second) and skew < 5e-3:
            return True
    return False


def _turns(episodes: Sequence[FloatArray]) -> tuple[int, bool, float]:
    """Full-turn jumps between frames, whether the unit is degrees, and the share of frames near half a turn."""
    jumps = {
        turn: sum(int((np.abs(np.abs(np.diff(part, axis=0)) - turn) < 0.1 * turn).sum()) for part in episodes)
        for turn in (2 * np.pi, 360.0)
    }
    values = np.concatenate(episodes)
    degrees = float(np.abs(values).max()) > 8.0
    half = 180.0 if degrees else np.pi
    if np.abs(values).max() > half * 1.05 and not degrees:
        half = np.inf
    single = (np.abs(np.abs(values) - half) < 0.06 * half).any(axis=1).mean()
    whole = (np.abs(np.linalg.norm(values, axis=1) - half) < 0.06 * half).mean()
    return jumps[360.0 if degrees else 2 * np.pi], degrees, float(max(single, whole))


def _rotation_likeness(episodes: Sequence[FloatArray]) -> tuple[float, str] | None:
    jumps, degrees, near_half = _turns(episodes)
    values = np.concatenate(episodes)
    if np.abs(values).max() > (365.0 if degrees else 2.05 * np.pi):
        return None
    if jumps:
        return 2.5, f"angles that jump by a full turn {jumps} times"
    if near_half > 0.5:
        return 2.0, f"a rotation near half a turn in {near_half:.0%} of frames, as a tool that points down has"
    return 0.0, ""


def _position_likeness(part: FloatArray) -> tuple[float, str] | None:
    reach = float(np.abs(part).max())
    if reach > 365.0:
        return 2.0, f"three numbers of up to {reach:.0f}, too large for angles"
    if reach > 2.5:
        return -1.0, ""
    return 0.3, ""


def _joint_likeness(episodes: Sequence[FloatArray]) -> tuple[float, str] | None:
    values = np.concatenate(episodes)
    jumps, degrees, _ = _turns(episodes)
    reach = float(np.abs(values).max())
    if reach > 400.0 or (jumps and reach < (370.0 if degrees else 6.5)):
        return None
    spread = values.std(axis=0)
    alike = float(spread.min() / max(spread.max(), 1e-12))
    score = 0.2
    if reach > 1.6 and alike > 0.05:
        score += 0.6
    if len(spread) > 5 and np.abs(np.median(values, axis=0)).max() < (BENT_DEG if degrees else BENT_RAD):
        score -= 1.3  # an arm that works on a table is bent; with joints like these it would be stretched out
    return score, "angles that all move" if reach > 1.6 else ""


def _repeats(like: Sequence[Segment], values: FloatArray) -> bool:
    """Whether an action vector can be cut as the state is: rotations that need a shape must have it."""
    for part in like:
        numbers = values[:, part.start : part.stop]
        if part.kind == "rotation" and part.size == 4 and not _unit_length(numbers):
            return False
        if part.kind == "rotation" and part.size == 6 and not _orthonormal_pair(numbers):
            return False
        if part.kind == "gripper" and gripper_likeness(numbers[:, 0])[0] < 0:
            return False
    return sum(part.size for part in like) == values.shape[1]


def _spread(segments: Sequence[Segment], used: Sequence[int], values: FloatArray) -> list[Segment]:
    """Segments over the used dims, moved to their places in the column, with the unused dims ignored between."""
    out: list[Segment] = []
    for part in segments:
        start = used[part.start]
        if start > (out[-1].stop if out else 0):
            out.append(_ignored(out[-1].stop if out else 0, start))
        out.append(replace(part, start=start))
    if out and out[-1].stop < values.shape[1]:
        out.append(_ignored(out[-1].stop, values.shape[1]))
    return out


def _ignored(start: int, stop: int) -> Segment:
    return Segment(
        start=start,
        size=stop - start,
        kind="ignored",
        facts={"value": Guess(value=0.0, confidence=0.85, evidence="zero throughout")},
        confidence=0.8,
        evidence="zero throughout",
    )
