"""What a policy accepts as an observation: images, state and words of exactly the declared form.

In: what a robot or a server hands over. Out: nothing, or an error that names the part, what it is and what it should
be. A float image or a NaN would otherwise be answered with a chunk that means nothing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import VectorSpec


def check_images(images: Any, spec: EmbodimentSpec, model_size: tuple[int, int]) -> None:
    """Every declared camera and no other, uint8 [H, W, 3] of its declared resolution or of `model_size` (H, W)."""
    names = [camera.name for camera in spec.ordered_cameras]
    if not isinstance(images, Mapping):
        raise XvlaError("are not images by camera", field="images", found=type(images).__name__, allowed=names)
    if set(names) != set(images):
        raise XvlaError(
            "the observation's cameras are not the declared ones",
            field="images",
            found=", ".join(sorted(map(str, images))) or "none",
            allowed=names,
        )
    for camera in spec.cameras:
        image, sizes = images[camera.name], dict.fromkeys((camera.resolution, model_size))
        allowed = " or ".join(f"uint8 {[*size, 3]}" for size in sizes)
        field = f"images.{camera.name}"
        if not isinstance(image, np.ndarray):
            raise XvlaError("is not an array", field=field, found=type(image).__name__, allowed=allowed)
        if image.dtype != np.uint8 or image.shape not in {(*size, 3) for size in sizes}:
            raise XvlaError("is not an image as declared", field=field, found=_form(image), allowed=allowed)


def check_state(state: Any, vector: VectorSpec, name: str) -> None:
    """A finite vector [P] of real numbers, in the order of the declared fields."""
    parts = ", ".join(f"{field.name} {field.size}" for field in vector.fields)
    allowed = f"{vector.size} numbers ({parts})"
    if not isinstance(state, np.ndarray):
        raise XvlaError("is not an array", field=name, found=type(state).__name__, allowed=allowed)
    if state.dtype.kind not in "fiu" or state.shape != (vector.size,):
        raise XvlaError("is not the declared vector", field=name, found=_form(state), allowed=allowed)
    bad = np.flatnonzero(~np.isfinite(state))
    if len(bad):
        raise XvlaError("is not a finite number", field=f"{name}[{bad[0]}]", found=float(state[bad[0]]))


def check_words(instruction: Any) -> None:
    """Text."""
    if not isinstance(instruction, str):
        raise XvlaError("is not text", field="instruction", found=type(instruction).__name__)


def _form(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
