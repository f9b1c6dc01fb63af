"""XV42x: episodes against the horizon, against standing still, and against each other."""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from xvla_platform.check.common import columns, counted, in_episodes
from xvla_platform.check.findings import CheckContext, Finding, Rule
from xvla_platform.data.reader import FloatArray
from xvla_platform.data.samples import SPLIT_SEED, split_episodes, starting_frames
from xvla_platform.data.units import factor
from xvla_platform.data.vectors import read_vector
from xvla_platform.errors import XvlaError
from xvla_platform.measure.episodes import idle_frames, longest_run, outline, twins, whole

RULES = (
    Rule(
        code="XV420",
        slug="idle-share",
        title="the robot stands still for much of the time",
        why="Where most frames say 'stay', staying is a safe answer: the robot waits for a push that never comes.",
        fix="Write `dataset: {skip_idle: {…}}` with steps above the sensors' noise, or cut the pauses at the ends of "
        "the episodes.",
        severity="warning",
    ),
    Rule(
        code="XV421",
        slug="shorter-than-horizon",
        title="episodes are shorter than the horizon",
        why="A chunk looks `horizon_s` ahead. In a shorter episode most of it is the last frame, held.",
        fix="Write a shorter `horizon_s`, or remove the episodes that were broken off.",
        severity="warning",
    ),
    Rule(
        code="XV422",
        slug="duplicate-episodes",
        title="episodes are copies of each other",
        why="A demonstration that is in the data twice counts twice.",
        fix="Remove the copies.",
        severity="warning",
    ),
    Rule(
        code="XV423",
        slug="split-leakage",
        title="held-out episodes are copies of training episodes",
        why="The error on held-out episodes chooses the checkpoint and is what is reported. Measured on copies of what "
        "was trained on, it says nothing about the robot.",
        fix="Remove the copies from the dataset.",
    ),
    Rule(
        code="XV424",
        slug="too-few-episodes",
        title="there are too few episodes",
        why="Training, choosing a checkpoint and measuring need separate episodes.",
        fix="Record more demonstrations: three at the least, fifty for a first usable adaptation.",
    ),
    Rule(
        code="XV425",
        slug="idle-frames-cut",
        title="most of the recording is left out by `skip_idle`",
        why="Frames that count as standing still are never learnt from. Steps in another unit, or above the robot's, "
        "count slow motion as standing still, and the policy sees only the fastest moments.",
        fix="Write smaller steps a tick, just above the sensors' noise: `dataset: {skip_idle: {position_m: 1.0e-5}}`.",
        severity="warning",
    ),
)
IDLE = 0.25
IDLE_EPISODE = 0.4
SLOW = {"position": 0.002, "rotation": 0.01, "joint": 0.01}  # m, rad or rad a second: slower is standing still
STROKE = 0.01  # share of the gripper's stroke in one tick
MOSTLY_CUT = 0.75
FEW = 0.1  # share of the episodes that may have been broken off
MOST_EPISODES = 3000


def idle(context: CheckContext) -> Iterator[Finding]:
    """Share of frames in which nothing moves."""
    limits = _limits(context)
    if limits is None or not context.recording.episodes:
        return
    flags = [idle_frames(episode.proprio, limits) for episode in context.recording.episodes]
    share = float(np.concatenate(flags).mean())
    longest = max(longest_run(part) for part in flags) / context.recording.hz
    context.facts["idle"] = {"share": share, "longest_s": longest}
    each = np.array([part.mean() for part in flags])
    lazy = np.flatnonzero(each > IDLE_EPISODE)
    if share > IDLE or len(lazy) >= max(2, 0.05 * len(each)):
        indices, text = in_episodes(context, lazy)
        yield Finding(
            code="XV420",
            severity="info" if context.spec.dataset.skip_idle is not None else "warning",
            field="dataset.skip_idle",
            measured=f"the robot stands still in {share:.0%} of the frames, for up to {longest:.1f} s at a time; more "
            f"than {IDLE_EPISODE:.0%} of the time in {text}",
            numbers={"share": share, "longest_s": longest},
            fix=f"dataset: {{skip_idle: {{{_still_steps(context)}}}}}",
            episodes=indices,
        )


def left_out(context: CheckContext) -> Iterator[Finding]:
    """How many frames `skip_idle` leaves out of training: said always, a fault where little is left."""
    spec = context.spec
    if spec.dataset.skip_idle is None or not context.recording.episodes:
        return
    whole_cut = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"skip_idle": None})})
    try:
        counts = np.array(
            [
                [len(starting_frames(one, episode.proprio, episode.action)) for one in (whole_cut, spec)]
                for episode in context.recording.episodes
            ]
        )
    except XvlaError as error:
        if error.field is not None:
            raise
        return  # numbers that are no rotations have findings of their own
    total, kept = (int(count) for count in counts.sum(axis=0))
    share = (total - kept) / max(1, total)
    # The last frame of an episode has no next one to stand still until, so it is always kept.
    nothing = total > kept and np.median(counts[:, 1]) <= 1
    yield Finding(
        code="XV425",
        severity="error" if nothing else "warning" if share > MOSTLY_CUT else "info",
        field="dataset.skip_idle",
        measured=f"{total - kept} of {total} frames ({share:.0%}) of the episodes looked at are left out"
        + ("; half of the episodes or more keep one frame at most" if nothing else ""),
        numbers={"cut": total - kept, "frames": total},
    )


def lengths(context: CheckContext) -> Iterator[Finding]:
    """Too few episodes, and episodes too short."""
    episodes, spec = context.reader.episodes, context.spec
    if 0 < len(episodes) < 10:
        yield Finding(
            code="XV424",
            severity="error" if len(episodes) < 3 else "warning",
            field="dataset",
            measured=f"the dataset has {len(episodes)} episodes",
            numbers={"episodes": len(episodes)},
        )
    needed = spec.horizon_s * context.recording.hz + spec.dataset.tail_margin
    short = tuple(episode.index for episode in episodes if episode.length < needed)
    if short:
        hz = context.recording.hz
        shortest = min(episode.length for episode in episodes) / hz
        fits = math.floor(100 * (shortest - spec.dataset.tail_margin / hz) + 1e-6) / 100  # rounded up, it would not fit
        yield Finding(
            code="XV421",
            severity="error" if len(short) == len(episodes) else "warning",
            field="horizon_s",
            measured=f"{counted(short, len(episodes))} are shorter than {needed / hz:.3g} s (horizon "
            f"and tail margin); the shortest is {shortest:.3g} s",
            numbers={"short": len(short), "shortest_s": shortest},
            fix=_shorter(fits if fits * hz >= 2 else None, few=len(short) <= FEW * len(episodes)),
            episodes=short,
        )


def _shorter(seconds: float | None, *, few: bool) -> str:
    """What to do about short episodes: a few were broken off, many ask for another horizon."""
    removal = "remove the episodes that were broken off"
    if seconds is None:
        return removal
    horizon = f"`horizon_s: {seconds:g}`"
    return f"{removal}, or write {horizon}, which fits all" if few else f"{horizon} fits every episode; or {removal}"


def copies(context: CheckContext) -> Iterator[Finding]:
    """Episodes that are one demonstration, and whether they stand on both sides of the split."""
    states = _all_states(context)
    if len(states) < 3:
        return
    scale = np.concatenate([part[:: max(1, len(part) // 20)] for part in states.values()]).std(axis=0)
    indices = list(states)
    found: dict[tuple[int, int], float] = {}
    for view in (outline, whole):
        for pair in twins([view(part) for part in states.values()], scale):
            found[indices[pair.first], indices[pair.second]] = pair.distance
    # Demonstrations may begin alike while the arm waits; only what also goes on alike is a copy.
    found = {pair: distance for pair, distance in found.items() if _same(states[pair[0]], states[pair[1]], scale)}
    if not found:
        return
    side = {index: name for name, part in _split(context).items() for index in part}
    across = [pair for pair in found if (side.get(pair[0]) == "train") != (side.get(pair[1]) == "train")]
    for code, pairs, severity in (
        ("XV423", across, "error"),
        ("XV422", [pair for pair in found if pair not in across], "warning"),
    ):
        if pairs:
            shown = ", ".join(f"{first} = {second}" for first, second in pairs[:6]) + (", …" if len(pairs) > 6 else "")
            yield Finding(
                code=code,
                severity="error" if severity == "error" else "warning",
                field="dataset",
                measured=f"{len(pairs)} pairs of episodes are the same demonstration ({shown})",
                numbers={"pairs": pairs[:200]},
                episodes=tuple(sorted({index for pair in pairs for index in pair})),
            )


def _all_states(context: CheckContext) -> dict[int, FloatArray]:
    """Recorded states of every episode (of the sample alone, where there are very many)."""
    known = {episode.index: episode.proprio for episode in context.recording.episodes}
    if len(context.reader.episodes) > MOST_EPISODES:
        return known
    states: dict[int, FloatArray] = {}
    for episode in context.reader.episodes:
        if episode.index in known:
            states[episode.index] = known[episode.index]
            continue
        try:
            states[episode.index] = read_vector(context.reader, episode.index, context.spec.proprio, "proprio")
        except XvlaError:
            continue
    return {index: part for index, part in states.items() if len(part) > 1 and np.isfinite(part).all()}


def _same(first: FloatArray, second: FloatArray, scale: FloatArray) -> bool:
    """Whether two episodes run alike for as long as the shorter one, which has most of the longer one's length."""
    length = min(len(first), len(second))
    if length < 0.5 * max(len(first), len(second)):
        return False
    moving = scale > 0
    apart = np.abs(first[:length] - second[:length])[:, moving] / scale[moving]
    return bool(apart.size) and float(np.sqrt((apart**2).mean())) < 0.02


def _split(context: CheckContext) -> Mapping[str, tuple[int, ...]]:
    if context.split:
        return context.split
    try:
        train, validation, test = split_episodes(
            len(context.reader.episodes), context.spec.dataset.held_out, SPLIT_SEED
        )
    except XvlaError:
        return {}
    return {"train": train, "validation": validation, "test": test}


def _limits(context: CheckContext) -> FloatArray | None:
    """Largest change [P] of each state in one tick that still counts as standing still; None without motion fields."""
    limits, hz = np.full(context.spec.proprio.size, np.inf), context.recording.hz
    slices = context.spec.proprio.slices()
    for column in columns(context, "position", "rotation", "joint", "gripper", vectors=("proprio",)):
        field, slot = column.field, slices[column.field.name]
        if field.kind == "gripper":
            assert field.open is not None
            assert field.closed is not None
            limits[slot] = STROKE * abs(field.closed - field.open)
        elif field.kind == "rotation" and field.unit is None:
            limits[slot] = SLOW["rotation"] / hz / 2
        else:
            limits[slot] = SLOW[field.kind] / hz / (factor(field.unit) * abs(field.scale or 1.0))
    return limits if np.isfinite(limits).any() else None


def _still_steps(context: CheckContext) -> str:
    """The same limits as `skip_idle` states them: steps a tick, of the kinds of the actions, by which it judges."""
    hz = context.recording.hz
    steps = {
        "position": ("position_m", SLOW["position"] / hz),
        "rotation": ("rotation_deg", np.degrees(SLOW["rotation"] / hz)),
        "joint": ("joint", SLOW["joint"] / hz),
        "gripper": ("gripper", STROKE),
    }
    moving = {field.kind for field in context.spec.action.fields}
    return ", ".join(f"{name}: {step:.2g}" for kind, (name, step) in steps.items() if kind in moving)


CHECKS = (idle, left_out, lengths, copies)
