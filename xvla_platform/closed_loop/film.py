"""Films of episodes, as H.264: the cameras side by side, what was asked and what came of it; and a sheet of stills.

In: moments of an episode. Out: `<name>.mp4` and `<name>.png` (a strip of five stills); `contact_sheet` joins strips.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from xvla_platform.closed_loop.contract import Moment
from xvla_platform.data.lerobot_video import VideoFile, VideoSettings
from xvla_platform.specs.embodiment import EmbodimentSpec

FRAMES_PER_SECOND = 10
HEIGHT = 240  # of each camera's picture
CAPTION = 40
STILLS = 5
HELD_FRAMES = 8  # of the last picture, so that the outcome can be read
GOOD, BAD, PLAIN = (40, 160, 70), (200, 60, 50), (235, 235, 235)


class Film:
    """One episode's film; frames are kept as they come and written at the end."""

    def __init__(self, path: Path, spec: EmbodimentSpec, title: str) -> None:
        """`path` is the mp4 to write; the strip of stills lies beside it."""
        self.path = path
        self.spec = spec
        self.title = title
        self._every = max(1, round(spec.control_hz / FRAMES_PER_SECOND))
        self._frames: list[Image.Image] = []

    def wants(self, tick: int) -> bool:
        """Whether this tick's images are part of the film."""
        return tick % self._every == 0

    def add(self, moment: Moment) -> None:
        """Append what the cameras show."""
        assert moment.images is not None
        views = [Image.fromarray(moment.images[camera.name]) for camera in self.spec.ordered_cameras]
        scaled = [view.resize((max(2, round(view.width * HEIGHT / view.height)), HEIGHT)) for view in views]
        width = sum(view.width for view in scaled)
        frame = Image.new("RGB", (width + width % 2, HEIGHT + CAPTION), (20, 20, 24))
        left = 0
        for view in scaled:
            frame.paste(view, (left, CAPTION))
            left += view.width
        draw = ImageDraw.Draw(frame)
        draw.text((6, 4), moment.instruction, fill=PLAIN, font=_font())
        draw.text((6, 21), f"{self.title}   {moment.seconds:.1f} s", fill=PLAIN, font=_font())
        self._frames.append(frame)

    def finish(self, moment: Moment, *, success: bool, approached: bool | None) -> None:
        """Write film and strip; `moment` is the last one, whose picture may be missing."""
        if moment.images is not None:
            self.add(moment)
        words = "done" if success else "not done"
        if not success and approached is not None:
            words += ", went for the named object" if approached else ", went for something else"
        last = self._frames[-1].copy()
        draw = ImageDraw.Draw(last)
        draw.rectangle([0, last.height - 22, last.width, last.height], fill=GOOD if success else BAD)
        draw.text((6, last.height - 19), f"{words} after {moment.seconds:.1f} s", fill=(255, 255, 255), font=_font())
        frames = [*self._frames, *[last] * HELD_FRAMES]
        pixels = np.stack([np.asarray(frame) for frame in frames])
        rate = max(1, round(self.spec.control_hz / self._every))
        settings = VideoSettings(gop=rate * 4)
        video = VideoFile(self.path, rate, pixels.shape[1], pixels.shape[2], settings, (0, 0))
        video.write(pixels)
        video.close()
        chosen = np.linspace(0, len(self._frames) - 1, STILLS)[:-1].round().astype(int)
        _row([*(self._frames[i] for i in chosen), last]).save(self.path.with_suffix(".png"))
        self._frames.clear()


def contact_sheet(path: Path, strips: Sequence[Path]) -> None:
    """One PNG with every strip below the other."""
    rows = [Image.open(strip).convert("RGB") for strip in strips]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), (20, 20, 24))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(path, optimize=True)


def _row(frames: Sequence[Image.Image]) -> Image.Image:
    halves = [frame.resize((frame.width // 2, frame.height // 2)) for frame in frames]
    row = Image.new("RGB", (sum(frame.width for frame in halves), halves[0].height))
    left = 0
    for frame in halves:
        row.paste(frame, (left, 0))
        left += frame.width
    return row


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(13)
