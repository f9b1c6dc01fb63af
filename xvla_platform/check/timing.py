"""XV40x: are frames as far apart as declared, and is each there once?"""

from collections.abc import Iterator

import numpy as np

from xvla_platform.check.common import columns, in_episodes, severity_of
from xvla_platform.check.findings import CheckContext, Finding, Rule
from xvla_platform.measure.timing import clock, leaps, rate, repeated_rows

RULES = (
    Rule(
        code="XV401",
        slug="rate-against-timestamps",
        title="the time stamps say another rate",
        why="Chunks are cut by time. At a wrong rate the robot is taught to move faster or slower than it was shown.",
        fix="Write the rate of the time stamps: `control_hz: 15`.",
    ),
    Rule(
        code="XV402",
        slug="jitter",
        title="frames are unevenly spaced",
        why="Frames are addressed by their number. Where they are unevenly spaced, commands are paired with images "
        "taken earlier or later.",
        fix="Resample the recording to an even rate, or mend the recorder's clock.",
        severity="warning",
    ),
    Rule(
        code="XV403",
        slug="dropped-frames",
        title="frames are missing",
        why="Across a gap the motion is twice as fast as it was, and what follows is one frame late.",
        fix="Remove the episodes named, or fill the gaps by interpolation.",
        severity="warning",
    ),
    Rule(
        code="XV404",
        slug="repeated-frames",
        title="frames repeat amid motion",
        why="A recorder that is faster than its sensor writes each reading several times: the motion becomes a "
        "staircase, and small steps disappear.",
        fix="Record, or subsample, at the rate of the sensor and write it as `control_hz`.",
        severity="warning",
    ),
)
SAME_RATE = 0.02
JITTER = 0.2
REPEATED = 0.01


def clocks(context: CheckContext) -> Iterator[Finding]:
    """Rate, gaps, repeats and jitter by the time stamps."""
    recording, hz = context.recording, context.spec.control_hz
    if not recording.episodes:
        return
    stamps = [episode.timestamps for episode in recording.episodes]
    guess = rate(stamps)
    context.facts["rate"] = {"declared": hz, "measured": guess.value, **guess.numbers}
    if guess.value is not None and abs(guess.value - hz) > SAME_RATE * hz:
        yield Finding(
            code="XV401",
            severity=severity_of(max(guess.confidence, 0.6)) or "warning",
            field="control_hz",
            measured=f"declared {hz:g} Hz, but {guess.evidence}: {guess.value:g} Hz",
            numbers=guess.numbers,
            fix=f"control_hz: {guess.value:g}",
        )
    period = float(guess.numbers.get("period_s", 1 / hz))
    found = [clock(times, period) for times in stamps]
    odd = [place for place, one in enumerate(found) if one.period_s and abs(one.period_s / period - 1) > 0.1]
    if odd:
        indices, text = in_episodes(context, odd)
        other = float(np.median([1 / found[place].period_s for place in odd]))
        yield Finding(
            code="XV401",
            severity="error",
            field="control_hz",
            measured=f"the time stamps say {other:.4g} Hz in {text}, and {1 / period:.4g} Hz in the others",
            numbers={"hz": other},
            fix="resample or remove the episodes named",
            episodes=indices,
        )
    rest = [place for place in range(len(found)) if place not in odd]
    for code, attribute, word in (("XV403", "gaps", "is missing"), ("XV404", "repeats", "is stamped twice")):
        where = [place for place in rest if getattr(found[place], attribute)]
        if where:
            indices, text = in_episodes(context, where)
            count = sum(len(getattr(found[place], attribute)) for place in where)
            yield Finding(
                code=code,
                severity="error",
                field="timestamp",
                measured=f"{count} times a frame {word} by the time stamps, in {text}",
                numbers={"count": count},
                episodes=indices,
            )
    shaky = [place for place in rest if found[place].jitter > JITTER]
    if shaky:
        indices, text = in_episodes(context, shaky)
        worst = max(found[place].jitter for place in shaky)
        yield Finding(
            code="XV402",
            severity="warning",
            field="timestamp",
            measured=f"steps between frames deviate by up to {worst:.0%} of {period * 1000:.1f} ms, in {text}",
            numbers={"jitter": worst},
            episodes=indices,
        )


def motion(context: CheckContext) -> Iterator[Finding]:
    """Repeats and gaps that the time stamps hide but the motion shows."""
    repeated = [repeated_rows(episode.proprio) for episode in context.recording.episodes]
    total, moving = sum(one for one, _ in repeated), sum(all_ for _, all_ in repeated)
    shares = np.array([one / max(1, all_) for one, all_ in repeated])
    if moving and (total > REPEATED * moving or (shares > 5 * REPEATED).any()):
        indices, text = in_episodes(context, np.flatnonzero(shares > REPEATED))
        yield Finding(
            code="XV404",
            severity="warning",
            field="proprio",
            measured=f"{total} of {moving} frames in motion repeat the state before them, in {text}",
            numbers={"repeated": total, "moving": moving},
            episodes=indices,
        )
    smooth = [column for column in columns(context, "position", "joint", vectors=("proprio",)) if column.absolute]
    if not smooth:
        return
    gaps = [leaps(values) for values in smooth[0].episodes]
    count, frames = sum(map(len, gaps)), sum(len(values) for values in smooth[0].episodes)
    if count >= 2 and count > 0.0008 * frames:
        indices, text = in_episodes(context, [place for place, one in enumerate(gaps) if one])
        first = next(place for place, one in enumerate(gaps) if one)
        yield Finding(
            code="XV403",
            severity="warning",
            field=smooth[0].place,
            measured=f"{count} steps are as long as two or more of their neighbours, in {text}; the first before frame "
            f"{gaps[first][0]} of episode {context.recording.episodes[first].index}",
            numbers={"count": count, "frames": frames},
            episodes=indices,
        )


CHECKS = (clocks, motion)
