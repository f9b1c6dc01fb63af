"""Episodes of one scene: the same layout once for every instruction that is asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xvla_platform.errors import XvlaError
from xvla_platform.sim.environment import Command, Image, TableEnvironment
from xvla_platform.sim.expert import Disturbance, Expert, Phase, grasp_pose, working_arm
from xvla_platform.sim.frames import Array
from xvla_platform.sim.scene import CUBES, Layout, sample_layout
from xvla_platform.sim.setup import ArmName
from xvla_platform.sim.slips import SLIP_STREAM, Slip, draw_slip, slip
from xvla_platform.sim.tasks import Goal, Task, chosen
from xvla_platform.sim.vectors import ArmRows, encode
from xvla_platform.specs.fields import FieldSpec

ATTEMPTS = 3
MAX_SECONDS = 9.0
DISTURBED_SHARE = 0.6
LAYOUTS_PER_ARM_POSE = 3
STILL_STREAM = 3
# Still scenes say where the named things are seen in the main view: shares of its width and height, from its left and
# top edge; -1, -1 where the sentence names no place.
OBJECT_PIXEL, PLACE_PIXEL = "grounding.uv", "grounding.place_uv"
NOWHERE = (-1.0, -1.0)

Sample = tuple[Array, Array, float, Array]  # world position (3,), rotation (3, 3), opening, joints (J,) of one arm


@dataclass(frozen=True)
class Episode:
    """What one episode adds to a dataset: float32 ``states`` (N, D) and ``actions`` (N, A), one uint8 image
    stack (N, H, W, 3) per camera name, its ``instruction``, the ``task``'s name, and float32 ``extra`` columns."""

    instruction: str
    task: str
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    images: dict[str, Image]
    extra: dict[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class LayoutResult:
    """All episodes of one layout (empty if one could not be done), and the outcome of every attempt, by task."""

    episodes: tuple[Episode, ...]
    attempts: tuple[tuple[str, bool], ...] = ()


@dataclass
class _Trace:
    states: list[dict[ArmName, Sample]]
    commands: list[dict[ArmName, Sample]]
    images: list[dict[str, Image]]


def record_layout(
    env: TableEnvironment, seed: int, per_scene: int, task: str = "pick", slips: float = 0.0
) -> LayoutResult:
    """Record one successful episode for each of the first ``per_scene`` cubes of the layout drawn from ``seed``.

    A share of ``slips`` of all layouts begins as after a slip at one of these cubes.

    With several tasks they take turns. A failed attempt is repeated with other disturbances, at most three times; a
    layout in which one goal resists is dropped as a whole, because its episodes are meant to differ in the instruction
    alone.
    """
    tasks = chosen(task)
    rng = np.random.default_rng(seed)
    layout = sample_layout(rng, env.setup.sim.min_separation)
    angles = env.sample_arms(rng)
    kinds = [tasks[(seed + cube) % len(tasks)] for cube in range(per_scene)]
    slipped = _sample_slip(env, seed, layout, angles, kinds, slips)
    if slipped is not None:
        layout, angles = slipped.layout, slipped.angles
    episodes: list[Episode] = []
    attempts: list[tuple[str, bool]] = []
    for cube, kind in enumerate(kinds):
        goal = _sample_goal(rng, kind, layout, cube)
        if slipped is not None and slipped.goal.cube == cube:
            goal = slipped.goal
        for _ in range(ATTEMPTS):
            env.place(layout, angles, kind, goal, _sample_sentence(rng, kind, layout, goal))
            if slipped is not None:
                slip(env, slipped)
            episode = _rollout(env, np.random.default_rng(rng.integers(2**63)))
            attempts.append((kind.name, episode is not None))
            if episode is not None:
                episodes.append(episode)
                break
        else:
            return LayoutResult((), tuple(attempts))
    return LayoutResult(tuple(episodes), tuple(attempts))


def _sample_slip(
    env: TableEnvironment,
    seed: int,
    layout: Layout,
    angles: Mapping[ArmName, Array],
    kinds: Sequence[Task],
    share: float,
) -> Slip | None:
    """A slip in this share of all scenes; from a stream of its own, so that the other scenes stay what they are."""
    rng = np.random.default_rng((SLIP_STREAM, seed))
    if rng.random() >= share:
        return None
    cube = int(rng.integers(len(kinds)))
    return draw_slip(env, rng, layout, angles, kinds[cube], cube)


def still_layouts(env: TableEnvironment, seed: int, task: str = "pick") -> LayoutResult:
    """One-frame episodes of a few layouts under one arm pose: the action is the grasp pose at the named cube."""
    main = env.setup.spec.ordered_cameras[0]
    if env.setup.sim.cameras[main.name].mount != "world":
        raise XvlaError(
            "still scenes hold where things are seen in the main view, so it must stand still",
            file=env.setup.folder / "sim.yaml",
            field=f"cameras.{main.name}.mount",
            found="tool",
            allowed="world",
        )
    tasks = chosen(task)
    rng = np.random.default_rng((STILL_STREAM, seed))
    angles = env.sample_arms(rng)
    episodes: list[Episode] = []
    for turn in range(LAYOUTS_PER_ARM_POSE):
        layout = sample_layout(rng, env.setup.sim.min_separation)
        kinds = [tasks[(turn + cube) % len(tasks)] for cube in range(CUBES)]
        episodes.extend(_stills(env, layout, angles, kinds, rng))
    return LayoutResult(tuple(episodes))


def _stills(
    env: TableEnvironment,
    layout: Layout,
    angles: Mapping[ArmName, Array],
    kinds: Sequence[Task],
    rng: np.random.Generator,
) -> list[Episode]:
    """One episode for each cube; none at all if the arm cannot reach one of them."""
    episodes: list[Episode] = []
    images: dict[str, Image] = {}
    for cube, kind in enumerate(kinds):
        goal = _sample_goal(rng, kind, layout, cube)
        env.place(layout, angles, kind, goal, _sample_sentence(rng, kind, layout, goal))
        images = images or env.render()
        state = _samples(env)
        name = working_arm(env)
        position, rotation = grasp_pose(env, cube, env.setup.sim.expert)
        joints = env.arms[name].reach(position, rotation, env.arms[name].home)
        if joints is None:
            return []
        command = {**_waiting(state), name: (position, rotation, 1.0, joints)}
        destination = kind.destination(env.state(), goal)
        extra = {
            OBJECT_PIXEL: _pixel(env, layout.positions[cube]),
            PLACE_PIXEL: np.array([NOWHERE], np.float32) if destination is None else _pixel(env, destination),
        }
        episodes.append(_episode(env, _Trace([state], [command], [images]), extra))
    return episodes


def _sample_goal(rng: np.random.Generator, task: Task, layout: Layout, cube: int) -> Goal:
    goals = [goal for goal in task.goals(layout) if goal.cube == cube]
    return goals[int(rng.integers(len(goals)))]


def _sample_sentence(rng: np.random.Generator, task: Task, layout: Layout, goal: Goal) -> str:
    sentences = task.instructions(layout, goal)
    return sentences[int(rng.integers(len(sentences)))]


def _samples(env: TableEnvironment) -> dict[ArmName, Sample]:
    return {name: (*arm.pose(), arm.opening(), arm.joints()) for name, arm in env.arms.items()}


def _waiting(state: Mapping[ArmName, Sample]) -> dict[ArmName, Sample]:
    """Commands that leave every arm where it is, gripper open."""
    return {name: (position, rotation, 1.0, joints) for name, (position, rotation, _, joints) in state.items()}


def _pixel(env: TableEnvironment, point: Array) -> NDArray[np.float32]:
    """Where a world point is seen in the main view, (1, 2)."""
    main = env.setup.spec.ordered_cameras[0]
    return np.array([env.setup.sim.cameras[main.name].project(point, main.resolution)], np.float32)


def _rollout(env: TableEnvironment, rng: np.random.Generator) -> Episode | None:
    """Run the expert once; None unless the task ends up done."""
    expert = Expert(env)
    arm = env.arms[expert.name]
    disturbance = Disturbance(rng, 1.0 / env.control_hz, active=bool(rng.random() < DISTURBED_SHARE))
    waiting = _waiting(_samples(env))
    trace = _Trace([], [], [])
    for _ in range(round(MAX_SECONDS * env.control_hz)):
        trace.states.append(_samples(env))
        trace.images.append(env.render())
        target = expert.act()
        intended = arm.solve(target.position, target.rotation)
        told = {**waiting, expert.name: (target.position, target.rotation, target.opening, intended)}
        trace.commands.append(told)
        executed = disturbance.apply(target, expert.clearance(), expert.phase)
        joints = intended if executed is target else arm.solve(executed.position, executed.rotation)
        commands = {name: Command(sample[3], sample[2]) for name, sample in told.items()}
        env.apply({**commands, expert.name: Command(joints, executed.opening)})
        if expert.phase is Phase.DONE and env.status()["success"]:
            return _episode(env, trace, {})
    return None


def _episode(env: TableEnvironment, trace: _Trace, extra: dict[str, NDArray[np.float32]]) -> Episode:
    spec = env.setup.spec
    images = {camera.name: np.stack([image[camera.name] for image in trace.images]) for camera in spec.cameras}
    states = _rows(env, spec.proprio.fields, trace.states)
    actions = _rows(env, spec.action.fields, trace.commands)
    return Episode(env.instruction, env.task.name, states, actions, images, extra)


def _rows(
    env: TableEnvironment, fields: Sequence[FieldSpec], samples: Sequence[Mapping[ArmName, Sample]]
) -> NDArray[np.float32]:
    arms: dict[str, ArmRows] = {}
    for name, arm in env.arms.items():
        positions, rotations, openings, joints = (np.stack([sample[name][i] for sample in samples]) for i in range(4))
        arms[name] = ArmRows(*arm.frame.from_world(positions, rotations), openings, joints)
    return encode(fields, arms).astype(np.float32)
