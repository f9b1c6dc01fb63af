"""Episodes of one scene: the same layout once for every cube that is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xvla_platform.sim.environment import Image, TableEnvironment
from xvla_platform.sim.expert import Disturbance, Expert, Phase, grasp_pose
from xvla_platform.sim.frames import Array
from xvla_platform.sim.scene import TABLE_HEIGHT, Layout, sample_instruction, sample_layout
from xvla_platform.sim.vectors import encode

ATTEMPTS = 3
MAX_SECONDS = 6.5
DISTURBED_SHARE = 0.6
LAYOUTS_PER_ARM_POSE = 3
STILL_STREAM = 3


@dataclass(frozen=True)
class Episode:
    """What one episode adds to a dataset: float32 ``states`` (N, D) and ``actions`` (N, A), one uint8 image
    stack (N, H, W, 3) per camera name, and its instruction."""

    task: str
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    images: dict[str, Image]


@dataclass(frozen=True)
class LayoutResult:
    """All episodes of one layout (empty if a cube could not be picked), and how often the expert tried."""

    episodes: tuple[Episode, ...]
    attempts: int
    successes: int


@dataclass
class _Trace:
    states: list[tuple[Array, Array, float]]
    commands: list[tuple[Array, Array, float]]
    images: list[dict[str, Image]]


def record_layout(env: TableEnvironment, seed: int, per_scene: int) -> LayoutResult:
    """Record one successful episode for each of the first ``per_scene`` cubes of the layout drawn from ``seed``.

    A failed attempt is repeated with other disturbances, at most three times; a layout in which one cube resists
    is dropped as a whole, because its episodes are meant to differ in the instruction alone.
    """
    rng = np.random.default_rng(seed)
    layout = sample_layout(rng, env.setup.sim.min_separation)
    angles = env.sample_arm(rng)[1]
    episodes: list[Episode] = []
    attempts = successes = 0
    for colour in layout.colours[:per_scene]:
        for _ in range(ATTEMPTS):
            attempts += 1
            env.place(layout, angles, colour, sample_instruction(rng, colour))
            episode = _rollout(env, np.random.default_rng(rng.integers(2**63)))
            if episode is not None:
                successes += 1
                episodes.append(episode)
                break
        else:
            return LayoutResult((), attempts, successes)
    return LayoutResult(tuple(episodes), attempts, successes)


def still_layouts(env: TableEnvironment, seed: int) -> tuple[Episode, ...]:
    """One-frame episodes of a few layouts under one arm pose: the action is the grasp pose at the named cube."""
    rng = np.random.default_rng((STILL_STREAM, seed))
    angles = env.sample_arm(rng)[1]
    episodes: list[Episode] = []
    for _ in range(LAYOUTS_PER_ARM_POSE):
        layout = sample_layout(rng, env.setup.sim.min_separation)
        episodes.extend(_still(env, layout, angles, rng))
    return tuple(episodes)


def _still(env: TableEnvironment, layout: Layout, angles: Array, rng: np.random.Generator) -> list[Episode]:
    env.place(layout, angles, layout.colours[0], "")
    images = env.render()
    state = (*env.grip_pose(), env.opening())
    episodes = []
    for index, colour in enumerate(layout.colours):
        command = (*grasp_pose(env, index, env.setup.sim.expert), 1.0)
        trace = _Trace([state], [command], [images])
        episodes.append(_episode(env, sample_instruction(rng, colour), trace))
    return episodes


def _rollout(env: TableEnvironment, rng: np.random.Generator) -> Episode | None:
    """Run the expert once; None unless the named cube ends up lifted."""
    expert = Expert(env)
    disturbance = Disturbance(rng, 1.0 / env.control_hz, active=bool(rng.random() < DISTURBED_SHARE))
    trace = _Trace([], [], [])
    for _ in range(round(MAX_SECONDS * env.control_hz)):
        position, rotation = env.grip_pose()
        trace.states.append((position, rotation, env.opening()))
        trace.images.append(env.render())
        command = expert.act()
        trace.commands.append((command.position, command.rotation, command.opening))
        executed = disturbance.apply(command, position[2] - TABLE_HEIGHT - 0.02, expert.phase)
        env.step_world(executed.position, executed.rotation, executed.opening)
        if expert.phase is Phase.DONE:
            break
    if expert.phase is not Phase.DONE or not env.success():
        return None
    return _episode(env, env.instruction, trace)


def _episode(env: TableEnvironment, task: str, trace: _Trace) -> Episode:
    spec, frame = env.setup.spec, env.setup.frame
    vectors = []
    for fields, samples in ((spec.proprio.fields, trace.states), (spec.action.fields, trace.commands)):
        positions, rotations = frame.from_world(
            np.stack([sample[0] for sample in samples]), np.stack([sample[1] for sample in samples])
        )
        openings = np.array([sample[2] for sample in samples])
        vectors.append(encode(fields, positions, rotations, openings).astype(np.float32))
    images = {camera.name: np.stack([image[camera.name] for image in trace.images]) for camera in spec.cameras}
    return Episode(task=task, states=vectors[0], actions=vectors[1], images=images)
