"""XV21x: is the action what it is declared to be? Seen in what the state does after it."""

from collections.abc import Iterator

import numpy as np

from xvla_platform.check.action_pairs import Pair, pairs, share_of
from xvla_platform.check.action_rules import RULES
from xvla_platform.check.common import in_episodes, severity_of
from xvla_platform.check.findings import CheckContext, Finding
from xvla_platform.data.rotations import to_matrix
from xvla_platform.measure.actions import (
    EPISODES,
    axes,
    closeness_to_state,
    equal_share,
    fit_readings,
    frame_turn,
    gain_of,
    lag_ticks,
    reference,
)
from xvla_platform.measure.guess import SURE
from xvla_platform.specs.fields import ANGLE_FORMATS, ROTATION_SIZE

LATE_S = 0.4  # controllers and people react faster
CLEAR = 0.75
NEARLY = 0.5  # of one tick's motion: a command one tick ahead differs by all of it
OTHERWISE = 0.5  # a reading below this is wrong if another one is CLEAR


def against_state(context: CheckContext) -> Iterator[Finding]:
    """Every action field against the state of its kind and arm, from the grossest fault to the finest."""
    for pair in pairs(context):
        equal = list(_equal(context, pair))
        yield from equal
        if any(not finding.episodes for finding in equal):
            continue
        guess = reference(pair.was, pair.told, pair.field.kind, pair.turns)
        context.facts.setdefault("actions", {})[pair.action.place] = {
            "declared": pair.field.reference,
            "measured": guess.value,
            "confidence": guess.confidence,
            **guess.numbers,
        }
        severity = severity_of(guess.confidence)
        if guess.value is None:
            yield from _unexplained(context, pair)
        elif guess.value != pair.field.reference and severity:
            sense = guess.numbers.get("axes")
            yield Finding(
                code="XV210",
                severity=severity,
                field=pair.action.place,
                measured=f"declared {pair.field.reference}, but {guess.evidence}",
                numbers={"confidence": guess.confidence, **guess.numbers},
                fix=f"reference: {guess.value}" + (f", axes: {sense}" if sense and guess.value != "absolute" else ""),
            )
        elif guess.value == pair.field.reference:
            yield from _minority(context, pair)
            if guess.value == "absolute":
                yield from _turned(pair)
                yield from _other_reading(pair)
                yield from _timing(context, pair)
            else:
                yield from _relative(context, pair, guess.numbers)


def swapped_arms(context: CheckContext) -> Iterator[Finding]:
    """Two-armed robots: does each arm's action go with the other arm's state?"""
    found = {(pair.field.kind, pair.field.arm): pair for pair in pairs(context) if pair.field.reference == "absolute"}
    for (kind, arm), left in found.items():
        right = found.get((kind, "right"))
        if arm != "left" or right is None or left.was[0].shape != right.was[0].shape:
            continue
        own = min(share_of(left.was, left.told, kind), share_of(right.was, right.told, kind))
        crossed = min(share_of(right.was, left.told, kind), share_of(left.was, right.told, kind))
        if crossed > 0.8 and own < 0.4:
            yield Finding(
                code="XV217",
                severity="error",
                field=left.action.place,
                measured=f"the other arm's state explains {crossed:.0%} of them, its own {max(own, 0):.0%}",
                numbers={"own": own, "crossed": crossed},
                fix="exchange arm: left and arm: right in proprio or in action",
            )


def _equal(context: CheckContext, pair: Pair) -> Iterator[Finding]:
    if pair.field.reference != "absolute" or context.spec.action.timing == "reached":
        return
    shares = equal_share(pair.was, pair.told)
    places = np.flatnonzero(np.nan_to_num(shares) > 0.9)
    if len(places):
        everywhere = len(places) == np.isfinite(shares).sum()
        indices, text = in_episodes(context, places)
        yield Finding(
            code="XV213",
            severity="error",
            field=pair.action.place,
            measured=f"the action equals {pair.state.place} of the same frame in "
            f"{np.nanmean(shares[places]):.0%} of the moving frames, in {text}",
            numbers={"shares": shares},
            fix="timing: reached" if everywhere else "remove the episodes named, or record their commands",
            episodes=() if everywhere else indices,
        )


def _minority(context: CheckContext, pair: Pair) -> Iterator[Finding]:
    """Episodes that for themselves say otherwise than the whole."""
    odd, said = [], set()
    for place, (was, told) in enumerate(zip(pair.was, pair.told, strict=True)):
        guess = reference([was], [told], pair.field.kind, None if pair.turns is None else [pair.turns[place]])
        if guess.value is None or guess.confidence < SURE or guess.value == pair.field.reference:
            continue
        # One episode is little evidence: the declared reading must fail altogether, and the other one be good.
        shares = guess.numbers["shares"]
        declared = max(share for name, share in shares.items() if name.partition(":")[0] == pair.field.reference)
        if declared < 0.0 and max(shares.values()) > CLEAR:
            odd.append(place)
            said.add(guess.value)
    if odd:
        indices, text = in_episodes(context, odd)
        yield Finding(
            code="XV210",
            severity="error" if len(odd) > 1 else "warning",
            field=pair.action.place,
            measured=f"declared {pair.field.reference}, but {' or '.join(sorted(said))} in {text}",
            fix="convert or remove the episodes named",
            episodes=indices,
        )


def _timing(context: CheckContext, pair: Pair) -> Iterator[Finding]:
    whole = lag_ticks(pair.was, pair.told)
    lag, hz = int(whole.value), context.recording.hz
    context.facts["actions"][pair.action.place]["lag_s"] = lag / hz
    reached = context.spec.action.timing == "reached"
    closeness = closeness_to_state(pair.was, pair.told)
    if lag == 0 and not reached and closeness < NEARLY:
        yield Finding(
            code="XV213",
            severity="error",
            field=pair.action.place,
            measured=f"the action is {pair.state.place} of the same frame but for {closeness:.0%} of a tick's motion",
            numbers={"closeness": closeness},
            fix="timing: reached",
        )
        return
    early, late = (lag <= -2, lag >= 3) if reached else (lag <= 0, lag / hz > LATE_S)
    severity = severity_of(whole.confidence, "error" if early else "warning")
    if (early or late) and severity:
        measured = f"the state is nearest to the action {abs(lag)} ticks ({abs(lag) / hz:.2f} s) "
        measured += "earlier" if lag < 0 else "later" if lag > 0 else "from it, in the same frame"
        yield Finding(
            code="XV214",
            severity=severity,
            field=pair.action.place,
            measured=f"{measured}; declared timing {context.spec.action.timing}",
            numbers={"lag_ticks": lag, "lag_s": lag / hz, **whole.numbers},
            fix="timing: command" if reached and late else None,
        )
        return
    odd: dict[int, int] = {}
    # Within one episode a hand may hardly turn, which leaves the lag of a rotation to chance.
    if pair.field.kind == "rotation":
        return
    for place, (was, told) in enumerate(zip(pair.was, pair.told, strict=True)):
        if len(was) < 20:
            continue
        one = lag_ticks([was], [told])
        strange = abs(int(one.value) - lag) >= 4 or (not reached and lag > 1 and int(one.value) <= 0)
        if one.confidence >= SURE and strange:
            odd[place] = int(one.value)
    if odd and len(odd) >= max(2, 0.03 * len(pair.was)):
        indices, text = in_episodes(context, odd)
        yield Finding(
            code="XV214",
            severity="warning",
            field=pair.action.place,
            measured=f"the state follows the action after {lag} ticks, but after "
            f"{int(np.median(list(odd.values())))} in {text}",
            numbers={"lag_ticks": lag, "odd": odd},
            fix="shift or remove the episodes named",
            episodes=indices,
        )


def _relative(context: CheckContext, pair: Pair, numbers: dict) -> Iterator[Finding]:
    if pair.field.axes is not None:
        sense = axes(pair.was, pair.told, pair.field.kind, pair.turns, pair.field.reference)
        severity = severity_of(sense.confidence)
        if sense.value not in (None, pair.field.axes) and severity:
            yield Finding(
                code="XV211",
                severity=severity,
                field=pair.action.place,
                measured=f"declared axes {pair.field.axes}, but {sense.evidence}",
                numbers=sense.numbers,
                fix=f"axes: {sense.value}",
            )
    gain = float(numbers["gain"])
    # A step commanded is reached within some ticks, so a right scale gives a gain of a half to about two.
    if pair.field.reference == "relative" and not 0.2 < abs(gain) < 3.0:
        yield from _scaled(pair, gain, "the change of the state it causes")


def _unexplained(context: CheckContext, pair: Pair) -> Iterator[Finding]:
    moves = max(float(np.ptp(part.reshape(len(part), -1), axis=0).max()) for part in pair.told)
    if moves < 1e-6:
        return
    if pair.field.reference == "absolute" and pair.field.kind != "rotation":
        share, gain = gain_of(pair.was, pair.told)
        if share > 0.8 and not 0.8 < gain < 1.25:
            yield from _scaled(pair, gain, "the state that follows")
            return
        turned = list(_turned(pair))
        yield from turned
        if turned:
            return
    otherwise = list(_other_reading(pair))
    yield from otherwise
    if otherwise:
        return
    shares = {name: fit.share for name, fit in fit_readings(pair.was, pair.told, pair.field.kind, pair.turns).items()}
    best = max(shares, key=lambda name: shares[name])
    if shares[best] < 0.4:
        yield Finding(
            code="XV215",
            severity="warning",
            field=pair.action.place,
            measured=f"no reading relates the action to {pair.state.place}; the best, {best}, explains "
            f"{max(shares[best], 0.0):.0%} of it",
            numbers={"shares": shares},
        )


def _turned(pair: Pair) -> Iterator[Finding]:
    """Absolute positions whose axes are swapped, negated or turned against the state's."""
    if pair.field.kind != "position" or pair.field.reference != "absolute":
        return
    turn, turned, straight = max((frame_turn(pair.was, pair.told, lag) for lag in range(7)), key=lambda fit: fit[1])
    if turned > 0.85 and straight < turned - 0.15:
        yield Finding(
            code="XV216",
            severity="error" if straight < 0.5 else "warning",
            field=pair.action.place,
            measured=f"turned by {np.round(turn, 2).tolist()} the state explains {turned:.0%} of the actions, unturned "
            f"{max(straight, 0.0):.0%}",
            numbers={"turn": turn, "turned": turned, "straight": straight},
        )


def _other_reading(pair: Pair) -> Iterator[Finding]:
    """An absolute rotation that follows the state only if it is read in another format of the same size."""
    if pair.field.kind != "rotation" or pair.field.reference != "absolute":
        return
    declared = str(pair.field.format)
    own = share_of(pair.was, pair.told, "rotation")
    if own > OTHERWISE:
        return
    best, found = own, declared
    for format, size in ROTATION_SIZE.items():
        if size != pair.field.size or format == declared:
            continue
        unit = pair.field.unit if format in ANGLE_FORMATS else None
        told = [to_matrix(values, format, unit, strict=False) for values in pair.action.scaled()[:EPISODES]]
        share = share_of(pair.was[:EPISODES], told, "rotation")
        # Of readings that do equally well the first is kept: the usual orders come first.
        if share > best + 0.02:
            best, found = share, format
    if best > CLEAR and best - own > 0.3:
        code = {4: "XV203", 6: "XV202"}.get(pair.field.size, "XV204")
        yield Finding(
            code=code,
            severity="error",
            field=pair.action.place,
            measured=f"read as {declared} the state explains {max(own, 0):.0%} of it, read as {found} {best:.0%}",
            numbers={"declared": own, "measured": best},
            fix=f"format: {found} (or the state's, if that is the one misread)",
        )


def _scaled(pair: Pair, gain: float, against: str) -> Iterator[Finding]:
    scale = pair.field.scale / gain
    yield Finding(
        code="XV212",
        severity="error" if not 0.1 < abs(gain) < 8.0 else "warning",
        field=pair.action.place,
        measured=f"the action is {gain:.3g} times {against}",
        numbers={"gain": gain},
        fix=f"scale: {scale:.3g} (so that 1 stands for what the robot does), or another unit",
    )


CHECKS = (against_state, swapped_arms)
__all__ = ["CHECKS", "RULES", "against_state", "swapped_arms"]
