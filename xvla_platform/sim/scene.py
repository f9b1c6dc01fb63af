"""Scenes: which cubes lie where, and the sentences that name one of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xvla_platform.errors import XvlaError
from xvla_platform.sim.frames import Array, from_rotation_vector, top_down

COLOURS: dict[str, tuple[float, float, float, float]] = {
    "red": (0.85, 0.08, 0.08, 1.0),
    "green": (0.08, 0.65, 0.15, 1.0),
    "blue": (0.10, 0.20, 0.90, 1.0),
    "yellow": (0.95, 0.85, 0.05, 1.0),
}
INSTRUCTIONS = ("pick up the {colour} cube", "lift the {colour} cube", "grab the {colour} block")
CUBES = 3
HALF_EDGE = 0.02
TABLE_HEIGHT = 0.8
HALF_REGION = 0.12
MAX_YAW = np.deg2rad(25.0)
SUCCESS_HEIGHT = 0.07


@dataclass(frozen=True)
class Layout:
    """One scene. ``positions`` (3, 3) m, world, cube centres; ``yaws`` (3,) rad about world z."""

    colours: tuple[str, ...]
    positions: Array
    yaws: Array

    def index(self, colour: str) -> int:
        """Index of the cube of this colour; XvlaError if the scene has none."""
        if colour not in self.colours:
            raise XvlaError("the scene holds no cube of this colour", found=colour, allowed=list(self.colours))
        return self.colours.index(colour)


@dataclass(frozen=True)
class StartPose:
    """World grip-site pose before an episode: ``position`` (3,) m, ``rotation`` (3, 3)."""

    position: Array
    rotation: Array


def sample_layout(rng: np.random.Generator, min_separation: float) -> Layout:
    """Draw three cubes in a 24 cm square, centres at least ``min_separation`` m apart."""
    colours = tuple(str(c) for c in rng.permutation(list(COLOURS))[:CUBES])
    while True:
        xy = rng.uniform(-HALF_REGION, HALF_REGION, size=(CUBES, 2))
        gaps = [np.linalg.norm(xy[i] - xy[j]) for i in range(CUBES) for j in range(i)]
        if min(gaps) >= min_separation:
            break
    height = np.full((CUBES, 1), TABLE_HEIGHT + HALF_EDGE)
    return Layout(colours, np.concatenate([xy, height], axis=1), rng.uniform(-MAX_YAW, MAX_YAW, CUBES))


def sample_start(rng: np.random.Generator) -> StartPose:
    """Draw a gripper pose above the table: roughly pointing down, 13 to 28 cm above it."""
    low = np.array([-0.16, -0.16, TABLE_HEIGHT + 0.13])
    high = np.array([0.10, 0.16, TABLE_HEIGHT + 0.28])
    tilt = np.append(rng.uniform(-0.12, 0.12, size=2), 0.0)
    rotation = from_rotation_vector(tilt) @ top_down(rng.uniform(-0.5, 0.5))
    return StartPose(rng.uniform(low, high), rotation)


def sample_instruction(rng: np.random.Generator, colour: str) -> str:
    """Draw a sentence that asks for the cube of this colour."""
    return INSTRUCTIONS[int(rng.integers(len(INSTRUCTIONS)))].format(colour=colour)
