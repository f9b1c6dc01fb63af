"""What an action is, seen against the states: absolute or relative, in which axes, how scaled and how late.

In: canonical states and actions, one array an episode: [L, n] positions or joints, or [L, 3, 3] rotations. Out:
`Guess`es. An action is what the controller was told, so the state follows it some ticks later. Each reading is
tried as the law "action predicts what the state does k ticks on", for several k, and the share of the actions'
variance it explains is compared.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from xvla_platform.data.reader import FloatArray
from xvla_platform.measure.guess import Guess

EARLIEST, LATEST = -15, 24  # ticks; an action before 0 describes where the robot has been
GOOD, GAP = 0.7, 0.25  # share of the variance a reading explains when it is right, and its lead over the next
EPISODES = 24  # enough to tell readings apart
STILL = 1e-9


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How one reading explains the actions: the best lag in ticks, its gain, and the share of variance."""

    share: float
    lag: int
    gain: float


def reference(
    states: Sequence[FloatArray], actions: Sequence[FloatArray], kind: str, turns: Sequence[FloatArray] | None = None
) -> Guess:
    """`absolute`, `relative` or `relative_to_first`, with `numbers` `lag_ticks`, `gain`, `axes` and the shares.

    Args:
        states: Per episode [L, n], or [L, 3, 3] for `kind` rotation; actions alike.
        turns: Rotations [L, 3, 3] of the same arm, by which a relative position in tool axes is recognised.
    """
    if not states or min(len(state) for state in states) < 3:
        return Guess(value=None, confidence=0.0, evidence="too few frames")
    fits = fit_readings(states, actions, kind, turns)
    shares = {name: fit.share for name, fit in fits.items()}
    best = max(fits, key=lambda name: fits[name].share)
    value, _, axes = best.partition(":")
    rival = max((fit.share for name, fit in fits.items() if name.partition(":")[0] != value), default=0.0)
    fit = fits[best]
    numbers = {"lag_ticks": fit.lag, "gain": fit.gain, "axes": axes or None, "shares": shares}
    lead = fit.share - max(rival, 0.0)
    if fit.share < 0.4 or lead < 0.05:
        return Guess(
            value=None,
            confidence=0.0,
            evidence=f"no reading explains the actions clearly ({value} {fit.share:.0%}, next {max(rival, 0.0):.0%})",
            numbers=numbers,
        )
    sure = min(1.0, fit.share / GOOD) * min(1.0, lead / GAP)
    return Guess(
        value=value,
        confidence=float(min(0.99, 0.5 + 0.49 * sure)),
        evidence=f"read as {value}, the state {fit.lag} ticks on explains {fit.share:.0%} of the actions, "
        f"else {max(rival, 0.0):.0%}",
        numbers=numbers,
    )


def axes(
    states: Sequence[FloatArray],
    actions: Sequence[FloatArray],
    kind: str,
    turns: Sequence[FloatArray] | None,
    reference: str = "relative",
) -> Guess:
    """`frame` or `tool` of a relative (or `relative_to_first`) position or rotation."""
    fits = {
        name.partition(":")[2]: fit
        for name, fit in fit_readings(states, actions, kind, turns).items()
        if name.startswith(f"{reference}:")
    }
    if set(fits) != {"frame", "tool"}:
        return Guess(value=None, confidence=0.0, evidence="no rotation of the same arm is recorded")
    best = max(fits, key=lambda name: fits[name].share)
    other = min(fit.share for fit in fits.values())
    lead = fits[best].share - max(0.0, other)
    sure = min(1.0, fits[best].share / GOOD) * min(1.0, lead / GAP)
    return Guess(
        value=best if lead > 0.03 else None,
        confidence=float(0.4 + 0.55 * sure) if lead > 0.03 else 0.0,
        evidence=f"in {best} axes the state's change explains {fits[best].share:.0%} of the actions, else {other:.0%}",
        numbers={name: fit.share for name, fit in fits.items()},
    )


def fit_readings(
    states: Sequence[FloatArray], actions: Sequence[FloatArray], kind: str, turns: Sequence[FloatArray] | None = None
) -> dict[str, Fit]:
    """Every reading's best fit: `absolute`, `relative:frame`, `relative:tool`, `relative_to_first:…` (joints: no axes).

    A relative reading's gain is free, as controllers reach only part of a step; an absolute one's is 1.
    """
    states, actions = states[:EPISODES], actions[:EPISODES]
    found = {"absolute": _best(lambda lag: _absolute(states, actions, lag))}
    senses = ("frame", "tool") if kind == "rotation" or (kind == "position" and turns is not None) else ("",)
    for sense in senses:
        suffix = f":{sense}" if sense else (":frame" if kind == "position" else "")
        for name, first in (("relative", False), ("relative_to_first", True)):
            found[f"{name}{suffix}"] = _best(
                functools.partial(_relative, states, actions, sense, first, turns), EARLIEST if first else 1
            )
    return found


def lag_ticks(states: Sequence[FloatArray], actions: Sequence[FloatArray]) -> Guess:
    """How many ticks after an absolute action the state is nearest to it; negative if it was there before."""
    fit = _best(lambda lag: _absolute(states, actions, lag))
    shares = {lag: _absolute(states, actions, lag)[0] for lag in (fit.lag - 2, fit.lag, fit.lag + 2)}
    contrast = fit.share - max(shares[fit.lag - 2], shares[fit.lag + 2])
    return Guess(
        value=fit.lag,
        confidence=float(np.clip(fit.share * (0.6 + 40 * contrast), 0.0, 0.97)),
        evidence=f"the state is nearest to the action {fit.lag} ticks on ({fit.share:.1%} of the variance)",
        numbers={"share": fit.share, "contrast": contrast},
    )


def gain_of(states: Sequence[FloatArray], actions: Sequence[FloatArray]) -> tuple[float, float]:
    """Share of the variance of absolute actions [L, n] explained by gain times state plus a constant, and the gain."""
    best = (0.0, 1.0)
    for lag in range(0, 13, 2):
        state, action = _pairs(states, actions, lag)
        if len(state) < 3:
            continue
        state, action = state - state.mean(axis=0), action - action.mean(axis=0)
        total, power = float((action**2).sum()), float((state**2).sum())
        if total > STILL**2 and power > STILL**2:
            gain = float((state * action).sum()) / power
            best = max(best, (1 - float(((action - gain * state) ** 2).sum()) / total, gain))
    return best


def equal_share(states: Sequence[FloatArray], actions: Sequence[FloatArray]) -> FloatArray:
    """Per episode, the share of the moving frames whose action is the state of the same frame; NaN if none moves."""
    shares = []
    for state, action in zip(states, actions, strict=True):
        flat_state, flat_action = state.reshape(len(state), -1), action.reshape(len(action), -1)
        spread = max(float(np.ptp(flat_state, axis=0).max(initial=0.0)), STILL)
        moving = np.zeros(len(state), dtype=bool)
        moving[:-1] = np.abs(np.diff(flat_state, axis=0)).max(axis=1) > 1e-5 * spread
        same = np.abs(flat_action - flat_state).max(axis=1) <= 1e-6 * spread + 1e-12
        shares.append(float(same[moving].mean()) if moving.any() else np.nan)
    return np.asarray(shares)


def closeness_to_state(states: Sequence[FloatArray], actions: Sequence[FloatArray]) -> float:
    """How far actions are from the states of the same frames, against the states' motion in one tick (both RMS)."""
    apart = motion = 0.0
    for state, action in zip(states, actions, strict=True):
        if len(state) > 1:
            apart += float(((action - state)[:-1] ** 2).sum())
            motion += float((np.diff(state, axis=0) ** 2).sum())
    return float(np.sqrt(apart / motion)) if motion > STILL**2 else float("inf")


def frame_turn(
    states: Sequence[FloatArray], actions: Sequence[FloatArray], lag: int
) -> tuple[FloatArray, float, float]:
    """The rotation or reflection Q [3, 3] for which action - mean = Q (state - mean) fits best, and two shares.

    The shares of the actions' variance explained with Q and without any turn; positions [L, 3].
    """
    state, action = _pairs(states, actions, lag)
    state, action = state - state.mean(axis=0), action - action.mean(axis=0)
    total = float((action**2).sum())
    if total < STILL:
        return np.eye(3), 0.0, 0.0
    left, _, right = np.linalg.svd(action.T @ state)
    turn = left @ right
    turned = 1 - float(((action - state @ turn.T) ** 2).sum()) / total
    straight = 1 - float(((action - state) ** 2).sum()) / total
    return turn, turned, straight


def _best(try_lag: Callable[[int], tuple[float, float]], earliest: int = EARLIEST) -> Fit:
    """The lag that explains most: motions are smooth, so every third lag is tried, then the best one's neighbours."""
    tried = {lag: try_lag(lag) for lag in range(earliest, LATEST + 1, 3)}
    near = max(tried, key=lambda lag: tried[lag][0])
    tried |= {lag: try_lag(lag) for lag in range(max(earliest, near - 2), near + 3) if lag not in tried}
    best = max(tried, key=lambda lag: (tried[lag][0], -abs(lag)))
    return Fit(share=tried[best][0], lag=best, gain=tried[best][1])


def _absolute(states: Sequence[FloatArray], actions: Sequence[FloatArray], lag: int) -> tuple[float, float]:
    """Share of the actions' variance explained by the state itself; rotations are compared entry by entry."""
    state, action = _pairs(states, actions, lag)
    if len(state) < 3:
        return 0.0, 1.0
    total = float(((action - action.mean(axis=0)) ** 2).sum())
    return (1 - float(((action - state) ** 2).sum()) / total if total > STILL else 0.0), 1.0


def _relative(
    states: Sequence[FloatArray],
    actions: Sequence[FloatArray],
    sense: str,
    first: bool,
    turns: Sequence[FloatArray] | None,
    lag: int,
) -> tuple[float, float]:
    """Share explained by the state's change over `lag` ticks (or since the first frame), and the gain."""
    changes, given = [], []
    for number, (state, action) in enumerate(zip(states, actions, strict=True)):
        if len(state) <= abs(lag) + 1:
            continue
        start, stop = max(0, -lag), len(state) - max(0, lag)
        now = np.broadcast_to(state[:1], state[start:stop].shape) if first else state[start:stop]
        later, told = state[start + lag : stop + lag], action[start:stop]
        if state.ndim == 3:
            before = np.swapaxes(now, -1, -2)
            change = later @ before if sense == "frame" else before @ later
            if not first:
                change, told = _axial(change), _axial(told)
        else:
            change = later - now
            if sense == "tool":
                assert turns is not None
                turn = turns[number]
                by = np.broadcast_to(turn[:1], turn[start:stop].shape) if first else turn[start:stop]
                change = np.einsum("lji,lj->li", by, change)
        changes.append(change.reshape(len(change), -1))
        given.append(told.reshape(len(told), -1))
    if not changes:
        return 0.0, 1.0
    x, y = np.concatenate(changes), np.concatenate(given)
    middle = y.mean(axis=0) if first and states[0].ndim == 3 else 0.0
    total, power = float(((y - middle) ** 2).sum()), float((x**2).sum())
    if total < STILL**2 or power < STILL**2:
        return 0.0, 1.0
    gain = 1.0 if first else float((x * y).sum()) / power
    return 1 - float(((y - gain * x) ** 2).sum()) / total, gain


def _axial(matrices: FloatArray) -> FloatArray:
    """Axis times sine of the angle, [L, 3] of rotations [L, 3, 3]: for small turns their rotation vectors."""
    skew = matrices - np.swapaxes(matrices, -1, -2)
    return np.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=-1) / 2


def _pairs(states: Sequence[FloatArray], actions: Sequence[FloatArray], lag: int) -> tuple[FloatArray, FloatArray]:
    """States `lag` ticks after the actions they are compared with, over all episodes, each as a flat row."""
    later, told = [], []
    for state, action in zip(states, actions, strict=True):
        if len(state) > abs(lag) + 1:
            start, stop = max(0, -lag), len(state) - max(0, lag)
            later.append(state[start + lag : stop + lag].reshape(stop - start, -1))
            told.append(action[start:stop].reshape(stop - start, -1))
    if not later:
        return np.zeros((0, 1)), np.zeros((0, 1))
    return np.concatenate(later), np.concatenate(told)
