"""Camera frames as the model sees them: turned and with their colours in order, as the plugin declares.

The one place where `flip` and `channels` are applied, to recorded frames and to what a robot sends alike.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.reader import DatasetReader, Images
from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import CameraSpec


def oriented(frames: Images, camera: CameraSpec) -> Images:
    """Recorded frames, uint8 [..., H, W, 3], as RGB frames the right way up."""
    if camera.flip in ("vertical", "both"):
        frames = frames[..., ::-1, :, :]
    if camera.flip in ("horizontal", "both"):
        frames = frames[..., ::-1, :]
    if camera.channels == "bgr":
        frames = frames[..., ::-1]
    return np.ascontiguousarray(frames)


def read_frames(
    reader: DatasetReader,
    episode: int,
    camera: CameraSpec,
    indices: Sequence[int] | NDArray[Any],
    *,
    as_recorded: bool = False,
) -> Images:
    """One camera's frames of an episode, RGB uint8 [n, H, W, 3]; of another size than declared they are refused.

    `as_recorded` leaves them as the robot sends them.
    """
    found = reader.frames(episode, camera.key, indices)
    if found.shape[1:3] != camera.resolution:
        raise XvlaError(
            f"episode {episode} has frames of another size than declared",
            file=reader.root,
            field=camera.key,
            found=list(found.shape[1:3]),
            allowed=str(list(camera.resolution)),
        )
    return found if as_recorded else oriented(found, camera)
