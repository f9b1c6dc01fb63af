"""From action chunks to one command a control tick: resampling in time, blending, latency.

A chunk made from the observation of tick s has targets at s / hz + its own times. The command of tick i is what the
controller should reach one tick later, so it is the chunk's point at (i + 1) / hz, as in training
(`data/resampling.py`). Points between targets are interpolated, rotations on the group. Between the moment of the
observation and the chunk's first target lies what was commanded for that moment; the very first chunk has nothing
before it, and its first target holds.

With a latency of L ticks a chunk observed at tick s takes over at tick s + L, in the place where it then stands; the
one before it goes on until then. The robot waits for the first chunk, so latency counts from the second on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from xvla_platform.data.canonical import Trajectory, to_canonical
from xvla_platform.data.reader import FloatArray
from xvla_platform.data.rotations import interpolate
from xvla_platform.errors import XvlaError
from xvla_platform.policy.policy import ActionChunk
from xvla_platform.specs.embodiment import EmbodimentSpec

Blend = Literal["none", "linear", "exponential"]
Point = dict[str, FloatArray]  # canonical target [1, ...] by action field


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How chunks are carried out; all in control ticks.

    Attributes:
        execute: Ticks between one chunk and the next.
        latency: Ticks from an observation to the first command of its chunk.
        blend: `none`: the newest chunk alone. `linear`: it fades in while the one before it fades out, over the next
            `execute` ticks as far as that one reaches. `exponential`: every chunk that reaches the moment, each
            weighing 1/e of what the next newer one does (temporal ensembling, arXiv 2304.13705, with time counted
            in chunks).
    """

    execute: int
    latency: int = 0
    blend: Blend = "none"

    def observes_at(self, tick: int) -> bool:
        """Whether a chunk is made from the observation of this tick."""
        return tick == 0 or (tick + self.latency > 0 and (tick + self.latency) % self.execute == 0)


def execution_of(
    spec: EmbodimentSpec,
    *,
    execute_s: float | None = None,
    execute_steps: int | None = None,
    latency_ms: float = 0.0,
    blend: Blend = "none",
) -> Execution:
    """The execution a user asked for, in ticks of the robot; what a chunk cannot cover is refused.

    Without `execute_s` and `execute_steps`, the whole chunk as far as the latency leaves it; half of it where chunks
    are blended, as those have to overlap.
    """
    horizon = round(spec.horizon_s * spec.control_hz)
    if not (math.isfinite(latency_ms) and latency_ms >= 0):
        raise XvlaError("is not a time", field="latency_ms", found=latency_ms)
    latency = math.ceil(round(latency_ms * spec.control_hz / 1000, 9))
    if execute_s is not None and execute_steps is not None:
        raise XvlaError("give one of them", field="execute_s, execute_steps", found=f"{execute_s:g}, {execute_steps}")
    if execute_s is not None:
        if not math.isfinite(execute_s):
            raise XvlaError("is not a time", field="execute_s", found=execute_s)
        execute_steps = max(1, round(execute_s * spec.control_hz)) if execute_s > 0 else 0
    elif execute_steps is None:
        execute_steps = max(1, horizon - latency if blend == "none" else horizon // 2)
    if not 1 <= execute_steps <= horizon:
        raise XvlaError(
            "is not part of a chunk", field="execute_steps", found=execute_steps, allowed=f"1 to {horizon} ticks"
        )
    longest = min(execute_steps - 1, horizon - execute_steps)
    if latency > longest:
        raise XvlaError(
            "a chunk must be ready before the one before it is over, and reach to the next",
            field="latency_ms",
            found=f"{latency_ms:g} ms = {latency} ticks",
            allowed=f"up to {longest} ticks where {execute_steps} of a chunk's {horizon} are executed",
            hint="execute more of each chunk" if execute_steps <= horizon // 2 else "execute less of each chunk",
        )
    if blend not in get_args(Blend):
        raise XvlaError("unknown blending", field="blend", found=blend, allowed=get_args(Blend))
    return Execution(execute=execute_steps, latency=latency, blend=blend)


@dataclass(frozen=True, kw_only=True)
class TimedChunk:
    """A chunk on the episode's clock.

    Attributes:
        start: Tick of its observation. ready: First tick that it may command.
        times: [T + 1] seconds since `start`, from 0 on.
        targets: Canonical targets [T + 1, ...] at `times`.
    """

    start: int
    ready: int
    times: FloatArray
    targets: Trajectory

    def at(self, seconds: float) -> Point:
        """The point `seconds` after `start`; beyond the last target the last one holds."""
        last = len(self.times) - 1
        left = int(np.clip(np.searchsorted(self.times, seconds, side="right") - 1, 0, last))
        right = min(left + 1, last)
        gap = self.times[right] - self.times[left]
        share = float(np.clip((seconds - self.times[left]) / gap, 0.0, 1.0)) if gap > 0 else 0.0
        first = {name: values[left : left + 1] for name, values in self.targets.values.items()}
        second = {name: values[right : right + 1] for name, values in self.targets.values.items()}
        return between(first, second, share, self.targets.kinds)


class Controller:
    """One episode's chunks and the command of every tick."""

    def __init__(self, spec: EmbodimentSpec, execution: Execution) -> None:
        self.spec = spec
        self.execution = execution
        self._fields = [field for field in spec.action.fields if field.kind != "ignored"]
        self._chunks: list[TimedChunk] = []
        self._commands: list[Point] = []

    def add(self, chunk: ActionChunk, start: int) -> None:
        """Take a chunk made from the observation of tick `start`."""
        kinds = {field.name: field.kind for field in self._fields}
        targets = {field.name: to_canonical(field, chunk.fields[field.name]) for field in self._fields}
        before = self._commands[start - 1] if start > 0 else {name: values[:1] for name, values in targets.items()}
        values = {name: np.concatenate([before[name], targets[name]]) for name in targets}
        ready = start + (self.execution.latency if self._chunks else 0)
        times = np.concatenate([[0.0], chunk.times])
        self._chunks.append(
            TimedChunk(start=start, ready=ready, times=times, targets=Trajectory(values=values, kinds=kinds))
        )

    def command(self, tick: int) -> Mapping[str, FloatArray]:
        """Canonical absolute targets [1, ...] by action field for `tick`; ticks are asked for in order."""
        assert tick == len(self._commands), "ticks are asked for in order"
        ready = [chunk for chunk in self._chunks if chunk.ready <= tick]
        weighted = self._weights(ready, tick)
        points = [chunk.at(self._seconds(chunk, tick)) for chunk, _ in weighted]
        kinds = {field.name: field.kind for field in self._fields}
        point = mean(points, [weight for _, weight in weighted], kinds)
        self._commands.append(point)
        return point

    def _seconds(self, chunk: TimedChunk, tick: int) -> float:
        return (tick + 1 - chunk.start) / self.spec.control_hz

    def _reaches(self, chunk: TimedChunk, tick: int) -> bool:
        # A millionth of a tick absorbs the rounding of k * horizon / T.
        return self._seconds(chunk, tick) <= chunk.times[-1] + 1e-6 / self.spec.control_hz

    def _weights(self, ready: Sequence[TimedChunk], tick: int) -> list[tuple[TimedChunk, float]]:
        """Chunks in force, newest first, with what each counts."""
        newest = ready[-1]
        older = [chunk for chunk in reversed(ready[:-1]) if self._reaches(chunk, tick)]
        if self.execution.blend == "none" or not older:
            return [(newest, 1.0)]
        if self.execution.blend == "exponential":
            return [(chunk, math.exp(-age)) for age, chunk in enumerate([newest, *older])]
        before = older[0]
        # The old chunk's last target is due horizon ticks after its start: that many commands it has.
        left = round(before.times[-1] * self.spec.control_hz) + before.start - newest.ready
        fading = min(self.execution.execute, left)
        share = min(1.0, (tick - newest.ready + 1) / (fading + 1))
        return [(newest, share), (before, 1.0 - share)]


def between(first: Point, second: Point, share: float, kinds: Mapping[str, str]) -> Point:
    """The point a `share` of the way from `first` to `second`: rotations along the shortest arc, the rest straight."""
    if share == 0.0:
        return first
    out = {}
    for name, start in first.items():
        if kinds[name] == "rotation":
            both = np.concatenate([start, second[name]])
            out[name] = interpolate(both, np.array([0]), np.array([1]), np.array([share]))
        else:
            out[name] = (1.0 - share) * start + share * second[name]
    return out


def mean(points: Sequence[Point], weights: Sequence[float], kinds: Mapping[str, str]) -> Point:
    """The weighted mean, on the group for rotations: one point after the other is drawn into the mean so far."""
    out, total = points[0], weights[0]
    for point, weight in zip(points[1:], weights[1:], strict=True):
        total += weight
        out = between(out, point, weight / total, kinds)
    return out
