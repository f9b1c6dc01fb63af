"""A table with one arm and three cubes, driven and observed in the robot's own recorded convention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.errors import XvlaError
from xvla_platform.sim.backend import require_simulator
from xvla_platform.sim.frames import Array, rotation_vector
from xvla_platform.sim.kinematics import solve_pose
from xvla_platform.sim.model import GRIP_SITE, build, dress
from xvla_platform.sim.scene import (
    COLOURS,
    CUBES,
    SUCCESS_HEIGHT,
    TABLE_HEIGHT,
    Layout,
    StartPose,
    sample_instruction,
    sample_layout,
    sample_start,
)
from xvla_platform.sim.setup import SimSetup
from xvla_platform.sim.vectors import decode, encode

Image = NDArray[np.uint8]
EVALUATION_STREAM = 7


@dataclass(frozen=True)
class Observation:
    """What the robot senses at one moment, as its dataset holds it.

    ``images``: uint8 (H, W, 3), RGB, by camera name; ``state``: float32 (D,), the declared proprio vector in recorded
    units; ``instruction``: the sentence of this episode.
    """

    images: dict[str, Image]
    state: NDArray[np.float32]
    instruction: str


class TableEnvironment:
    """One robot at its table, e.g. ``TableEnvironment(load_setup("plugins/my_arm"))``.

    For closed loops: ``reset(seed, task)`` draws a scene and returns the first observation, ``step(action)`` advances
    one control period (1 / ``control_hz`` s) under an action vector as recorded in the dataset, ``observe()`` gives the
    next observation (rendering is the dearest part, so only when asked), ``status()`` tells how the episode stands.
    ``close()`` frees the renderers. Same seed, task and actions: same episode. World poses are poses of robosuite's
    grip site.
    """

    def __init__(self, setup: SimSetup) -> None:
        require_simulator()
        import mujoco

        self.setup = setup
        self._robosuite = build(setup)
        self._robot = self._robosuite.robots[0]
        self._sim = self._robosuite.sim
        self.model: Any = self._sim.model._model
        self.data: Any = self._sim.data._data
        dress(self.model, setup)
        self.control_hz = setup.spec.control_hz
        self._substeps = round(1.0 / (self.control_hz * self.model.opt.timestep))
        self._site = self.model.site(GRIP_SITE).id
        self._joints = np.array([self.model.joint(name).id for name in self._robot.robot_model.joints])
        self._arm_qpos = self.model.jnt_qposadr[self._joints]
        self._home = np.array(self._robot.init_qpos, dtype=np.float64)
        self._gripper_qpos = np.array(self._robot._ref_gripper_joint_pos_indexes["right"])
        self._cube_bodies = [self.model.body(cube.root_body).id for cube in self._robosuite.cubes]
        self._cube_qpos = [int(self.model.joint(cube.joints[0]).qposadr[0]) for cube in self._robosuite.cubes]
        self._cube_geoms = [self.model.geom(f"cube{i}_g0_vis").id for i in range(CUBES)]
        pads = self._robot.gripper["right"].important_geoms
        self._pads = [self.model.geom(pads[f"{side}_fingerpad"][0]).id for side in ("left", "right")]
        self._renderers: dict[tuple[int, int], Any] = {}
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 0
        self._options.geomgroup[0] = 1
        self._options.sitegroup[:] = 0
        self._options.flags[mujoco.mjtVisFlag.mjVIS_CONVEXHULL] = 1
        self._gaps = (0.0, 1.0)
        self._open_qpos, self._gaps = self._measure_gripper()
        self.layout: Layout | None = None
        self.target = 0
        self.instruction = ""

    # Scene

    def reset(self, seed: int, task: str = "pick") -> Observation:
        """Draw a scene, a start pose and an instruction of the named task from ``seed``."""
        if task != "pick":
            raise XvlaError("no such task", field="task", found=task, allowed="pick")
        # A stream of its own: scenes met here are never scenes that were recorded.
        rng = np.random.default_rng((EVALUATION_STREAM, seed))
        layout = sample_layout(rng, self.setup.sim.min_separation)
        angles = self.sample_arm(rng)[1]
        colour = str(rng.choice(list(layout.colours)))
        self.place(layout, angles, colour, sample_instruction(rng, colour))
        return self.observe()

    def sample_arm(self, rng: np.random.Generator) -> tuple[StartPose, Array]:
        """Draw a start pose above the table and the joint angles (J,) that reach it."""
        for _ in range(50):
            start = sample_start(rng)
            guess = self._home + rng.normal(0.0, 0.12, size=len(self._home))
            angles = self.inverse_kinematics(start.position, start.rotation, guess)
            if angles is not None:
                return start, angles
        raise XvlaError("no reachable start pose in 50 draws", field="robot", found=self.setup.sim.robot)

    def inverse_kinematics(self, position: Array, rotation: Array, guess: Array | None = None) -> Array | None:
        """Joint angles (J,) for a world grip-site pose, or None. Disturbs the arm: ``place`` afterwards."""
        start = self._home if guess is None else guess
        return solve_pose(self.model, self.data, self._site, self._joints, start, position, rotation)

    def place(self, layout: Layout, angles: Array, colour: str, instruction: str) -> None:
        """Put cubes and arm (J,) where told, gripper open, everything at rest."""
        import mujoco

        mujoco.mj_resetData(self.model, self.data)
        self.layout, self.target, self.instruction = layout, layout.index(colour), instruction
        self.data.qpos[self._arm_qpos] = angles
        self.data.qpos[self._gripper_qpos] = self._open_qpos
        for i, address in enumerate(self._cube_qpos):
            half = layout.yaws[i] / 2
            self.data.qpos[address : address + 3] = layout.positions[i]
            self.data.qpos[address + 3 : address + 7] = [np.cos(half), 0.0, 0.0, np.sin(half)]
            self.model.geom_rgba[self._cube_geoms[i]] = COLOURS[layout.colours[i]]
        self._robot.gripper["right"].current_action = self._gripper_command(opened=True)
        mujoco.mj_forward(self.model, self.data)
        self._robot.composite_controller.update_state()
        self._robot.composite_controller.reset()

    # Motion

    def step(self, command: Array) -> None:
        """Advance one control period under a recorded action vector (D,)."""
        position, rotation, opening = decode(self.setup.spec.action.fields, np.asarray(command))
        positions, rotations = self.setup.frame.to_world(position[None], rotation[None])
        self.step_world(positions[0], rotations[0], opening)

    def step_world(self, position: Array, rotation: Array, opening: float) -> None:
        """Advance one control period towards a world grip-site pose; opening > 0.5 opens the gripper."""
        gripper = -1.0 if opening > 0.5 else 1.0
        action = np.concatenate([position, rotation_vector(rotation), [gripper]])
        for i in range(self._substeps):
            self._sim.step1()
            self._robot.control(action, policy_step=i == 0)
            self._sim.step2()

    def status(self) -> dict[str, Any]:
        """How the episode stands.

        ``success``: the task is done, now; ``approached``: whether the gripper went to the named object first (None
        while it has gone to none); ``seconds``: simulated time since the reset.
        """
        near = np.linalg.norm(self.data.xpos[self._cube_bodies[self.nearest_cube()]] - self.grip_pose()[0]) < 0.06
        return {
            "success": self.success(),
            "approached": self.nearest_cube() == self.target if near else None,
            "seconds": float(self.data.time),
        }

    # Observation

    def observe(self) -> Observation:
        """Images, state vector and instruction of this moment."""
        return Observation(self.render(), self.proprio(), self.instruction)

    def grip_pose(self) -> tuple[Array, Array]:
        """World pose of the grip site: position (3,) m, rotation (3, 3)."""
        return self.data.site_xpos[self._site].copy(), self.data.site_xmat[self._site].reshape(3, 3).copy()

    def cube_pose(self, index: int) -> tuple[Array, Array]:
        """World pose of a cube: position (3,) m, rotation (3, 3)."""
        body = self._cube_bodies[index]
        return self.data.xpos[body].copy(), self.data.xmat[body].reshape(3, 3).copy()

    def opening(self) -> float:
        """Measured gripper opening: 1 fully open, 0 fully closed on nothing."""
        shut, wide = self._gaps
        return float(np.clip((self._pad_gap() - shut) / (wide - shut), 0.0, 1.0))

    def proprio(self) -> NDArray[np.float32]:
        """State vector (D,) as recorded."""
        position, rotation = self.grip_pose()
        positions, rotations = self.setup.frame.from_world(position[None], rotation[None])
        fields = self.setup.spec.proprio.fields
        return encode(fields, positions, rotations, np.array([self.opening()]))[0].astype(np.float32)

    def render(self) -> dict[str, Image]:
        """One uint8 image (H, W, 3) per camera, by camera name."""
        images: dict[str, Image] = {}
        for camera in self.setup.spec.cameras:
            renderer = self._renderer(*camera.resolution)
            renderer.update_scene(self.data, camera=f"xvla_{camera.name}", scene_option=self._options)
            images[camera.name] = renderer.render().copy()
        return images

    def lifted(self, index: int) -> float:
        """Height of a cube above where it lies on the table, m."""
        if self.layout is None:
            return 0.0
        return float(self.data.xpos[self._cube_bodies[index]][2] - self.layout.positions[index][2])

    def success(self) -> bool:
        """Is the named cube lifted by at least 7 cm?"""
        return self.lifted(self.target) >= SUCCESS_HEIGHT

    def nearest_cube(self) -> int:
        """Index of the cube nearest to the grip site in the plane: which one was approached."""
        position = self.data.site_xpos[self._site]
        return int(np.argmin([np.linalg.norm(self.data.xpos[b][:2] - position[:2]) for b in self._cube_bodies]))

    def close(self) -> None:
        """Free the renderers."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    # Internals

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

    def _pad_gap(self) -> float:
        left, right = self.data.geom_xpos[self._pads[0]], self.data.geom_xpos[self._pads[1]]
        return float(np.linalg.norm(left - right))

    def _gripper_command(self, opened: bool) -> Array:
        """robosuite's internal gripper state after a long open or close command."""
        gripper = self._robot.gripper["right"]
        gripper.current_action = np.zeros_like(np.atleast_1d(gripper.current_action), dtype=np.float64)
        for _ in range(20):
            command = gripper.format_action(np.array([-1.0 if opened else 1.0]))
        return np.array(command, dtype=np.float64)

    def _measure_gripper(self) -> tuple[Array, tuple[float, float]]:
        """Open and close the empty gripper once: joint positions when open, and both pad distances (m)."""
        import mujoco

        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._arm_qpos] = self._home
        # A Robotiq linkage wedges itself when it starts anywhere but in its own rest position.
        self.data.qpos[self._gripper_qpos] = self._robot.gripper["right"].init_qpos
        for i, address in enumerate(self._cube_qpos):
            self.data.qpos[address : address + 3] = [0.3, -0.3 + 0.2 * i, TABLE_HEIGHT + 0.02]
        mujoco.mj_forward(self.model, self.data)
        position, rotation = self.grip_pose()
        self._robot.composite_controller.update_state()
        gaps = []
        open_qpos = np.zeros(len(self._gripper_qpos))
        for opening in (0.0, 1.0):
            for _ in range(round(1.5 * self.control_hz)):
                self.step_world(position, rotation, opening)
            gaps.append(self._pad_gap())
            open_qpos = self.data.qpos[self._gripper_qpos].copy()
        return open_qpos, (gaps[0], gaps[1])
