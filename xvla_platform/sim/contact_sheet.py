"""One picture that shows what a recording looks like."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw

from xvla_platform.sim.episodes import Episode
from xvla_platform.specs.embodiment import EmbodimentSpec

ROWS = 6
CAPTION = 14  # px


class ContactSheet:
    """Collects first, middle and last frame of the first episodes, every camera side by side."""

    def __init__(self, spec: EmbodimentSpec) -> None:
        self._names = [camera.name for camera in spec.cameras]
        self._rows: list[tuple[str, NDArray[np.uint8]]] = []

    def add(self, episode: Episode) -> None:
        """Take the episode in, if there is room."""
        if len(self._rows) >= ROWS:
            return
        length = len(episode.states)
        moments = sorted({0, length // 2, length - 1})
        tallest = max(episode.images[name].shape[1] for name in self._names)
        tiles = []
        for name in self._names:
            for moment in moments:
                tile = episode.images[name][moment]
                tiles.append(np.pad(tile, ((0, tallest - tile.shape[0]), (0, 2), (0, 0))))
        self._rows.append((episode.instruction, np.concatenate(tiles, axis=1)))

    def image(self) -> PillowImage.Image:
        """The sheet: one captioned row for each episode."""
        width = max((row.shape[1] for _, row in self._rows), default=1)
        height = sum(row.shape[0] + CAPTION for _, row in self._rows)
        sheet = PillowImage.new("RGB", (width, max(height, 1)), "white")
        draw = ImageDraw.Draw(sheet)
        top = 0
        for task, row in self._rows:
            draw.text((3, top + 1), task, fill="black")
            sheet.paste(PillowImage.fromarray(row), (0, top + CAPTION))
            top += row.shape[0] + CAPTION
        return sheet
