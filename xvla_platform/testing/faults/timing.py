"""Mistakes in time: rates, gaps, repeated frames, stillness, episodes that are too short."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from xvla_platform.data.reader import DatasetReader, FloatArray
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.testing.faults import codes
from xvla_platform.testing.faults.declare import restated
from xvla_platform.testing.faults.fault import Fault, Planted, chosen, generator
from xvla_platform.testing.faults.views import Rows, RowsView, TimesView, View


def rate_declared(reader: DatasetReader, spec: EmbodimentSpec, seed: int, factor: float) -> Planted:
    """`control_hz` is not the rate of the recording."""
    return reader, restated(spec, control_hz=spec.control_hz * factor)


def rate_recorded(reader: DatasetReader, spec: EmbodimentSpec, seed: int, factor: float) -> Planted:
    """Metadata and declaration agree on a rate, the timestamps tell another."""
    view = View(reader)
    view.info = replace(reader.info, fps=(reader.info.fps or spec.control_hz) * factor)
    return view, restated(spec, control_hz=spec.control_hz * factor)


def jitter(reader: DatasetReader, spec: EmbodimentSpec, seed: int, ticks: float) -> Planted:
    """Frames came irregularly: each time is off by a random share of a tick."""

    def edit(episode: int, times: FloatArray) -> FloatArray:
        off = generator(seed, episode).normal(size=len(times)) * ticks / spec.control_hz
        return times + off - off[0]

    return TimesView(reader, edit), spec


def dropped(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, share: float, run: int = 1, renumbered: bool = False
) -> Planted:
    """Frames are missing, `run` at a time; `renumbered`: the converter hid the gaps by counting frames."""

    def rows(length: int, random: np.random.Generator) -> Rows:
        keep = np.ones(length, dtype=bool)
        room = max(1, length - run - 2)
        for start in random.choice(np.arange(1, room + 1), size=min(room, max(1, round(share * length / run)))):
            keep[start : start + run] = False
        return np.flatnonzero(keep)

    return _cut(reader, seed, rows, renumbered=renumbered), spec


def repeated(reader: DatasetReader, spec: EmbodimentSpec, seed: int, share: float) -> Planted:
    """Rows are written twice: a slow source was read at a fast rate."""

    def rows(length: int, random: np.random.Generator) -> Rows:
        return np.repeat(np.arange(length), 1 + (random.random(length) < share))

    return _cut(reader, seed, rows, renumbered=True), spec


def idle(reader: DatasetReader, spec: EmbodimentSpec, seed: int, before: float, after: float) -> Planted:
    """The robot stands still at an episode's start and end, by these shares of the episode's motion."""

    def rows(length: int, random: np.random.Generator) -> Rows:
        head = np.zeros(round(before * length * random.uniform(0.8, 1.2)), dtype=np.int64)
        tail = np.full(round(after * length * random.uniform(0.8, 1.2)), length - 1)
        return np.concatenate([head, np.arange(length), tail])

    return _cut(reader, seed, rows, renumbered=True), spec


def short(reader: DatasetReader, spec: EmbodimentSpec, seed: int, horizons: float, share: float) -> Planted:
    """A share of the episodes ends after so many horizons."""
    hit, most = chosen(reader, share, seed), max(2, round(horizons * spec.horizon_s * spec.control_hz))
    cuts = [
        (episode.index, np.arange(min(episode.length, most) if episode.index in hit else episode.length))
        for episode in reader.episodes
    ]
    return RowsView(reader, cuts, renumbered=False), spec


def long_horizon(reader: DatasetReader, spec: EmbodimentSpec, seed: int, lengths: float) -> Planted:
    """The declared horizon is so many times an episode's length."""
    median = float(np.median([episode.length for episode in reader.episodes]))
    return reader, restated(spec, horizon_s=min(60.0, lengths * median / spec.control_hz))


def _cut(
    reader: DatasetReader, seed: int, rows: Callable[[int, np.random.Generator], Rows], *, renumbered: bool
) -> RowsView:
    cuts = [(episode.index, rows(episode.length, generator(seed, episode.index))) for episode in reader.episodes]
    return RowsView(reader, cuts, renumbered=renumbered)


FAULTS = (
    Fault(
        name="rate_declared",
        about="`control_hz` is not the recording's rate",
        codes=codes.RATE_DECLARED,
        make=rate_declared,
        strengths={"twice": {"factor": 2.0}, "half as fast again": {"factor": 1.5}, "3 % off": {"factor": 1.03}},
    ),
    Fault(
        name="rate_recorded",
        about="metadata and timestamps tell different rates",
        codes=codes.RATE_RECORDED,
        make=rate_recorded,
        strengths={"twice": {"factor": 2.0}, "half": {"factor": 0.5}, "10 % off": {"factor": 1.1}},
    ),
    Fault(
        name="jitter",
        about="frames came irregularly",
        codes=codes.JITTER,
        make=jitter,
        strengths={"0.1 tick": {"ticks": 0.1}, "0.2 tick": {"ticks": 0.2}, "0.6 tick": {"ticks": 0.6}},
    ),
    Fault(
        name="dropped_frames",
        about="frames are missing, and the timestamps show it",
        codes=codes.GAPS,
        make=dropped,
        strengths={"2 %": {"share": 0.02}, "10 %": {"share": 0.1}, "30 %": {"share": 0.3}},
    ),
    Fault(
        name="hidden_gaps",
        about="runs of frames are missing, and timestamps were counted anew, so that the robot seems to jump",
        codes=codes.JUMPS,
        make=dropped,
        strengths={
            "8 frames": {"share": 0.01, "run": 8, "renumbered": True},
            "15 frames": {"share": 0.01, "run": 15, "renumbered": True},
        },
    ),
    Fault(
        name="repeated_frames",
        about="rows are written twice: a slow source was read at a fast rate",
        codes=codes.REPEATED,
        make=repeated,
        strengths={"all": {"share": 1.0}, "half": {"share": 0.5}, "a fifth": {"share": 0.2}},
    ),
    Fault(
        name="idle",
        about="the robot stands still for a large part of the recording",
        codes=codes.IDLE,
        make=idle,
        strengths={
            "at the start": {"before": 1.0, "after": 0.0},
            "at the end": {"before": 0.0, "after": 1.0},
            "both ends": {"before": 1.5, "after": 1.5},
        },
    ),
    Fault(
        name="short_episodes",
        about="episodes end before the horizon",
        codes=codes.SHORT,
        make=short,
        strengths={
            "all, half a horizon": {"horizons": 0.5, "share": 1.0},
            "all, 0.9 horizons": {"horizons": 0.9, "share": 1.0},
            "half of them, half a horizon": {"horizons": 0.5, "share": 0.5},
        },
        also=codes.CUT_SHORT,
    ),
    Fault(
        name="long_horizon",
        about="the declared horizon is longer than the episodes",
        codes=codes.SHORT,
        make=long_horizon,
        strengths={"1.3 episodes": {"lengths": 1.3}, "4 episodes": {"lengths": 4.0}},
    ),
)
