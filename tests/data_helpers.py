"""Small robots and datasets for the tests of the data layer: a frame's number is its brightness."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.lerobot_video import VideoSettings
from xvla_platform.data.lerobot_writer import CameraColumn, LeRobotWriter, VectorColumn
from xvla_platform.data.reader import DatasetReader
from xvla_platform.specs.embodiment import EmbodimentSpec

SIDE = 32
FRONT, WRIST = "observation.images.front", "observation.images.wrist"


def position(unit: str = "m", **more: Any) -> dict[str, Any]:
    return {"name": "position", "kind": "position", "size": 3, "unit": unit, "frame": "base", **more}


def rotation(format: str = "euler_xyz_extrinsic", unit: str | None = "rad", **more: Any) -> dict[str, Any]:
    size = {"quaternion_xyzw": 4, "quaternion_wxyz": 4, "matrix": 9}.get(format, 6 if "6d" in format else 3)
    field = {"name": "rotation", "kind": "rotation", "size": size, "format": format, "frame": "base"}
    return {**field, **({} if unit is None else {"unit": unit}), **more}


def gripper(open: float = 0.08, closed: float = 0.0, unit: str = "m", **more: Any) -> dict[str, Any]:
    return {"name": "gripper", "kind": "gripper", "size": 1, "unit": unit, "open": open, "closed": closed, **more}


def joints(size: int = 6, unit: str = "rad", name: str = "joints", **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "joint", "size": size, "unit": unit, **more}


def make_spec(
    proprio: list[dict[str, Any]] | None = None,
    action: list[dict[str, Any]] | None = None,
    *,
    hz: float = 10.0,
    horizon_s: float = 1.0,
    tail: str = "hold",
    cameras: tuple[str, ...] = (FRONT, WRIST),
    timing: str = "command",
    dataset: dict[str, Any] | None = None,
    front: dict[str, Any] | None = None,
) -> EmbodimentSpec:
    """A robot with the given fields; an action field that says nothing is absolute.

    `dataset` and `front` are added to the dataset and to the front camera.
    """
    proprio = proprio or [position(), rotation(), gripper()]
    action = action or [position(), rotation(), gripper()]
    action = [field if field["kind"] == "ignored" else {"reference": "absolute", **field} for field in action]
    return EmbodimentSpec.model_validate(
        {
            "name": "tester",
            "description": "An arm in a test.",
            "control_hz": hz,
            "horizon_s": horizon_s,
            "cameras": [
                {
                    "name": key.rsplit(".", 1)[-1],
                    "role": "main" if key == FRONT else "auxiliary",
                    "mount": "fixed",
                    "resolution": [SIDE, SIDE],
                    "key": key,
                    **((front or {}) if key == FRONT else {}),
                }
                for key in cameras
            ],
            "proprio": {"key": "observation.state", "fields": proprio},
            "action": {"key": "action", "fields": action, "timing": timing},
            "dataset": {"path": "demonstrations", "tail": tail, **(dataset or {})},
        }
    )


def images(length: int, episode: int, camera: int) -> np.ndarray:
    """Grey frames [L, H, W, 3] of mean brightness 10 * frame + 3 * episode + 100 * camera, far apart under H.264.

    A coarse pattern of steps that differs by camera lies over it, as a view of one colour is a fault.
    """
    level = np.array([(10 * i + 3 * episode + 100 * camera) % 210 for i in range(length)]) + 20
    rows, columns = np.indices((SIDE, SIDE)) // 8
    pattern = 16 * ((rows if camera else columns) % 2) - 8
    frames = (level[:, None, None] + pattern).astype(np.uint8)
    return np.repeat(frames[..., None], 3, axis=-1)


def columns(length: int, episode: int) -> dict[str, np.ndarray]:
    """State and action [L, 7] of a smooth motion in m, rad and m, with the command one frame ahead."""
    time = np.arange(length + 1)[:, None] / 10 + episode
    motion = np.concatenate(
        [
            0.3 + 0.1 * np.sin(time * [1.0, 0.7, 0.4]),
            0.5 * np.sin(time * [0.5, 0.3, 0.9]),
            0.04 + 0.04 * np.sign(np.sin(3 * time)),
        ],
        axis=1,
    )
    return {"observation.state": motion[:-1].copy(), "action": motion[1:].copy()}


def write_dataset(
    root: Path,
    lengths: tuple[int, ...] = (12, 9, 15),
    *,
    fps: int = 10,
    gop: int = 4,
    edit: Any = None,
    task: str = "lift the cube",
    extra: dict[str, Any] | None = None,
) -> Path:
    """A LeRobot 3.0 dataset; `edit(episode, vectors)` may change the numbers before they are written.

    `extra` names more columns of one number, each a function of the episode.
    """
    more = extra or {}
    names = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
    with LeRobotWriter(
        root,
        fps=fps,
        vectors=[
            VectorColumn("observation.state", names),
            VectorColumn("action", names),
            *(VectorColumn(key, ("value",)) for key in more),
        ],
        cameras=[CameraColumn(FRONT, SIDE, SIDE), CameraColumn(WRIST, SIDE, SIDE)],
        video=VideoSettings(gop=gop, preset="ultrafast"),
    ) as writer:
        for episode, length in enumerate(lengths):
            vectors = columns(length, episode)
            vectors |= {key: np.full((length, 1), value(episode)) for key, value in more.items()}
            if edit is not None:
                edit(episode, vectors)
            views = {FRONT: images(length, episode, 0), WRIST: images(length, episode, 1)}
            writer.add_episode(f"{task} {episode}", vectors, views)
    return root


def read_dataset(root: Path, *args: Any, **kwargs: Any) -> DatasetReader:
    return open_lerobot(write_dataset(root, *args, **kwargs))


def grey(frames: np.ndarray) -> np.ndarray:
    return frames.astype(float).mean(axis=(1, 2, 3))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_table(path: Path, change: Any) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def video_of(folder: Path, key: str = FRONT) -> Path:
    return next((folder / "videos" / key).rglob("*.mp4"))
