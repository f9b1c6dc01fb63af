"""Episodes that begin as after a slip: the gripper has closed on nothing, or the cube lies beside its place.

An expert that never slips never shows how to go on from there, and a policy that slips once then rests for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from xvla_platform.sim.environment import Command, TableEnvironment
from xvla_platform.sim.expert import grasp_pose, working_arm
from xvla_platform.sim.frames import Array
from xvla_platform.sim.scene import Layout
from xvla_platform.sim.setup import ArmName
from xvla_platform.sim.tasks import Goal, Task

SLIP_STREAM = 5
DRAWS = 40
BESIDE = (0.025, 0.055)  # m between the cube's axis and fingers that missed it
ABOVE = (0.0, 0.12)  # m above grasp height of fingers that closed on nothing
CLEAR = 0.10  # m above grasp height; open fingers touch nothing there
MISSED = (0.052, 0.085)  # m between the destination and a cube that was let go beside it
ROOM = 0.05  # m between the centres of two cubes that do not touch
RELEASED = (0.05, 0.10)  # m above grasp height of a gripper that has let go
STRAY = 0.012  # m, spread of that gripper's place over the cube
CLOSING_SECONDS = 0.7
LOWERING_SECONDS = 0.8


@dataclass(frozen=True)
class Slip:
    """How a scene begins: ``layout``, joint ``angles`` (J,) by arm, the ``goal`` that was slipped at, and the world
    grip-site height in m to which closed fingers go down first (None: they are open)."""

    layout: Layout
    angles: dict[ArmName, Array]
    goal: Goal
    lower_to: float | None


def draw_slip(
    env: TableEnvironment,
    rng: np.random.Generator,
    layout: Layout,
    angles: Mapping[ArmName, Array],
    task: Task,
    cube: int,
) -> Slip | None:
    """Draw what has gone wrong at the ``cube``; None where no draw can be reached."""
    for _ in range(DRAWS):
        goals = [goal for goal in task.goals(layout) if goal.cube == cube]
        goal = goals[int(rng.integers(len(goals)))]
        env.place(layout, angles, task, goal, "")
        destination = task.destination(env.state(), goal)
        missed = destination is not None and rng.random() < 0.5
        scene = layout
        if missed:
            assert destination is not None
            moved = layout.positions.copy()
            moved[cube, :2] = destination[:2] + _offset(rng, MISSED)
            if min(np.linalg.norm(moved[i] - moved[cube]) for i in range(len(moved)) if i != cube) < ROOM:
                continue
            scene = replace(layout, positions=moved)
            env.place(scene, angles, task, goal, "")
        name = working_arm(env)
        arm = env.arms[name]
        position, rotation = grasp_pose(env, cube, env.setup.sim.expert)
        lower_to = None
        if missed:
            position[:2] += rng.normal(0.0, STRAY, size=2)
            position[2] += rng.uniform(*RELEASED)
        else:
            # Fingers that closed on nothing are beside the cube, or carry nothing to where it should be.
            carried = destination is not None and rng.random() < 0.4
            if carried:
                assert destination is not None
                position[:2] = destination[:2]
            lower_to = float(position[2] + (CLEAR if carried else rng.uniform(*ABOVE)))
            position[:2] += _offset(rng, BESIDE)
            position[2] += CLEAR
        reached = arm.reach(position, rotation, arm.home)
        if reached is not None:
            return Slip(scene, {**angles, name: reached}, goal, lower_to)
    return None


def slip(env: TableEnvironment, begun: Slip) -> None:
    """Bring the placed scene to where the slip has happened: close on nothing and go down, if that is the slip."""
    if begun.lower_to is None:
        return
    name = working_arm(env)
    waiting = {other: Command(arm.joints(), 1.0) for other, arm in env.arms.items()}
    arm = env.arms[name]
    position, rotation = arm.pose()
    for _ in range(round(CLOSING_SECONDS * env.control_hz)):
        env.apply({**waiting, name: Command(waiting[name].joints, 0.0)})
    ticks = round(LOWERING_SECONDS * env.control_hz)
    for tick in range(ticks):
        height = position[2] + (begun.lower_to - position[2]) * (tick + 1) / ticks
        joints = arm.solve(np.array([*position[:2], height]), rotation)
        env.apply({**waiting, name: Command(joints, 0.0)})


def _offset(rng: np.random.Generator, span: tuple[float, float]) -> Array:
    angle, length = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(*span)
    return np.array([np.cos(angle), np.sin(angle)]) * length
