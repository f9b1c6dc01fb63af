"""Other places for a robot's cameras, drawn from a number: the same robot seen by another lab's rig.

A base that has seen each robot from one place only knows those places. What a slot has to learn of a new rig is the
less, the more rigs the base was pretrained on.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xvla_platform.sim.frames import Array
from xvla_platform.sim.scene import TABLE_HEIGHT
from xvla_platform.sim.setup import CameraPose, SimSetup

RIG_STREAM = 11
MIDDLE = np.array([0.0, 0.0, TABLE_HEIGHT + 0.05])  # of what a main view has to show, m
VIEW = 0.48  # m of the world that a main view shows across at its middle
AZIMUTH = np.deg2rad(35.0)  # either way from the declared camera, so that the arm stays behind its hand
ELEVATION = np.deg2rad((25.0, 60.0))
DISTANCE = (0.75, 0.95)  # m
HAND_TURN = np.deg2rad(25.0)  # either way from the declared camera or from its mirror image: elsewhere fingers hide all
HAND_RADIUS, HAND_BACK, HAND_FOVY = (0.08, 0.125), (0.07, 0.125), (66.0, 84.0)  # m, m, degrees


def with_rig(setup: SimSetup, rig: int) -> SimSetup:
    """The setup with every camera where rig ``rig`` has it; 0 is the plugin's own."""
    if rig == 0:
        return setup
    rng = np.random.default_rng((RIG_STREAM, rig))
    draw = {"world": _on_a_tripod, "tool": _on_the_hand}
    cameras = {name: draw[camera.mount](camera, rng) for name, camera in setup.sim.cameras.items()}
    return replace(setup, sim=setup.sim.model_copy(update={"cameras": cameras}))


def _on_a_tripod(camera: CameraPose, rng: np.random.Generator) -> CameraPose:
    declared = np.asarray(camera.position) - np.asarray(camera.look_at)
    azimuth = float(np.arctan2(declared[1], declared[0])) + rng.uniform(-AZIMUTH, AZIMUTH)
    elevation, distance = rng.uniform(*ELEVATION), rng.uniform(*DISTANCE)
    level = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    look_at = MIDDLE + rng.uniform(-0.02, 0.02, size=3)
    position = look_at + distance * (np.cos(elevation) * level + np.sin(elevation) * np.array([0.0, 0.0, 1.0]))
    fovy = float(np.rad2deg(2 * np.arctan(VIEW / 2 / distance)))
    return _moved(camera, position, look_at, np.array([0.0, 0.0, 1.0]), fovy)


def _on_the_hand(camera: CameraPose, rng: np.random.Generator) -> CameraPose:
    x, y, _ = camera.position
    turn = float(np.arctan2(y, x)) + np.pi * int(rng.integers(2)) + rng.uniform(-HAND_TURN, HAND_TURN)
    around = np.array([np.cos(turn), np.sin(turn), 0.0])
    position = around * rng.uniform(*HAND_RADIUS) - np.array([0.0, 0.0, rng.uniform(*HAND_BACK)])
    return _moved(camera, position, np.array([0.0, 0.0, 0.02]), around, float(rng.uniform(*HAND_FOVY)))


def _moved(camera: CameraPose, position: Array, look_at: Array, up: Array, fovy: float) -> CameraPose:
    values = {
        "position": tuple(position.round(4).tolist()),
        "look_at": tuple(look_at.round(4).tolist()),
        "up": tuple(up.round(4).tolist()),
        "fovy": round(fovy, 2),
    }
    return CameraPose.model_validate(camera.model_dump() | values)
