"""What every camera shows, at a glance: a few moments of a few episodes, as the model will see them.

In: an open reader and a declaration. Out: small JPEG pictures for a page, or one PNG for a folder.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from xvla_platform.data.images import read_frames
from xvla_platform.data.reader import DatasetReader
from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import CameraSpec, EmbodimentSpec

LABEL = 16  # px of a caption in the PNG
QUALITY = 82
MOMENTS = ("first", "middle", "last")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One frame as JPEG, with where it comes from."""

    episode: int
    frame: int
    moment: str
    width: int
    height: int
    jpeg: bytes


@dataclass(frozen=True, kw_only=True)
class Strip:
    """First, middle and last frame of one episode from one camera; `fault` says why there are none."""

    camera: str
    episode: int
    pictures: tuple[Picture, ...]
    fault: str | None = None


def strips(
    reader: DatasetReader, camera: CameraSpec, episodes: Sequence[int], *, height: int = 128
) -> tuple[Strip, ...]:
    """One strip for each of these episodes, pictures at most `height` px high; frames as the model sees them."""
    return tuple(_strip(reader, camera, episode, height) for episode in episodes)


def contact_sheet(reader: DatasetReader, spec: EmbodimentSpec, *, height: int = 160, episode: int = 0) -> bytes:
    """PNG with the first, middle and last frame of one episode, one row a camera, main view on top."""
    moments = _moments(reader.episodes[episode].length)
    rows = []
    for camera in spec.ordered_cameras:
        frames = read_frames(reader, episode, camera, moments)
        images = [Image.fromarray(frame) for frame in frames]
        rows.append(
            (
                f"{camera.name} ({camera.role}): first, middle and last frame of episode {episode}",
                [image.resize((max(1, image.width * height // image.height), height)) for image in images],
            )
        )
    width = max(sum(image.width for image in row) for _, row in rows)
    sheet = Image.new("RGB", (width, len(rows) * (height + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (text, row) in enumerate(rows):
        top, left = index * (height + LABEL), 0
        draw.text((4, top + 2), text, fill="black")
        for image in row:
            sheet.paste(image, (left, top + LABEL))
            left += image.width
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _strip(reader: DatasetReader, camera: CameraSpec, episode: int, height: int) -> Strip:
    moments = _moments(reader.episodes[episode].length)
    try:
        frames = read_frames(reader, episode, camera, moments)
    except XvlaError as error:
        return Strip(camera=camera.name, episode=episode, pictures=(), fault=str(error))
    pictures = []
    for name, moment, frame in zip(MOMENTS, moments, frames, strict=False):
        image = Image.fromarray(frame)
        scale = min(1.0, height / image.height)
        if scale < 1:
            image = image.resize((max(1, round(image.width * scale)), height), Image.Resampling.BOX)
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=QUALITY)
        pictures.append(
            Picture(
                episode=episode,
                frame=moment,
                moment=name,
                width=image.width,
                height=image.height,
                jpeg=buffer.getvalue(),
            )
        )
    return Strip(camera=camera.name, episode=episode, pictures=tuple(pictures))


def _moments(length: int) -> list[int]:
    return [0, length // 2, length - 1]
