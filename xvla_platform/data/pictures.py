"""Encoded pictures inside datasets: the bytes of a JPEG or PNG file in, RGB uint8 [H, W, 3] out."""

import io
from pathlib import Path

import numpy as np

from xvla_platform.data.reader import Images
from xvla_platform.errors import XvlaError

KINDS = ("JPEG", "PNG", "BMP", "WEBP")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # eight bits a channel at most
LARGEST_SIDE = 8192


def looks_encoded(start: bytes) -> bool:
    """Whether the first bytes are those of a JPEG or PNG file."""
    return start[:3] == b"\xff\xd8\xff" or start[:8] == b"\x89PNG\r\n\x1a\n"


def picture_size(content: bytes, what: str, file: Path, field: str) -> tuple[int, int]:
    """(height, width) in pixels, from the header alone."""
    return _read(content, what, file, field, pixels=False)[0]


def decode_picture(content: bytes, what: str, file: Path, field: str) -> Images:
    """The picture as RGB uint8 [H, W, 3]; `what` names it in errors ("frame 3 of episode 0")."""
    image = _read(content, what, file, field, pixels=True)[1]
    assert image is not None
    return image


def stack_pictures(images: list[Images], what: str, file: Path, field: str) -> Images:
    """Frames of one camera as [N, H, W, 3]; they must have one size."""
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        raise XvlaError(f"{what} has frames of different sizes", file=file, field=field, found=sorted(sizes))
    return np.stack(images)


def _read(content: bytes, what: str, file: Path, field: str, *, pixels: bool) -> tuple[tuple[int, int], Images | None]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=KINDS) as picture:
            size = (picture.height, picture.width)
            if max(size) > LARGEST_SIDE:
                raise ValueError(f"it is {size[1]} x {size[0]} pixels large")
            if picture.mode not in MODES:
                raise ValueError(f"its pixels are of kind {picture.mode}, not eight bits a channel")
            return size, np.asarray(picture.convert("RGB")) if pixels else None
    except Exception as error:  # decoders of damaged bytes raise nearly every kind of error
        reason = "unknown or damaged picture" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise XvlaError(f"{what} is not a readable image: {reason}", file=file, field=field) from None
