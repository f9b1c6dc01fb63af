"""Scenes: which cubes and plates lie where. Every task is played in the same scenes, so the words alone tell it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xvla_platform.sim.frames import Array, from_rotation_vector, top_down

Colour = tuple[float, float, float, float]

COLOURS: dict[str, Colour] = {
    "red": (0.85, 0.08, 0.08, 1.0),
    "green": (0.08, 0.65, 0.15, 1.0),
    "blue": (0.10, 0.20, 0.90, 1.0),
    "yellow": (0.95, 0.85, 0.05, 1.0),
}
# No cube has a plate's colour, so that one word names one thing.
PLATE_COLOURS: dict[str, Colour] = {
    "white": (0.97, 0.97, 0.97, 1.0),
    "black": (0.06, 0.06, 0.06, 1.0),
    "purple": (0.50, 0.10, 0.62, 1.0),
}
CUBES = 3
PLATES = 2
HALF_EDGE = 0.02  # m
PLATE_RADIUS = 0.048  # m
PLATE_HEIGHT = 0.002  # m; plates are painted on: nothing collides with them
TABLE_HEIGHT = 0.8
HALF_REGION = 0.12
PLATE_HALF_REGION = 0.14
MAX_YAW = np.deg2rad(25.0)


@dataclass(frozen=True)
class Layout:
    """One scene.

    ``positions`` (3, 3) m, world, cube centres; ``yaws`` (3,) rad about world z; ``plates`` (2, 3) m, world, where the
    centre of a cube is that lies in a plate's middle.
    """

    colours: tuple[str, ...]
    positions: Array
    yaws: Array
    plate_colours: tuple[str, ...]
    plates: Array


@dataclass(frozen=True)
class StartPose:
    """World grip-site pose before an episode: ``position`` (3,) m, ``rotation`` (3, 3)."""

    position: Array
    rotation: Array


def sample_layout(rng: np.random.Generator, min_separation: float) -> Layout:
    """Draw three cubes in a 24 cm square and two plates in a 28 cm one, centres ``min_separation`` m apart or more."""
    colours = tuple(str(c) for c in rng.permutation(list(COLOURS))[:CUBES])
    plate_colours = tuple(str(c) for c in rng.permutation(list(PLATE_COLOURS))[:PLATES])
    half = np.array([HALF_REGION] * CUBES + [PLATE_HALF_REGION] * PLATES)[:, None]
    while True:
        xy = rng.uniform(-1.0, 1.0, size=(CUBES + PLATES, 2)) * half
        gaps = np.linalg.norm(xy[:, None] - xy[None], axis=-1)[np.triu_indices(len(xy), 1)]
        if gaps.min() >= min_separation:
            break
    things = np.concatenate([xy, np.full((len(xy), 1), TABLE_HEIGHT + HALF_EDGE)], axis=1)
    yaws = rng.uniform(-MAX_YAW, MAX_YAW, CUBES)
    return Layout(colours, things[:CUBES], yaws, plate_colours, things[CUBES:])


def sample_start(rng: np.random.Generator) -> StartPose:
    """Draw a gripper pose above the table: roughly pointing down, 13 to 28 cm above it."""
    low = np.array([-0.16, -0.16, TABLE_HEIGHT + 0.13])
    high = np.array([0.10, 0.16, TABLE_HEIGHT + 0.28])
    tilt = np.append(rng.uniform(-0.12, 0.12, size=2), 0.0)
    rotation = from_rotation_vector(tilt) @ top_down(rng.uniform(-0.5, 0.5))
    return StartPose(rng.uniform(low, high), rotation)
