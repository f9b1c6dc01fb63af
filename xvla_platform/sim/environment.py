"""A table with one robot, three cubes and two plates, driven and observed in the robot's own recorded convention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.errors import XvlaError
from xvla_platform.sim.arm import Arm
from xvla_platform.sim.backend import require_simulator
from xvla_platform.sim.frames import Array
from xvla_platform.sim.model import TIMESTEP, build
from xvla_platform.sim.scene import (
    COLOURS,
    CUBES,
    PLATE_COLOURS,
    PLATE_HEIGHT,
    PLATES,
    TABLE_HEIGHT,
    Layout,
    StartPose,
    sample_layout,
    sample_start,
)
from xvla_platform.sim.setup import ArmName, SimSetup
from xvla_platform.sim.tasks import Goal, TableState, Task, chosen
from xvla_platform.sim.vectors import ArmRows, decode, encode

Image = NDArray[np.uint8]
EVALUATION_STREAM = 7
HELD_SECONDS = 0.3  # a task counts as done when it has been for this long
CLOSE_BY = 0.055  # m between grip site and a cube's centre: the gripper went to this cube


@dataclass(frozen=True)
class Observation:
    """What the robot senses at one moment, as its dataset holds it.

    ``images``: uint8 (H, W, 3), RGB, by camera name; ``state``: float32 (D,), the declared proprio vector in recorded
    units; ``instruction``: the sentence of this episode.
    """

    images: dict[str, Image]
    state: NDArray[np.float32]
    instruction: str


@dataclass(frozen=True)
class Command:
    """What one arm is told: joint angles (J,) rad, and gripper ``opening``, 1 open or 0 closed."""

    joints: Array
    opening: float


class TableEnvironment:
    """One robot at its table, e.g. ``TableEnvironment(load_setup("plugins/my_arm"))``.

    For closed loops: ``reset(seed, task)`` draws a scene and returns the first observation, ``step(action)`` advances
    one control period (1 / ``control_hz`` s) under an action vector as recorded in the dataset, ``observe()`` gives the
    next observation (rendering is the dearest part, so only when asked), ``status()`` tells how the episode stands.
    ``unstable`` says that the simulator lost its numbers, as wild commands can make it. ``close()`` frees the
    renderers. Same seed, task and actions: same episode. World poses are poses of robosuite's grip sites.
    """

    def __init__(self, setup: SimSetup) -> None:
        require_simulator()
        import mujoco

        self.setup = setup
        parts = build(setup)
        self.model: Any = parts.model
        self.data: Any = mujoco.MjData(self.model)
        self.control_hz = setup.spec.control_hz
        self._substeps = round(1.0 / (self.control_hz * TIMESTEP))
        # `unstable` tells it; MuJoCo itself would write a file into whatever folder the command runs in.
        mujoco.set_mju_user_warning(lambda _: None)
        kinds = mujoco.mjtWarning
        self._lost = (int(kinds.mjWARN_BADQPOS), int(kinds.mjWARN_BADQVEL), int(kinds.mjWARN_BADQACC))
        self.arms: dict[ArmName, Arm] = {
            name: Arm(self.model, self.data, parts.robots[name], parts.grippers[name], arm)
            for name, arm in setup.sim.arms.items()
        }
        cubes = [self.model.body(f"cube{i}_main") for i in range(CUBES)]
        self._cube_bodies = np.array([body.id for body in cubes])
        self._cube_qpos = [int(self.model.jnt_qposadr[body.jntadr[0]]) for body in cubes]
        self._cube_dofs = [int(self.model.jnt_dofadr[body.jntadr[0]]) for body in cubes]
        self._cube_geoms = [self.model.geom(f"cube{i}_g0_vis").id for i in range(CUBES)]
        self._plate_geoms = [self.model.geom(f"plate{i}").id for i in range(PLATES)]
        names = [self.model.body(i).name for i in range(self.model.nbody)]
        self._gripper_body = np.array([name.startswith("gripper") for name in names])
        self._renderers: dict[tuple[int, int], Any] = {}
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 0
        self._options.geomgroup[0] = 1
        self._options.sitegroup[:] = 0
        self._options.flags[mujoco.mjtVisFlag.mjVIS_CONVEXHULL] = 1
        self._measure_grippers()
        self.task: Task = chosen("pick")[0]
        self.goal = Goal(0)
        self.layout: Layout | None = None
        self.instruction = ""
        self._done_since: float | None = None
        self._first: int | None = None
        self._ticks, self.unstable = 0, False

    # Scene

    def reset(self, seed: int, task: str = "pick") -> Observation:
        """Draw a scene, a start pose and an instruction of the named task from ``seed``.

        All tasks share the scene of a seed.
        """
        (kind,) = chosen(task) if task != "all" else (chosen(task)[seed % len(chosen(task))],)
        # A stream of its own: scenes met here are never scenes that were recorded. A last 0 alone would be dropped, and
        # the stream that of recorded scene `EVALUATION_STREAM`.
        rng = np.random.default_rng((EVALUATION_STREAM, seed) if seed else (EVALUATION_STREAM, 0, 1))
        layout = sample_layout(rng, self.setup.sim.min_separation)
        angles = self.sample_arms(rng)
        goals = kind.goals(layout)
        goal = goals[int(rng.integers(len(goals)))]
        sentences = kind.instructions(layout, goal)
        self.place(layout, angles, kind, goal, sentences[int(rng.integers(len(sentences)))])
        return self.observe()

    def sample_arms(self, rng: np.random.Generator) -> dict[ArmName, Array]:
        """Draw a start for every arm and return its joint angles (J,).

        A single arm starts anywhere above the table; of two, each waits near its rest posture, out of the other's way.
        """
        if len(self.arms) > 1:
            return {name: arm.home + rng.normal(0.0, 0.04, size=len(arm.home)) for name, arm in self.arms.items()}
        ((name, arm),) = self.arms.items()
        for _ in range(50):
            start: StartPose = sample_start(rng)
            guess = arm.home + rng.normal(0.0, 0.12, size=len(arm.home))
            angles = arm.reach(start.position, start.rotation, guess)
            if angles is not None:
                return {name: angles}
        raise XvlaError("no reachable start pose in 50 draws", field="arms", found=name)

    def place(self, layout: Layout, angles: Mapping[ArmName, Array], task: Task, goal: Goal, instruction: str) -> None:
        """Put cubes, plates and arms (J,) where told, grippers open, everything at rest."""
        import mujoco

        mujoco.mj_resetData(self.model, self.data)
        self.layout, self.task, self.goal, self.instruction = layout, task, goal, instruction
        self._done_since = self._first = None
        self._ticks, self.unstable = 0, False
        for name, arm in self.arms.items():
            arm.place(angles[name])
        for i, address in enumerate(self._cube_qpos):
            half = layout.yaws[i] / 2
            self.data.qpos[address : address + 3] = layout.positions[i]
            self.data.qpos[address + 3 : address + 7] = [np.cos(half), 0.0, 0.0, np.sin(half)]
            self.model.geom_rgba[self._cube_geoms[i]] = COLOURS[layout.colours[i]]
        for i, geom in enumerate(self._plate_geoms):
            self.model.geom_pos[geom] = [*layout.plates[i][:2], TABLE_HEIGHT + PLATE_HEIGHT / 2]
            self.model.geom_rgba[geom] = PLATE_COLOURS[layout.plate_colours[i]]
        mujoco.mj_forward(self.model, self.data)

    # Motion

    def step(self, action: Array) -> None:
        """Advance one control period under a recorded action vector (D,)."""
        commands: dict[ArmName, Command] = {}
        for name, told in decode(self.setup.spec.action.fields, np.asarray(action)).items():
            arm = self.arms[name]  # type: ignore[index]
            joints = told.joints
            if joints is None:
                assert told.position is not None
                assert told.rotation is not None
                positions, rotations = arm.frame.to_world(told.position[None], told.rotation[None])
                joints = arm.solve(positions[0], rotations[0])
            commands[name] = Command(joints, told.opening)  # type: ignore[index]
        self.apply(commands)

    def apply(self, commands: Mapping[ArmName, Command]) -> None:
        """Advance one control period; every arm has its command."""
        for name, arm in self.arms.items():
            arm.command(commands[name].joints, commands[name].opening, 1.0 / self.control_hz)
            if self._first is None and commands[name].opening <= 0.5:
                self._first = self._cube_at(arm)
        self._advance()
        self._ticks += 1
        # MuJoCo puts a scene whose numbers are lost back to its start: what is seen then is no outcome.
        self.unstable = self.unstable or any(self.data.warning[kind].number for kind in self._lost)
        if self.unstable or not self.task.success(self.state(), self.goal):
            self._done_since = None
        elif self._done_since is None:
            self._done_since = self.seconds

    # What is true

    def state(self) -> TableState:
        """Cubes and what touches them, now."""
        assert self.layout is not None
        contacts = self.model.geom_bodyid[self.data.contact.geom].reshape(-1, 2)
        pairs = np.concatenate([contacts, contacts[:, ::-1]])
        touched = pairs[self._gripper_body[pairs[:, 0]], 1]
        speeds = np.array([np.linalg.norm(self.data.qvel[dof : dof + 3]) for dof in self._cube_dofs])
        cubes = self.data.xpos[self._cube_bodies].copy()
        return TableState(cubes, speeds, np.isin(self._cube_bodies, touched), self.layout)

    @property
    def seconds(self) -> float:
        """Time since the reset; the simulator's own starts anew where it becomes unstable."""
        return self._ticks * self._substeps * TIMESTEP

    def status(self) -> dict[str, Any]:
        """How the episode stands.

        ``success``: the task is done and has been for 0.3 s; ``approached``: whether the first cube that a gripper
        closed on is the named one (None while it has closed on none: the cube it is at, if it is at one);
        ``progress``: 0..1; ``seconds``: simulated time since the reset, or until the task was first done of late.
        """
        now = self.seconds
        done = self._done_since is not None and now - self._done_since >= HELD_SECONDS - 1e-9
        first = self._first
        if first is None:
            at = [cube for cube in map(self._cube_at, self.arms.values()) if cube is not None]
            first = at[0] if at else None
        return {
            "success": done,
            "approached": None if first is None else first == self.goal.cube,
            "progress": self.task.progress(self.state(), self.goal),
            "seconds": self._done_since if done else now,
        }

    def cube_pose(self, index: int) -> tuple[Array, Array]:
        """World pose of a cube: position (3,) m, rotation (3, 3)."""
        body = self._cube_bodies[index]
        return self.data.xpos[body].copy(), self.data.xmat[body].reshape(3, 3).copy()

    # Observation

    def observe(self) -> Observation:
        """Images, state vector and instruction of this moment."""
        return Observation(self.render(), self.proprio(), self.instruction)

    def proprio(self) -> NDArray[np.float32]:
        """State vector (D,) as recorded."""
        rows: dict[str, ArmRows] = {}
        for name, arm in self.arms.items():
            position, rotation = arm.pose()
            where, turn = arm.frame.from_world(position[None], rotation[None])
            rows[name] = ArmRows(where, turn, np.array([arm.opening()]), arm.joints()[None])
        return encode(self.setup.spec.proprio.fields, rows)[0].astype(np.float32)

    def render(self) -> dict[str, Image]:
        """One uint8 image (H, W, 3) per camera, by camera name."""
        images: dict[str, Image] = {}
        for camera in self.setup.spec.cameras:
            renderer = self._renderer(*camera.resolution)
            renderer.update_scene(self.data, camera=f"xvla_{camera.name}", scene_option=self._options)
            images[camera.name] = renderer.render().copy()
        return images

    def close(self) -> None:
        """Free the renderers."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    # Internals

    def _advance(self) -> None:
        import mujoco

        for i in range(self._substeps):
            mujoco.mj_step1(self.model, self.data)
            for arm in self.arms.values():
                arm.drive((i + 1) / self._substeps)
            mujoco.mj_step2(self.model, self.data)

    def _cube_at(self, arm: Arm) -> int | None:
        """The cube that a gripper is at, if it is at one."""
        away = np.linalg.norm(self.data.xpos[self._cube_bodies] - arm.pose()[0], axis=1)
        nearest = int(np.argmin(away))
        return nearest if away[nearest] < CLOSE_BY else None

    def _renderer(self, height: int, width: int) -> Any:
        import mujoco

        if (height, width) not in self._renderers:
            try:
                renderer = mujoco.Renderer(self.model, height, width)
            except (RuntimeError, ImportError, AttributeError, mujoco.FatalError) as error:
                raise XvlaError(
                    f"no OpenGL context for rendering: {error}", hint="try MUJOCO_GL=osmesa (or egl)"
                ) from error
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
            self._renderers[height, width] = renderer
        return self._renderers[height, width]

    def _measure_grippers(self) -> None:
        """Open and close the empty grippers once, cubes out of the way."""
        import mujoco

        mujoco.mj_resetData(self.model, self.data)
        for i, address in enumerate(self._cube_qpos):
            self.data.qpos[address : address + 3] = [0.35, -0.3 + 0.2 * i, TABLE_HEIGHT + 0.02]
        for arm in self.arms.values():
            arm.place(arm.home)
        mujoco.mj_forward(self.model, self.data)
        for arm in self.arms.values():
            arm.measure_gripper(self._advance)
