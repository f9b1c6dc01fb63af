"""robosuite's arms at a table with three cubes and two plates, and the cameras and looks that we give them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xvla_platform.errors import XvlaError
from xvla_platform.sim.backend import quiet_robosuite
from xvla_platform.sim.scene import CUBES, HALF_EDGE, PLATE_HEIGHT, PLATE_RADIUS, PLATES, TABLE_HEIGHT
from xvla_platform.sim.setup import ArmName, ArmSpec, SimSetup, camera_axes

TABLE_TINT = (0.62, 0.58, 0.54, 1.0)  # robosuite's white table leaves yellow little contrast
TIMESTEP = 0.002  # s
UNTOUCHED = 4  # MuJoCo contact bit of shapes that touch nothing
SHOWN, HIDDEN = 0, 4  # MuJoCo geom groups after `build`


@dataclass(frozen=True)
class Parts:
    """A compiled scene: MuJoCo's model, and robosuite's descriptions of each arm and its gripper, by arm."""

    model: Any
    robots: dict[ArmName, Any]
    grippers: dict[ArmName, Any]


def build(setup: SimSetup) -> Parts:
    """Compile the scene of one robot at its table."""
    import mujoco

    with quiet_robosuite():
        from robosuite.models.arenas import TableArena
        from robosuite.models.objects import BoxObject
        from robosuite.models.tasks import ManipulationTask

        robots: dict[ArmName, Any] = {}
        grippers: dict[ArmName, Any] = {}
        for number, (name, arm) in enumerate(setup.sim.arms.items()):
            robots[name], grippers[name] = _arm(number, arm, setup.folder / "sim.yaml")
        size = [HALF_EDGE] * 3
        cubes = [BoxObject(name=f"cube{i}", size=size, rgba=[1, 1, 1, 1], density=400.0) for i in range(CUBES)]
        arena = TableArena(table_full_size=(0.8, 0.8, 0.05), table_offset=(0, 0, TABLE_HEIGHT))
        arena.set_origin([0, 0, 0])
        task = ManipulationTask(arena, list(robots.values()), cubes)
        root = ElementTree.fromstring(task.get_xml())
    _add_plates(root)
    _add_cameras(root, setup, grippers)
    model = mujoco.MjModel.from_xml_string(ElementTree.tostring(root, encoding="unicode"))
    _dress(model, setup)
    return Parts(model, robots, grippers)


def _arm(number: int, arm: ArmSpec, file: Path) -> tuple[Any, Any]:
    from robosuite.models.bases import robot_base_factory
    from robosuite.models.grippers import ALL_GRIPPERS, gripper_factory
    from robosuite.models.robots import create_robot
    from robosuite.robots import ROBOT_CLASS_MAPPING

    for field, name, known in (("robot", arm.robot, ROBOT_CLASS_MAPPING), ("gripper", arm.gripper, ALL_GRIPPERS)):
        if name not in known:
            allowed = sorted(str(k) for k in known if k)
            raise XvlaError("robosuite has none of this name", file=file, field=field, found=name, allowed=allowed)
    robot = create_robot(arm.robot, idn=number)
    if robot.arms != ["right"]:
        raise XvlaError("is no single arm; name one arm under `left` and one under `right`", file=file, found=arm.robot)
    robot.add_base(robot_base_factory(robot.default_base, idn=number))
    robot.update_joints()
    robot.update_actuators()
    gripper = gripper_factory(arm.gripper, idn=f"{number}_right")
    robot.add_gripper(gripper, robot.eef_name["right"])
    robot.set_base_xpos(np.asarray(arm.base.position) + robot.bottom_offset)
    robot.set_base_ori([0.0, 0.0, np.deg2rad(arm.base.yaw_deg)])
    return robot, gripper


def _add_plates(root: ElementTree.Element) -> None:
    world = root.find("worldbody")
    assert world is not None
    for i in range(PLATES):
        ElementTree.SubElement(
            world,
            "geom",
            name=f"plate{i}",
            type="cylinder",
            # Anywhere but at its body's origin, where MuJoCo would take the geom for its body and never move it.
            pos="0.1 0.1 0.1",
            size=f"{PLATE_RADIUS} {PLATE_HEIGHT / 2}",
            contype="0",
            conaffinity="0",
        )


def _add_cameras(root: ElementTree.Element, setup: SimSetup, grippers: dict[ArmName, Any]) -> None:
    bodies = {body.get("name"): body for body in root.iter("body")}
    world = root.find("worldbody")
    for camera in setup.spec.cameras:
        pose = setup.sim.cameras[camera.name]
        parent = world if pose.mount == "world" else bodies[f"{grippers[pose.arm].naming_prefix}eef"]
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


def _dress(model: Any, setup: SimSetup) -> None:
    """Choose what is drawn and what collides, in place.

    Drawn: collision shapes of the arm, visual shapes of table, floor and cubes. The arm's
    visual meshes hold a hundred thousand faces and more, which software OpenGL draws ten times slower.
    """
    tints = [np.asarray(arm.colour) for arm in setup.sim.arms.values()]
    for i in range(model.ngeom):
        name = model.geom(i).name
        body = model.body(model.geom_bodyid[i]).name
        gripper = body.startswith("gripper")
        # The xArm's hand has no shapes for collision alone.
        collision = model.geom_group[i] == 0 or (gripper and bool(model.geom_contype[i]))
        machine = gripper or body.startswith(("robot", "fixed_mount", "mount"))
        if machine and not gripper:
            # Only gripper, cubes and table need to touch; Sawyer's first link otherwise jams in its own base. The bit
            # that nothing answers to has MuJoCo draw the convex hull: a tenth of the faces.
            model.geom_contype[i], model.geom_conaffinity[i] = 0, UNTOUCHED
        thing = name.startswith("plate") or (name.startswith("cube") and name.endswith("_vis"))
        shown = thing or name in ("floor", "table_visual")
        model.geom_group[i] = SHOWN if shown or (machine and collision) else HIDDEN
        if machine and collision:
            number = int(next(c for c in body if c.isdigit()))
            # Alternate shades make the links tell apart; fingers are dark as on the real grippers.
            shade = 0.25 if gripper else 0.75 + 0.25 * (model.geom_bodyid[i] % 2)
            model.geom_rgba[i] = [*(tints[number] * shade), 1.0]
            model.geom_matid[i] = -1
    model.opt.timestep = TIMESTEP
    model.mat_reflectance[:] = 0.0
    model.mat_rgba[model.mat("table_ceramic").id] = TABLE_TINT
    model.vis.quality.numslices, model.vis.quality.numstacks = 16, 8
    model.vis.quality.numquads = 1
    # Software OpenGL clears the whole buffer for every image, so it is no larger than the largest one.
    model.vis.global_.offheight = max(camera.resolution[0] for camera in setup.spec.cameras)
    model.vis.global_.offwidth = max(camera.resolution[1] for camera in setup.spec.cameras)
    model.vis.quality.shadowsize = 0
    model.vis.quality.offsamples = 0
