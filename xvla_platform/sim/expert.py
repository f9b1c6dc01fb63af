"""Scripted expert: take the named cube from above, then hold it up or bring it where it belongs and let go.

It looks at the true state. It knows no task but through where the task wants the cube.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from xvla_platform.sim.environment import TableEnvironment
from xvla_platform.sim.frames import Array, from_rotation_vector, rotation_vector, rotation_z, top_down
from xvla_platform.sim.scene import HALF_EDGE, TABLE_HEIGHT
from xvla_platform.sim.setup import ArmName, ExpertSettings

LEASH = 0.07  # m; the commanded pose never runs further ahead of the measured one
LEASH_ANGLE = 0.35  # rad
ACCELERATION = 0.9  # m/s^2
SLOW_RADIUS_RATE = 4.0  # 1/s; near the goal the speed falls with the distance
LEAST_SPEED = 0.04  # m/s
LATERAL_READY = 0.010  # m; the cube's axis is met this well before the fingers go down
YAW_READY = 0.14  # rad
GRASP_READY = 0.010  # m
LIFT_HEIGHT = 0.12  # m, to hold a cube up
CARRY_HEIGHT = 0.09  # m, to carry it past others
CARRY_READY = 0.006  # m; how well the cube meets its destination before the fingers open
LOST_HEIGHT = 0.045  # m; the cube must stay this close to the gripper while it is carried
LOOSE = 0.003  # m above its destination at which a cube is let go
HOLD_SECONDS = 0.5
RETREAT_HEIGHT = 0.08  # m
SHUT_SECONDS = (0.25, 0.9)  # least and most time given to the fingers
STILL_RATE = 0.35  # 1/s; slower fingers count as stopped
MAX_OPEN_SECONDS = 0.5


class Phase(Enum):
    """What the expert is doing."""

    REACH = "reach"
    CLOSE = "close"
    LIFT = "lift"
    HOLD = "hold"
    CARRY = "carry"
    OPEN = "open"
    RETREAT = "retreat"
    DONE = "done"


@dataclass(frozen=True)
class Target:
    """World grip-site target: ``position`` (3,) m, ``rotation`` (3, 3), ``opening`` 1 open or 0 closed."""

    position: Array
    rotation: Array
    opening: float


def grasp_pose(env: TableEnvironment, index: int, settings: ExpertSettings) -> tuple[Array, Array]:
    """World grip-site pose (3,), (3, 3) that grasps a cube from above, fingers along its nearest faces."""
    position, rotation = env.cube_pose(index)
    yaw = float(np.arctan2(rotation[1, 0], rotation[0, 0]))
    # A cube looks the same after a quarter turn; take the turn nearest to the gripper's neutral one.
    yaw = (yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4
    return position + np.array([0.0, 0.0, settings.grasp_height]), top_down(yaw)


def working_arm(env: TableEnvironment) -> ArmName:
    """The arm whose base is nearest to the middle between the named cube and where it has to go."""
    cube = env.cube_pose(env.goal.cube)[0]
    destination = env.task.destination(env.state(), env.goal)
    middle = cube if destination is None else (cube + destination) / 2
    return min(env.arms, key=lambda name: float(np.linalg.norm(env.arms[name].base[:2] - middle[:2])))


class Expert:
    """State machine of one episode. Call :meth:`act` once per control period until ``phase`` is DONE.

    ``name`` is the arm it works with.
    """

    def __init__(self, env: TableEnvironment) -> None:
        self._env = env
        self._settings = env.setup.sim.expert
        self._period = 1.0 / env.control_hz
        self.name = working_arm(env)
        self._arm = env.arms[self.name]
        self.phase = Phase.REACH
        self._position, self._rotation = self._arm.pose()
        self._speed = 0.0
        self._since = 0
        self._opening = self._arm.opening()
        self._anchor: tuple[Array, Array] = (self._position, self._rotation)

    def act(self) -> Target:
        """Next target: a bounded step along the way from the measured pose to the phase's goal."""
        position, rotation = self._arm.pose()
        goal_position, goal_rotation = self._goal(position, rotation)
        self._advance(position, rotation, goal_position, goal_rotation)
        opens = self.phase in (Phase.REACH, Phase.OPEN, Phase.RETREAT)
        opens = opens or (self.phase is Phase.DONE and self._destination() is not None)
        self._since += 1
        return Target(self._position.copy(), self._rotation.copy(), float(opens))

    def clearance(self) -> float:
        """Height of the gripper over what it could knock against, m."""
        floor = TABLE_HEIGHT + HALF_EDGE
        destination = self._destination()
        if self.phase is Phase.CARRY and destination is not None:
            floor = float(destination[2])
        return float(self._arm.pose()[0][2]) - floor

    def _destination(self) -> Array | None:
        return self._env.task.destination(self._env.state(), self._env.goal)

    def _enter(self, phase: Phase) -> None:
        self.phase, self._since = phase, 0

    def _elapsed(self) -> float:
        return self._since * self._period

    def _goal(self, position: Array, rotation: Array) -> tuple[Array, Array]:
        """Update the phase and return its goal pose."""
        if self.phase is Phase.REACH:
            grasp, turn = grasp_pose(self._env, self._env.goal.cube, self._settings)
            lateral = float(np.linalg.norm(position[:2] - grasp[:2]))
            yaw_error = float(np.linalg.norm(rotation_vector(turn @ rotation.T)))
            if lateral >= LATERAL_READY or yaw_error >= YAW_READY or abs(position[2] - grasp[2]) >= GRASP_READY:
                # A funnel: the further off the cube's axis, the higher the goal.
                off = max(lateral - LATERAL_READY, 0.0) * 4.0 + max(yaw_error - YAW_READY, 0.0) * 0.3
                return grasp + np.array([0.0, 0.0, min(off, self._settings.hover)]), turn
            self._anchor = (grasp, turn)
            self._enter(Phase.CLOSE)
        if self.phase is Phase.CLOSE:
            self._close()
        if self.phase in (Phase.LIFT, Phase.HOLD, Phase.CARRY):
            return self._hold(position)
        if self.phase is Phase.OPEN:
            self._release()
        anchor, turn = self._anchor
        if self.phase in (Phase.RETREAT, Phase.DONE):
            if position[2] - anchor[2] > RETREAT_HEIGHT - 0.02 and self.phase is Phase.RETREAT:
                self._enter(Phase.DONE)
            return anchor + np.array([0.0, 0.0, RETREAT_HEIGHT]), turn
        return anchor, turn

    def _close(self) -> None:
        if self._fingers_rest():
            self._enter(Phase.LIFT)

    def _fingers_rest(self) -> bool:
        opening = self._arm.opening()
        moving = abs(opening - self._opening) / self._period > STILL_RATE
        self._opening = opening
        elapsed = self._elapsed()
        return (elapsed >= SHUT_SECONDS[0] and not moving) or elapsed >= SHUT_SECONDS[1]

    def _release(self) -> None:
        self._opening = self._arm.opening()
        touched = self._env.state().touched[self._env.goal.cube]
        if (self._elapsed() >= SHUT_SECONDS[0] and not touched) or self._elapsed() >= MAX_OPEN_SECONDS:
            self._enter(Phase.RETREAT)

    def _hold(self, position: Array) -> tuple[Array, Array]:
        """Lift the cube, then keep it up or carry it; back to REACH if it is lost."""
        anchor, turn = self._anchor
        cube = self._env.cube_pose(self._env.goal.cube)[0]
        destination = self._destination()
        if np.linalg.norm(cube - position) > LOST_HEIGHT + abs(self._settings.grasp_height):
            self._enter(Phase.REACH)
            return position + np.array([0.0, 0.0, 0.03]), turn
        height = LIFT_HEIGHT if destination is None else CARRY_HEIGHT
        if self.phase is Phase.LIFT and position[2] - anchor[2] > height - 0.015:
            self._enter(Phase.HOLD if destination is None else Phase.CARRY)
        if self.phase is Phase.HOLD and self._elapsed() >= HOLD_SECONDS:
            self._enter(Phase.DONE)
        if self.phase is not Phase.CARRY or destination is None:
            return anchor + np.array([0.0, 0.0, height]), turn
        drop = destination + np.array([0.0, 0.0, LOOSE])
        way = drop - cube
        off = float(np.linalg.norm(way[:2]))
        if off < CARRY_READY and abs(way[2]) < CARRY_READY:
            self._anchor = (position, turn)
            self._enter(Phase.OPEN)
            return position, turn
        up = min(max(off - CARRY_READY, 0.0) * 4.0, CARRY_HEIGHT - 0.02)
        return position + way + np.array([0.0, 0.0, up]), turn

    def _advance(self, position: Array, rotation: Array, goal: Array, goal_rotation: Array) -> None:
        """Move the commanded pose towards the goal with bounded speed, acceleration and lead."""
        lead = self._position - position
        distance = float(np.linalg.norm(lead))
        if distance > LEASH:
            self._position = position + lead * (LEASH / distance)
            self._speed = min(self._speed, 0.5 * self._settings.speed)
        ahead = rotation_vector(self._rotation @ rotation.T)
        angle = float(np.linalg.norm(ahead))
        if angle > LEASH_ANGLE:
            self._rotation = from_rotation_vector(ahead * (LEASH_ANGLE / angle)) @ rotation
        way = goal - self._position
        left = float(np.linalg.norm(way))
        ceiling = min(self._settings.speed, LEAST_SPEED + SLOW_RADIUS_RATE * left)
        self._speed = min(self._speed + ACCELERATION * self._period, ceiling)
        if left > 0:
            self._position = self._position + way * min(1.0, self._speed * self._period / left)
        turn = rotation_vector(goal_rotation @ self._rotation.T)
        rest = float(np.linalg.norm(turn))
        if rest > 0:
            part = min(1.0, self._settings.turn_speed * self._period / rest, 4.0 * self._period + 0.02 / rest)
            self._rotation = from_rotation_vector(turn * part) @ self._rotation


class Disturbance:
    """Pushes and tremor added to what is executed, never to what is recorded."""

    def __init__(self, rng: np.random.Generator, period: float, active: bool) -> None:
        self._rng, self._period, self._active = rng, period, active
        self._tremor = np.zeros(3)
        self._pushes: list[tuple[float, float, Array, float]] = []
        if active:
            for _ in range(int(rng.integers(1, 4))):
                offset = np.clip(rng.normal(size=3), -1.6, 1.6) * np.array([0.04, 0.04, 0.025])
                start, length = rng.uniform(0.1, 4.0), rng.uniform(0.2, 0.5)
                self._pushes.append((start, start + length, offset, float(np.clip(rng.normal(), -1.6, 1.6)) * 0.22))
        self._time = 0.0

    def apply(self, target: Target, clearance: float, phase: Phase) -> Target:
        """The target as executed; ``clearance`` m bounds the push."""
        if not self._active:
            return target
        self._time += self._period
        self._tremor = 0.8 * self._tremor + self._rng.normal(0.0, 0.0018, size=3)
        offset, yaw = self._tremor.copy(), 0.0
        descends = phase in (Phase.REACH, Phase.CARRY)
        scale = float(np.clip((clearance - 0.02) / 0.06, 0.15, 1.0)) if descends else 0.4
        if phase is Phase.CARRY:
            scale = min(scale, 0.6)
        if phase in (Phase.OPEN, Phase.RETREAT):
            offset *= 0.3
        for start, end, push, turn in self._pushes:
            if phase in (Phase.REACH, Phase.LIFT, Phase.CARRY) and start <= self._time < end:
                offset += push * scale
                yaw += turn * scale
        if not descends:
            offset[2] = max(offset[2], 0.0)
        elif clearance < 0.05:
            offset[2] = max(offset[2], -0.004)
        return Target(target.position + offset, rotation_z(yaw) @ target.rotation, target.opening)
