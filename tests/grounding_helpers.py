"""Recordings of still scenes: three coloured squares, each named in an episode of its own, and where it lies."""

from pathlib import Path

import numpy as np
from data_helpers import FRONT, WRIST

from xvla_platform.data.lerobot_video import VideoSettings
from xvla_platform.data.lerobot_writer import CameraColumn, LeRobotWriter, VectorColumn

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230)}
SCENES = 40
SIDE = 32
UV, PLACE_UV = "grounding.uv", "grounding.place_uv"


def scene(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture [SIDE, SIDE, 3] with a square of each colour in another cell, and their centres [3, 2] in 0..1."""
    image = np.full((SIDE, SIDE, 3), 110, dtype=np.uint8)
    cells = generator.permutation(4)[:3]
    centres = np.stack([cells % 2, cells // 2], axis=1) * 16 + generator.integers(4, 12, (3, 2))
    for (x, y), colour in zip(centres, COLOURS.values(), strict=True):
        image[y - 4 : y + 4, x - 4 : x + 4] = colour
    return image, centres / SIDE


def write_stills(root: Path, scenes: int = SCENES, seed: int = 0, *, places: bool = False) -> Path:
    """One-frame episodes, three of each scene: each names another square, and its action lies where that is.

    With `places` the second thing that is named is the next colour's square, else there is none.
    """
    generator = np.random.default_rng(seed)
    cameras = [CameraColumn(key, SIDE, SIDE) for key in (FRONT, WRIST)]
    state = [VectorColumn(key, [f"{key}{i}" for i in range(7)]) for key in ("observation.state", "action")]
    vectors = [*state, VectorColumn(UV, ("u", "v")), VectorColumn(PLACE_UV, ("u", "v"))]
    with LeRobotWriter(root, fps=10, vectors=vectors, cameras=cameras, video=VideoSettings(preset="ultrafast")) as out:
        for _ in range(scenes):
            image, centres = scene(generator)
            for i, (colour, centre) in enumerate(zip(COLOURS, centres, strict=True)):
                action = np.array([[*(centre - 0.5), 0.2, 0.0, 0.0, 0.0, 0.08]])
                columns = {"observation.state": np.zeros((1, 7)), "action": action, UV: centre[None]}
                columns[PLACE_UV] = centres[(i + 1) % 3][None] if places else np.full((1, 2), -1.0)
                out.add_episode(f"touch the {colour} square", columns, {FRONT: image[None], WRIST: image[None]})
    return root
