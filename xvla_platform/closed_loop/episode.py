"""One episode: the policy observes, its chunks become commands, the environment answers, until it is over."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from xvla_platform.closed_loop.conditions import OWN, Condition, Material, changed
from xvla_platform.closed_loop.contract import CheckedEnvironment, Moment
from xvla_platform.closed_loop.execution import Controller, Execution
from xvla_platform.closed_loop.film import Film
from xvla_platform.data.canonical import recorded_actions
from xvla_platform.errors import XvlaError
from xvla_platform.policy.policy import ActionChunk, Observation
from xvla_platform.specs.records import EmbodimentRecord


class Actor(Protocol):
    """Whatever answers an observation with a chunk: a `Policy`, or a script to compare it with."""

    @property
    def record(self) -> EmbodimentRecord:
        """The robot that is driven."""

    def reset(self) -> None:
        """An episode begins: forget the one before."""

    def act(self, observation: Observation, *, first_state: Any, seed: int) -> ActionChunk:
        """One chunk; after the same reset and calls, the same."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """How one episode went.

    Attributes:
        index: Its number within its task and condition.
        seed: What the environment was reset with.
        approached: Whether the hand went for what the instruction names; None where the environment does not know.
        seconds: The environment's clock at the end; for a success, the time it took.
        ended: `success`, `terminated` or `truncated` by the environment, or `time limit`.
        chunks: How often the policy was asked.
        cost: CPU seconds of this process by what they were spent on.
    """

    condition: str
    task: str
    index: int
    seed: int
    instruction: str
    success: bool
    approached: bool | None
    seconds: float
    ended: str
    chunks: int
    cost: Mapping[str, float]

    def outcome(self) -> dict[str, Any]:
        """Everything but the cost: what is the same whenever the episode is run again."""
        return {name: value for name, value in asdict(self).items() if name != "cost"}


def run_episode(
    policy: Actor,
    env: CheckedEnvironment,
    *,
    task: str,
    index: int,
    seed: int,
    execution: Execution,
    time_limit_s: float,
    condition: Condition = OWN,
    material: Material | None = None,
    film: Film | None = None,
) -> Episode:
    """Run one episode; equal arguments give equal outcomes wherever the environment keeps its own promise of that.

    Args:
        time_limit_s: The episode ends after this time on the robot's clock.
        condition: What is changed about the observations; rows of the slot are exchanged by the caller.
        film: Where the episode's frames go.
    """
    clock = _Clock()
    material = material or Material()
    policy.reset()
    moment = env.reset(seed, task)
    clock.spent("environment")
    assert moment.images is not None
    begin, instruction = moment, moment.instruction
    first_state = moment.state.copy()
    controller = Controller(env.spec, execution)
    limit = max(1, round(time_limit_s * env.spec.control_hz))
    chunks, ended, approached = 0, "time limit", None
    for tick in range(limit):
        if film is not None and film.wants(tick):
            film.add(moment)
            clock.spent("film")
        if execution.observes_at(tick):
            observation = changed(
                _observation(moment),
                condition,
                material,
                first_images=begin.images or {},
                other_instruction=begin.other_instruction,
            )
            chunk = policy.act(observation, first_state=first_state, seed=chunk_seed(seed, chunks))
            controller.add(chunk, tick)
            chunks += 1
            clock.spent("policy")
        row = recorded_actions(env.spec, controller.command(tick), moment.state, first_state)[0]
        if not np.isfinite(row).all():
            raise XvlaError("the policy's command is not finite", field="action", found=row.tolist())
        clock.spent("control")
        ahead = tick + 1
        images = execution.observes_at(ahead) or (film is not None and film.wants(ahead))
        moment = env.step(row, images=images)
        clock.spent("environment")
        approached = moment.approached if moment.approached is not None else approached
        if moment.success or moment.over:
            ended = "success" if moment.success else str(moment.over)
            break
    if film is not None:
        film.finish(moment, success=moment.success, approached=approached)
        clock.spent("film")
    return Episode(
        condition=condition.name,
        task=task,
        index=index,
        seed=seed,
        instruction=instruction,
        success=moment.success,
        approached=approached,
        seconds=round(moment.seconds, 6),
        ended=ended,
        chunks=chunks,
        cost={name: round(seconds, 4) for name, seconds in clock.costs.items()},
    )


def chunk_seed(seed: int, chunk: int) -> int:
    """The noise of an episode's n-th chunk."""
    return int(np.random.SeedSequence((seed, chunk)).generate_state(1)[0])


def _observation(moment: Moment) -> Observation:
    assert moment.images is not None
    return Observation(images=moment.images, state=moment.state, instruction=moment.instruction)


class _Clock:
    """CPU seconds of this process, summed by label."""

    def __init__(self) -> None:
        self.costs: dict[str, float] = {}
        self._last = time.process_time()

    def spent(self, label: str) -> None:
        now = time.process_time()
        self.costs[label] = self.costs.get(label, 0.0) + now - self._last
        self._last = now
