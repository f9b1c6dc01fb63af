"""What a camera is, from how its image moves with the hand: on the wrist or fixed, main, mirrored, late.

In: footage (a sample of frames beside the hands' motion). Out: one `Guess` a camera and question. Nothing
declared about the cameras is used, so that `check` can compare it and `scaffold` can write it. The geometry
is explained in `cameras_flow`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xvla_platform.data.reader import DatasetReader, FloatArray
from xvla_platform.measure.cameras_flow import (
    LAGS,
    Reduced,
    System,
    arms,
    build_system,
    growth,
    reduce_stream,
    resamples,
    view_direction,
)
from xvla_platform.measure.cameras_footage import Footage, Hands, look
from xvla_platform.measure.guess import LIKELY, Guess

FOLLOWS = 0.08  # share of the image's change that the hand's motion must explain before anything is concluded
SPREAD_BETWEEN = 0.235  # RMS extent of the moving part: an arm in view lies below, a moving view above
MAIN_NAMES = ("front", "main", "agentview", "top", "high", "exterior", "ext", "third", "base", "scene", "head", "image")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One camera's image motion, solved against the arm that explains it best.

    Attributes:
        reduced: Episode to its reduced clip.
        arm: Index of that arm; None where no motion was found at all.
        frame, tool: The solved system along fixed axes (with every lag) and along the tool's axes; None where
            poses are not known.
        any: `frame`, or the system in whatever numbers there are.
        spread: Median RMS extent of the moving part at the fastest steps, as a share of the longer side.
    """

    key: str
    reduced: dict[int, Reduced]
    arm: int | None
    frame: System | None
    tool: System | None
    any: System | None
    spread: float

    @property
    def follows(self) -> float:
        """Share of the image's change that the hand's motion explains, at the best lag."""
        if self.any is None:
            return 0.0
        return max(self.any.pooled(self.any.solve(lag=lag), lag=lag) for lag in LAGS)

    @property
    def known(self) -> bool:
        return self.any is not None and self.follows >= FOLLOWS


def watch(footage: Footage) -> dict[str, Seen]:
    """Reduce every camera's clips and set up its systems; everything else here starts from this."""
    return {key: _watch(footage, key) for key in footage.keys}


def mounts(
    reader: DatasetReader, keys: Sequence[str], poses: Hands, *, seen: Mapping[str, Seen] | None = None
) -> dict[str, Guess]:
    """Per camera, whether it sits on the `wrist` or is `fixed`; None where the image does not tell.

    Args:
        poses: Episode to its arms (`cameras_footage.hands_of`, or `Hand` of any numbers that move with the arm).
        seen: What `watch` gave, where it was already computed; then nothing is decoded.
    """
    seen = watch(look(reader, keys, poses)) if seen is None else seen
    return {key: mount(seen[key]) for key in keys}


def main_view(
    reader: DatasetReader, keys: Sequence[str], poses: Hands, *, seen: Mapping[str, Seen] | None = None
) -> Guess:
    """Which key is the main view: the one fixed camera that sees the arm; by name where there are several."""
    if len(keys) == 1:
        return Guess(value=keys[0], confidence=1.0, evidence="it is the only camera")
    seen = watch(look(reader, keys, poses)) if seen is None else seen
    places = {key: mount(seen[key]) for key in keys}
    on_wrist = [key for key in keys if places[key].value == "wrist" and places[key].confidence >= LIKELY]
    others = [key for key in keys if key not in on_wrist]
    numbers = {key: {"mount": places[key].value, "confidence": places[key].confidence} for key in keys}
    if not others:
        best = max(keys, key=_name_rank)
        return Guess(value=best, confidence=0.3, evidence="every camera moves with a hand", numbers=numbers)
    if len(others) == 1:
        confidence = min([0.97, *(places[key].confidence for key in keys)])
        confidence = max(confidence, min(places[key].confidence for key in on_wrist))
        return Guess(
            value=others[0],
            confidence=confidence,
            evidence=f"it is the only camera that does not move with a hand ({', '.join(on_wrist)} does)",
            numbers=numbers,
        )
    sees = {key: seen[key].follows for key in others}
    ranked = sorted(others, key=lambda key: (_name_rank(key), sees[key] >= FOLLOWS, sees[key]), reverse=True)
    clear = _name_rank(ranked[0]) > _name_rank(ranked[1])
    return Guess(
        value=ranked[0],
        confidence=0.65 if clear else 0.4,
        evidence=f"of {len(others)} cameras that were not seen to move with a hand, "
        + ("its name says so" if clear else "its image follows the arm most closely"),
        numbers=numbers | {"follows": sees},
    )


def mount(seen: Seen) -> Guess:
    """Whether one camera sits on the `wrist` or is `fixed`."""
    if not seen.known:
        return Guess(
            value=None,
            confidence=0.0,
            evidence=f"the image does not follow the recorded motion ({100 * seen.follows:.0f} % explained)",
            numbers={"explained": seen.follows},
        )
    odds, numbers = _odds(seen)
    numbers["explained"] = seen.follows
    cues = []
    axis, axis_spread = numbers.get("growth"), numbers.get("growth_std")
    if axis is not None and axis_spread is not None and abs(axis) > 2 * axis_spread:
        odds += 2.5 * axis
        cues.append(
            "the image grows as the hand moves along the view" if axis > 0 else "the arm shrinks as it moves away"
        )
    if "tool_over_frame" in numbers:
        better = "the tool's own axes" if numbers["tool_over_frame"] > 0 else "fixed axes"
        cues.append(f"its motion follows {better} better ({100 * abs(numbers['tool_over_frame']):.1f} %)")
    cues.append(f"the moving part extends over {100 * seen.spread:.0f} % of the image")
    confidence = min(0.99, float(1 / (1 + np.exp(-abs(odds)))), _most(seen))
    return Guess(
        value="wrist" if odds > 0 else "fixed", confidence=confidence, evidence="; ".join(cues), numbers=numbers
    )


def flip(seen: Seen) -> Guess:
    """The `flip` that would right a camera's images: `none`, `horizontal`, `vertical`, or `both` (upside down).

    A mirror is SURE only where two independent signs agree: the viewing direction must point downwards (a
    camera that looks at a table from above), and things must grow as they come nearer. On a wrist nothing tells
    a horizontal from a vertical mirror; `numbers["axis_known"]` is False then. Everything is measured at the lag
    at which the image follows best; where that is an end of the range the delay is not known, and nothing is said:
    motions that do not belong together can have any sign.
    """
    unknown = Guess(value=None, confidence=0.0, evidence="poses and image motion do not tell")
    if not seen.known or seen.frame is None:
        return unknown
    system = seen.frame
    lag = _best_lag(system)
    if lag in (LAGS[0], LAGS[-1]):
        return Guess(value=None, confidence=0.0, evidence="the images are too late or too early to tell")
    odds, numbers = _odds(seen)
    draws = [system.solve(times, lag) for times in resamples(system)]
    tilt, tilt_std = _mean_std([view_direction(one)[2] for one in draws])
    near, near_std = _mean_std([growth(one) for one in draws])
    down, down_std = _mean_std([one[1, 2] / max(np.linalg.norm(one[1, :3]), 1e-12) for one in draws])
    numbers |= {"view_z": tilt, "view_z_std": tilt_std, "near": near, "near_std": near_std, "image_down_z": down}
    signs: list[int] = []  # +1 plain, -1 mirrored
    if abs(tilt) > max(0.12, 3 * tilt_std):
        signs.append(-1 if tilt > 0 else 1)
    if abs(odds) > 1.5 and abs(near) > max(0.3, 3 * near_std):
        signs.append(1 if (near > 0) == (odds > 0) else -1)
    numbers["signs"] = signs
    if not signs:
        return unknown
    if len(set(signs)) > 1:
        return Guess(
            value=None,
            confidence=0.0,
            evidence=f"the view points {'up' if tilt > 0 else 'down'} in the recorded frame, but what comes nearer "
            f"{'grows' if signs[1] > 0 else 'shrinks'}: is the frame's z axis up?",
            numbers=numbers,
        )
    confidence = min(0.95 if len(signs) == 2 else 0.75, _most(seen))
    fixed, axis_known = odds < 0, odds < 0 and abs(down) > max(0.15, 3 * down_std)
    numbers["axis_known"] = bool(axis_known)
    if signs[0] > 0:
        if fixed and down > max(0.4, 3 * down_std):
            return Guess(
                value="both",
                confidence=0.75,
                evidence=f"the hand moves down in the image as it rises (cosine {down:.2f})",
                numbers=numbers,
            )
        words = f"viewing direction and growth fit a plain image (view z {tilt:.2f}, growth {near:.2f})"
        return Guess(value="none", confidence=confidence, evidence=words, numbers=numbers)
    value = "vertical" if axis_known and down > 0 else "horizontal"
    return Guess(
        value=value,
        confidence=confidence,
        evidence=f"moving right and down in the image fits a camera that looks "
        f"{'up from below' if tilt > 0 else 'down'} (view z {tilt:.2f})"
        + (f", and what comes nearer seems to go away (growth {near:.2f})" if len(signs) == 2 else ""),
        numbers=numbers,
    )


def delay(seen: Seen, hz: float) -> Guess:
    """By how many frames a camera's images are late against the recorded numbers (below 0: early)."""
    if not seen.known or seen.any is None:
        return Guess(value=None, confidence=0.0, evidence="the image does not follow the recorded motion")
    system = seen.any
    curve = np.array([system.pooled(system.solve(lag=lag), lag=lag) for lag in LAGS])
    best = int(curve.argmax())
    lag = LAGS[best]
    draws = resamples(system)[:20]
    near = (place for place in range(len(LAGS)) if abs(place - best) <= 3 or LAGS[place] == 0)
    candidates = sorted(near)
    votes = []
    for times in draws:
        values = [system.pooled(system.solve(times, LAGS[place]), times, LAGS[place]) for place in candidates]
        votes.append(LAGS[candidates[int(np.argmax(values))]])
    agree = float(np.mean([abs(vote - lag) <= 1 for vote in votes]))
    contrast = (
        float(1 - curve[LAGS.index(0)] / curve[best]) if lag else float(1 - np.delete(curve, best).max() / curve[best])
    )
    at_edge = best in (0, len(LAGS) - 1)
    sharp = 1.0 if lag == 0 else min(1.0, contrast / 0.08)
    confidence = min(0.98, agree * sharp, _most(seen)) * (0.6 if at_edge else 1.0)
    return Guess(
        value=lag,
        confidence=float(confidence),
        evidence=f"the image follows the recorded motion best {abs(lag)} frames ({1000 * abs(lag) / hz:.0f} ms) "
        f"{'later' if lag >= 0 else 'earlier'}: {100 * curve[best]:.0f} % of its change explained, "
        f"{100 * curve[LAGS.index(0)]:.0f} % without shift",
        numbers={"lags": list(LAGS), "explained": curve.tolist(), "agree": agree, "seconds": lag / hz},
    )


def _watch(footage: Footage, key: str) -> Seen:
    reduced = reduce_stream(footage.streams[key])
    best: tuple[float, int, str] | None = None
    for arm in range(arms(footage)):
        for axes in ("frame", "numbers"):
            system = build_system(reduced, footage, arm, axes)
            if system is not None:
                share = system.pooled(system.solve())
                if best is None or share > best[0]:
                    best = (share, arm, axes)
                break
    fastest = [np.nanmedian(clip.spread[np.argsort(clip.energy)[-8:]]) for clip in reduced.values() if _moves(clip)]
    if best is None:
        return Seen(key=key, reduced=reduced, arm=None, frame=None, tool=None, any=None, spread=float("nan"))
    _, arm, axes = best
    system = build_system(reduced, footage, arm, axes, LAGS)
    frame = system if axes == "frame" else None
    tool = None if frame is None else build_system(reduced, footage, arm, "tool", LAGS)
    return Seen(
        key=key,
        reduced=reduced,
        arm=arm,
        frame=frame,
        tool=tool if tool is not None and frame is not None and tool.episodes == frame.episodes else None,
        any=system,
        spread=float(np.median(fastest)) if fastest else float("nan"),
    )


def _moves(clip: Reduced) -> bool:
    return bool(np.isfinite(clip.spread[np.argsort(clip.energy)[-8:]]).any())


def _odds(seen: Seen) -> tuple[float, dict[str, Any]]:
    """Log-odds for `wrist` from the two cues that no mirror touches, and the numbers of all cues."""
    numbers: dict[str, Any] = {"spread": seen.spread, "arm": seen.arm}
    odds = float(np.clip((seen.spread - SPREAD_BETWEEN) / 0.02, -2, 2)) if np.isfinite(seen.spread) else 0.0
    if seen.frame is None:
        return odds, numbers
    lag = _best_lag(seen.frame)
    ratios, along = [], []
    for times in resamples(seen.frame):
        coefficients = seen.frame.solve(times, lag)
        along.append(-np.sign(view_direction(coefficients)[2]) * growth(coefficients))
        if seen.tool is not None:
            by_tool = seen.tool.pooled(seen.tool.solve(times, lag), times, lag)
            by_frame = seen.frame.pooled(coefficients, times, lag)
            ratios.append(np.log(max(by_tool, 1e-6) / max(by_frame, 1e-6)))
    numbers["growth"], numbers["growth_std"] = _mean_std(along)
    if ratios:
        mean, std = _mean_std(ratios)
        numbers["tool_over_frame"], numbers["tool_over_frame_std"] = mean, std
        odds += float(np.clip(0.7 * mean / max(std, 1e-3), -2.5, 2.5))
    return odds, numbers


def _most(seen: Seen) -> float:
    """The most that this many episodes can make sure: fewer than four cannot be told from chance by resampling."""
    return 1.0 if seen.any is not None and len(seen.any.episodes) >= 4 else 0.8


def _best_lag(system: System) -> int:
    return max(system.lags, key=lambda lag: system.pooled(system.solve(lag=lag), lag=lag))


def _mean_std(values: list[float] | FloatArray) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values))


def _name_rank(key: str) -> int:
    """How much a key's name speaks for a main view; a wrist or hand in the name speaks against it."""
    words = re.split(r"[^a-z]+|(?<=[a-z])(?=\d)", key.lower().removeprefix("observation.images."))
    if any(word in ("wrist", "hand", "gripper", "eye", "ego") for word in words):
        return -1
    return next((len(MAIN_NAMES) - place for place, name in enumerate(MAIN_NAMES) if name in words), 0)
