"""robosuite model of one arm at a table with three cubes, and the cameras and looks that we give it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np

from xvla_platform.sim.backend import quiet_robosuite
from xvla_platform.sim.frames import Array
from xvla_platform.sim.scene import CUBES, HALF_EDGE, TABLE_HEIGHT
from xvla_platform.sim.setup import CameraPose, SimSetup

GRIP_BODY = "gripper0_right_eef"
GRIP_SITE = "gripper0_right_grip_site"
TABLE_TINT = (0.62, 0.58, 0.54, 1.0)  # robosuite's white table leaves yellow little contrast
SHOWN, HIDDEN = 0, 4  # MuJoCo geom groups after `dress`


def camera_axes(camera: CameraPose) -> Array:
    """MuJoCo's ``xyaxes`` (6,) of a camera that looks from ``position`` at ``look_at``."""
    backward = np.asarray(camera.position) - np.asarray(camera.look_at)
    z = backward / np.linalg.norm(backward)
    x = np.cross(np.asarray(camera.up, dtype=np.float64), z)
    x = x / np.linalg.norm(x)
    return np.concatenate([x, np.cross(z, x)])


def build(setup: SimSetup) -> Any:
    """A robosuite environment (only its model, robot and controller are used)."""
    with quiet_robosuite():
        return _build(setup)


def _build(setup: SimSetup) -> Any:
    from robosuite.controllers import load_composite_controller_config
    from robosuite.environments.manipulation.lift import Lift
    from robosuite.models.arenas import TableArena
    from robosuite.models.objects import BoxObject
    from robosuite.models.tasks import ManipulationTask

    class Table(Lift):
        """Lift's table with three cubes; placement, observation and reward are ours, elsewhere."""

        def _load_model(self) -> None:
            super(Lift, self)._load_model()
            robot = self.robots[0].robot_model
            robot.set_base_xpos(robot.base_xpos_offset["table"](self.table_full_size[0]))
            arena = TableArena(
                table_full_size=self.table_full_size,
                table_friction=self.table_friction,
                table_offset=(0, 0, TABLE_HEIGHT),
            )
            arena.set_origin([0, 0, 0])
            size = [HALF_EDGE] * 3
            self.cubes = [BoxObject(name=f"cube{i}", size=size, rgba=[1, 1, 1, 1], density=400.0) for i in range(CUBES)]
            self.model = ManipulationTask(arena, [robot], self.cubes)

        def _setup_references(self) -> None:
            super(Lift, self)._setup_references()

        def _setup_observables(self) -> dict[str, Any]:
            return {}

        def _reset_internal(self) -> None:
            super(Lift, self)._reset_internal()

        def edit_model_xml(self, xml_str: str) -> str:
            return _add_cameras(super().edit_model_xml(xml_str), setup)

    config = load_composite_controller_config(controller="BASIC", robot=setup.sim.robot)
    arm = config["body_parts"]["right"]
    arm.update(input_type="absolute", input_ref_frame="world", kp=setup.sim.kp, damping_ratio=1.0)
    return Table(
        robots=setup.sim.robot,
        gripper_types=setup.sim.gripper,
        controller_configs=config,
        initialization_noise=None,
        use_camera_obs=False,
        use_object_obs=False,
        has_renderer=False,
        has_offscreen_renderer=False,
        hard_reset=False,
        control_freq=setup.spec.control_hz,
        renderer="mujoco",
        seed=0,
    )


def _add_cameras(xml: str, setup: SimSetup) -> str:
    root = ElementTree.fromstring(xml)
    bodies = {body.get("name"): body for body in root.iter("body")}
    world = root.find("worldbody")
    for camera in setup.spec.cameras:
        pose = setup.sim.cameras[camera.name]
        parent = world if pose.mount == "world" else bodies[GRIP_BODY]
        assert parent is not None
        ElementTree.SubElement(
            parent,
            "camera",
            name=f"xvla_{camera.name}",
            mode="fixed",
            pos=" ".join(f"{v:.6f}" for v in pose.position),
            xyaxes=" ".join(f"{v:.6f}" for v in camera_axes(pose)),
            fovy=f"{pose.fovy}",
        )
    return ElementTree.tostring(root, encoding="unicode")


def dress(model: Any, setup: SimSetup) -> None:
    """Choose what is drawn and what collides, in place.

    Drawn: collision shapes of the arm, visual shapes of table, floor and cubes. The arm's
    visual meshes hold a hundred thousand faces and more, which software OpenGL draws ten times slower.
    """
    tint = np.asarray(setup.sim.colour)
    for i in range(model.ngeom):
        name = model.geom(i).name
        body = model.body(model.geom_bodyid[i]).name
        collision = model.geom_group[i] == 0
        machine = body.startswith(("robot0", "gripper0", "fixed_mount0", "mount0"))
        if machine and not body.startswith("gripper0"):
            # Only gripper, cubes and table need to touch; Sawyer's first link otherwise jams in its own base.
            model.geom_contype[i] = model.geom_conaffinity[i] = 0
        shown = name in ("floor", "table_visual") or name.endswith("_g0_vis") or (machine and collision)
        model.geom_group[i] = SHOWN if shown else HIDDEN
        if machine and collision:
            # Alternate shades make the links tell apart; fingers are dark as on the real grippers.
            shade = 0.25 if body.startswith("gripper0") else 0.75 + 0.25 * (model.geom_bodyid[i] % 2)
            model.geom_rgba[i] = [*(tint * shade), 1.0]
            model.geom_matid[i] = -1
    model.mat_reflectance[:] = 0.0
    model.mat_rgba[model.mat("table_ceramic").id] = TABLE_TINT
    model.vis.quality.numslices, model.vis.quality.numstacks = 16, 8
    model.vis.quality.numquads = 1
    # Software OpenGL clears the whole buffer for every image, so it is no larger than the largest one.
    model.vis.global_.offheight = max(camera.resolution[0] for camera in setup.spec.cameras)
    model.vis.global_.offwidth = max(camera.resolution[1] for camera in setup.spec.cameras)
    model.vis.quality.shadowsize = 0
    model.vis.quality.offsamples = 0
