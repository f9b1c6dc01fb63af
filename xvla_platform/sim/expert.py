"""Scripted expert: go above the named cube, descend, close, lift, hold; it looks at the true state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from xvla_platform.sim.environment import TableEnvironment
from xvla_platform.sim.frames import Array, from_rotation_vector, rotation_vector, rotation_z, top_down
from xvla_platform.sim.setup import ExpertSettings

LEASH = 0.07  # m; the commanded pose never runs further ahead of the measured one
LEASH_ANGLE = 0.35  # rad
ACCELERATION = 0.9  # m/s^2
SLOW_RADIUS_RATE = 4.0  # 1/s; near the goal the speed falls with the distance
LEAST_SPEED = 0.04  # m/s
LATERAL_READY = 0.010  # m; the cube's axis is met this well before the fingers go down
YAW_READY = 0.14  # rad
GRASP_READY = 0.010  # m
LIFT_HEIGHT = 0.12  # m
LOST_HEIGHT = 0.035  # m; the cube must follow the gripper this closely while lifting
HOLD_SECONDS = 0.25
SHUT_SECONDS = (0.25, 0.9)  # least and most time given to the fingers
STILL_RATE = 0.35  # 1/s; slower fingers count as stopped


class Phase(Enum):
    """What the expert is doing."""

    REACH = "reach"
    CLOSE = "close"
    LIFT = "lift"
    HOLD = "hold"
    DONE = "done"


@dataclass(frozen=True)
class Command:
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


class Expert:
    """State machine of one episode. Call :meth:`act` once per control period until ``phase`` is DONE."""

    def __init__(self, env: TableEnvironment) -> None:
        self._env = env
        self._settings = env.setup.sim.expert
        self._period = 1.0 / env.control_hz
        self.phase = Phase.REACH
        self._position, self._rotation = env.grip_pose()
        self._speed = 0.0
        self._since = 0
        self._opening = env.opening()
        self._anchor: tuple[Array, Array] = (self._position, self._rotation)

    def act(self) -> Command:
        """Next target: a bounded step along the way from the measured pose to the phase's goal."""
        position, rotation = self._env.grip_pose()
        goal_position, goal_rotation = self._goal(position, rotation)
        self._advance(position, rotation, goal_position, goal_rotation)
        opening = 1.0 if self.phase is Phase.REACH else 0.0
        self._since += 1
        return Command(self._position.copy(), self._rotation.copy(), opening)

    def _enter(self, phase: Phase) -> None:
        self.phase, self._since = phase, 0

    def _goal(self, position: Array, rotation: Array) -> tuple[Array, Array]:
        """Update the phase and return its goal pose."""
        target = self._env.target
        grasp, turn = grasp_pose(self._env, target, self._settings)
        if self.phase is Phase.REACH:
            lateral = float(np.linalg.norm(position[:2] - grasp[:2]))
            yaw_error = float(np.linalg.norm(rotation_vector(turn @ rotation.T)))
            if lateral < LATERAL_READY and yaw_error < YAW_READY and abs(position[2] - grasp[2]) < GRASP_READY:
                self._anchor = (grasp, turn)
                self._enter(Phase.CLOSE)
            else:
                return self._approach(grasp, lateral, yaw_error), turn
        if self.phase is Phase.CLOSE:
            self._close()
        if self.phase in (Phase.LIFT, Phase.HOLD):
            self._lift(position)
        if self.phase is Phase.REACH:
            return self._approach(grasp, 1.0, 1.0), turn
        anchor, turn = self._anchor
        up = LIFT_HEIGHT if self.phase in (Phase.LIFT, Phase.HOLD, Phase.DONE) else 0.0
        return anchor + np.array([0.0, 0.0, up]), turn

    def _approach(self, grasp: Array, lateral: float, yaw_error: float) -> Array:
        """A funnel: the further off the cube's axis, the higher the goal."""
        off = max(lateral - LATERAL_READY, 0.0) * 4.0 + max(yaw_error - YAW_READY, 0.0) * 0.3
        return grasp + np.array([0.0, 0.0, min(off, self._settings.hover)])

    def _close(self) -> None:
        opening = self._env.opening()
        moving = abs(opening - self._opening) / self._period > STILL_RATE
        self._opening = opening
        elapsed = self._since * self._period
        if (elapsed >= SHUT_SECONDS[0] and not moving) or elapsed >= SHUT_SECONDS[1]:
            self._enter(Phase.LIFT)

    def _lift(self, position: Array) -> None:
        raised = position[2] - self._anchor[0][2]
        cube = self._env.cube_pose(self._env.target)[0]
        if np.linalg.norm(cube - position) > LOST_HEIGHT + 0.01:
            self._enter(Phase.REACH)
        elif self.phase is Phase.LIFT and raised > LIFT_HEIGHT - 0.015:
            self._enter(Phase.HOLD)
        elif self.phase is Phase.HOLD and self._since * self._period >= HOLD_SECONDS:
            self._enter(Phase.DONE)

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
                start, length = rng.uniform(0.1, 2.6), rng.uniform(0.2, 0.5)
                self._pushes.append((start, start + length, offset, float(np.clip(rng.normal(), -1.6, 1.6)) * 0.22))
        self._time = 0.0

    def apply(self, command: Command, height: float, phase: Phase) -> Command:
        """The command as executed. ``height`` m of the grip site above the cubes' centres bounds the push."""
        if not self._active:
            return command
        self._time += self._period
        self._tremor = 0.8 * self._tremor + self._rng.normal(0.0, 0.0018, size=3)
        offset, yaw = self._tremor.copy(), 0.0
        free = phase in (Phase.REACH, Phase.LIFT)
        scale = float(np.clip((height - 0.02) / 0.06, 0.15, 1.0)) if phase is Phase.REACH else 0.4
        for start, end, push, turn in self._pushes:
            if free and start <= self._time < end:
                offset += push * scale
                yaw += turn * scale
        if phase is not Phase.REACH:
            offset[2] = max(offset[2], 0.0)
        elif height < 0.05:
            offset[2] = max(offset[2], -0.004)
        return Command(command.position + offset, rotation_z(yaw) @ command.rotation, command.opening)
