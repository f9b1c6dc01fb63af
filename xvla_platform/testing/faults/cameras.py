"""Mistakes with cameras: dead, frozen, swapped, copied, mirrored, late, or declared otherwise than recorded."""

from typing import Any

import numpy as np

from xvla_platform.data.reader import DatasetReader, Images
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.testing.faults import codes
from xvla_platform.testing.faults.declare import restated
from xvla_platform.testing.faults.fault import CannotBePlantedError, Fault, Planted, chosen, generator
from xvla_platform.testing.faults.views import ImagesView, Rows


def dark(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, camera: str, share: float = 1.0, noise: float = 0.0
) -> Planted:
    """A camera gives black images (with a little sensor noise) in a share of the episodes."""
    hit, key = chosen(reader, share, seed), _key(spec, camera)

    def paint(episode: int, stream: str, rows: Rows, images: Images) -> Images:
        if stream != key or episode not in hit:
            return images
        random = generator(seed, episode)
        return np.clip(np.abs(random.normal(size=images.shape)) * noise, 0, 255).astype(np.uint8)

    return ImagesView(reader, paint=paint), spec


def frozen(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, camera: str, share: float = 1.0, moving: float = 0.0
) -> Planted:
    """A camera repeats one frame in a share of the episodes, after the first `moving` part of each."""
    hit, key = chosen(reader, share, seed), _key(spec, camera)

    def look(episode: int, stream: str, rows: Rows) -> tuple[str, Rows]:
        if stream != key or episode not in hit:
            return stream, rows
        return stream, np.minimum(rows, int(moving * reader.episodes[episode].length))

    return ImagesView(reader, look=look), spec


def copied(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, of: str, late: int = 0, share: float = 1.0
) -> Planted:
    """The other camera's stream was written under this one's name too, perhaps some frames late."""
    source, hit = _key(spec, of), chosen(reader, share, seed)
    target = _key(spec, "auxiliary" if of == "main" else "main")

    def look(episode: int, stream: str, rows: Rows) -> tuple[str, Rows]:
        if stream != target or episode not in hit:
            return stream, rows
        return source, np.maximum(rows - late, 0)

    return ImagesView(reader, look=look), spec


def swapped(reader: DatasetReader, spec: EmbodimentSpec, seed: int, how: str, share: float = 1.0) -> Planted:
    """Main view and wrist view are exchanged: by key, or in the recording of a share of the episodes."""
    main, wrist = _key(spec, "main"), _key(spec, "auxiliary")
    if how == "declared":
        keys = {main: wrist, wrist: main}
        cameras = [
            {**camera.model_dump(mode="json"), "key": keys.get(camera.key, camera.key)} for camera in spec.cameras
        ]
        return reader, restated(spec, cameras=cameras)
    if how == "mounts":
        mounts = {camera.key: camera.mount for camera in spec.cameras}
        mounts[main], mounts[wrist] = mounts[wrist], mounts[main]
        cameras = [{**camera.model_dump(mode="json"), "mount": mounts[camera.key]} for camera in spec.cameras]
        return reader, restated(spec, cameras=cameras)
    hit, other = chosen(reader, share, seed), {main: wrist, wrist: main}

    def look(episode: int, stream: str, rows: Rows) -> tuple[str, Rows]:
        return (other.get(stream, stream) if episode in hit else stream), rows

    return ImagesView(reader, look=look), spec


def mirrored(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, camera: str, axis: str, share: float = 1.0
) -> Planted:
    """Images are mirrored left to right, upside down, or both, in a share of the episodes."""
    hit, keys = chosen(reader, share, seed), _keys(spec, camera)
    axes = {"horizontal": (2,), "vertical": (1,), "both": (1, 2)}[axis]

    def paint(episode: int, stream: str, rows: Rows, images: Images) -> Images:
        if stream not in keys or episode not in hit:
            return images
        return np.ascontiguousarray(np.flip(images, axis=axes))

    return ImagesView(reader, paint=paint), spec


def late(reader: DatasetReader, spec: EmbodimentSpec, seed: int, camera: str, frames: int) -> Planted:
    """A camera's images lie some frames behind (or, negative, before) the numbers."""
    keys = _keys(spec, camera)

    def look(episode: int, stream: str, rows: Rows) -> tuple[str, Rows]:
        if stream not in keys:
            return stream, rows
        return stream, np.clip(rows - frames, 0, reader.episodes[episode].length - 1)

    return ImagesView(reader, look=look), spec


def misnamed(reader: DatasetReader, spec: EmbodimentSpec, seed: int, what: str) -> Planted:
    """A camera's key, or its resolution, is not the recording's."""
    cameras = [camera.model_dump(mode="json") for camera in spec.cameras]
    place = int(np.random.default_rng(seed).integers(len(cameras)))
    height, width = spec.cameras[place].resolution
    changes: dict[str, dict[str, Any]] = {
        "key": {"key": "observation.images.cam_high"},
        "resolution": {"resolution": (2 * height, 2 * width)},
    }
    cameras[place] |= changes[what]
    return reader, restated(spec, cameras=cameras)


def _keys(spec: EmbodimentSpec, camera: str) -> set[str]:
    return {_key(spec, "main"), _key(spec, "auxiliary")} if camera == "both" else {_key(spec, camera)}


def _key(spec: EmbodimentSpec, role: str) -> str:
    for camera in spec.cameras:
        if camera.role == role:
            return camera.key
    raise CannotBePlantedError(f"{spec.name} has no {role} camera")


FAULTS = (
    Fault(
        name="dark_camera",
        about="a camera gives black images",
        codes=codes.DARK,
        make=dark,
        strengths={
            "main": {"camera": "main"},
            "wrist": {"camera": "auxiliary"},
            "wrist, with noise": {"camera": "auxiliary", "noise": 2.0},
            "main, a third of the episodes": {"camera": "main", "share": 0.33},
        },
    ),
    Fault(
        name="frozen_camera",
        about="a camera repeats one frame",
        codes=codes.FROZEN,
        make=frozen,
        strengths={
            "main": {"camera": "main"},
            "wrist": {"camera": "auxiliary"},
            "wrist, a third of the episodes": {"camera": "auxiliary", "share": 0.33},
            "main, from the middle on": {"camera": "main", "moving": 0.4},
        },
    ),
    Fault(
        name="copied_camera",
        about="one camera's stream stands under two names",
        codes=codes.COPIED,
        make=copied,
        strengths={
            "main twice": {"of": "main"},
            "wrist twice": {"of": "auxiliary"},
            "a frame late": {"of": "main", "late": 1},
            "half of the episodes": {"of": "main", "share": 0.5},
        },
    ),
    Fault(
        name="swapped_cameras",
        about="main view and wrist view are exchanged",
        codes=codes.SWAPPED,
        make=swapped,
        strengths={
            "keys": {"how": "declared"},
            "mounts": {"how": "mounts"},
            "recorded": {"how": "recorded"},
            "a third of the episodes": {"how": "recorded", "share": 0.33},
        },
    ),
    Fault(
        name="mirrored_camera",
        about="images are mirrored or upside down",
        codes=codes.MIRRORED,
        make=mirrored,
        strengths={
            "main, left to right": {"camera": "main", "axis": "horizontal"},
            "both, left to right": {"camera": "both", "axis": "horizontal"},
            "main, a third of the episodes": {"camera": "main", "axis": "horizontal", "share": 0.33},
        },
    ),
    Fault(
        name="upside_down_camera",
        about="images stand on their head",
        codes=codes.UPSIDE_DOWN,
        make=mirrored,
        strengths={
            "main, a half turn in a third of the episodes": {"camera": "main", "axis": "both", "share": 0.33},
            "main, flipped": {"camera": "main", "axis": "vertical"},
        },
    ),
    Fault(
        name="late_camera",
        about="images lie some frames behind or before the numbers",
        codes=codes.LATE,
        make=late,
        strengths={
            "wrist, 8 frames": {"camera": "auxiliary", "frames": 8},
            "both, 8 frames": {"camera": "both", "frames": 8},
            "both, 8 frames early": {"camera": "both", "frames": -8},
        },
    ),
    Fault(
        name="misdeclared_camera",
        about="a camera's key or resolution is not the recording's",
        codes=codes.CAMERA_DECLARATION,
        make=misnamed,
        strengths={"key": {"what": "key"}, "resolution": {"what": "resolution"}},
    ),
)
