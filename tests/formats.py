"""One small recording in every dataset format that is read: the same smooth motion and frames as `data_helpers`.

Each `write_*` returns the path that `dataset.path` names. `FORMATS` holds them with a matching declaration, so that a
test can run over all of them.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from data_helpers import FRONT, SIDE, WRIST, gripper, images, make_spec, position, rotation, write_dataset
from lerobot_v2_writer import ACTION, HZ, LENGTHS, STATE, vectors, write_groot, write_lerobot21
from PIL import Image
from rlds_writer import group, image, tensor, text, write_tfds

from xvla_platform.specs.embodiment import EmbodimentSpec

Encoding = Literal["jpeg", "png"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One layout: `write(place)` puts it at a path that does not exist yet; `reader` is its `dataset.format`.

    `cameras` are the keys of front and wrist, `state` the columns that hold position, rotation and gripper (one key,
    or one a field), `action` the action's column.
    """

    name: str
    reader: str
    write: Callable[[Path], Path]
    cameras: tuple[str, str]
    state: tuple[str, ...]
    action: str

    def spec(self) -> EmbodimentSpec:
        """The declaration of the recording, whose dataset path is `data`."""
        raw = make_spec(hz=HZ).model_dump(mode="json", exclude_none=True)
        for camera, key in zip(raw["cameras"], self.cameras, strict=True):
            camera["key"] = key
        fields = [position(), rotation(), gripper()]
        if len(self.state) == 1:
            raw["proprio"] = {"key": self.state[0], "fields": fields}
        else:
            raw["proprio"] = {"fields": [{**field, "key": key} for field, key in zip(fields, self.state, strict=True)]}
        raw["action"]["key"] = self.action
        raw["dataset"] = {"format": self.reader, "path": "data", "instruction": "lift the cube"}
        return EmbodimentSpec.model_validate(raw)


def encode(picture: np.ndarray, encoding: Encoding) -> bytes:
    """One RGB image [H, W, 3] as a JPEG or PNG file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, encoding.upper(), **({"quality": 95} if encoding == "jpeg" else {}))
    return stream.getvalue()


def write_aloha(
    folder: Path,
    lengths: Sequence[int] = LENGTHS,
    *,
    encoding: Encoding | None = None,
    instruction: str | None = "lift the cube",
) -> Path:
    """ALOHA/ACT: one file an episode; with `encoding`, images are zero-padded rows of encoded bytes."""
    folder.mkdir(parents=True)
    for episode, length in enumerate(lengths):
        state, action = vectors(length, episode)
        with h5py.File(folder / f"episode_{episode}.hdf5", "w") as file:
            file.attrs["sim"] = True
            file["observations/qpos"], file["observations/qvel"] = state, np.gradient(state, axis=0)
            file["action"] = action
            sizes = []
            for number, camera in enumerate(("front", "wrist")):
                frames = images(length, episode, number)
                if encoding is None:
                    file.create_dataset(f"observations/images/{camera}", data=frames, chunks=(1, SIDE, SIDE, 3))
                else:
                    sizes.append(_padded(file, f"observations/images/{camera}", frames, encoding))
            if encoding is not None:
                file.attrs["compress"] = True
                file["compress_len"] = np.array(sizes, dtype=np.float32)
            if instruction is not None:
                file["language_instruction"] = f"{instruction} {episode}"
    return folder


def _padded(file: h5py.File, key: str, frames: np.ndarray, encoding: Encoding) -> list[int]:
    contents = [encode(frame, encoding) for frame in frames]
    rows = np.zeros((len(contents), max(map(len, contents))), dtype=np.uint8)
    for row, content in zip(rows, contents, strict=True):
        row[: len(content)] = np.frombuffer(content, dtype=np.uint8)
    file.create_dataset(key, data=rows, chunks=(1, rows.shape[1]))
    return [len(content) for content in contents]


def write_robomimic(
    file: Path, lengths: Sequence[int] = LENGTHS, *, hz: float = HZ, instruction: str = "lift the cube"
) -> Path:
    """robomimic/LIBERO: all demonstrations of one task in one file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as content:
        data = content.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": hz}})
        data.attrs["problem_info"] = json.dumps({"problem_name": "tester", "language_instruction": instruction})
        data.attrs["total"] = sum(lengths)
        for episode, length in enumerate(lengths):
            state, action = vectors(length, episode)
            demo = data.create_group(f"demo_{episode}")
            demo.attrs["num_samples"] = length
            demo.attrs["model_file"] = "<mujoco/>"
            demo["actions"], demo["states"] = action, np.tile(state, 3)
            demo["dones"], demo["rewards"] = np.zeros(length, np.uint8), np.zeros(length, np.uint8)
            demo["obs/ee_pos"], demo["obs/ee_ori"], demo["obs/gripper_states"] = np.split(state, [3, 6], axis=1)
            demo["obs/agentview_rgb"] = images(length, episode, 0)
            demo["obs/eye_in_hand_rgb"] = images(length, episode, 1)
    return file


def write_rlds(
    folder: Path,
    lengths: Sequence[int] = LENGTHS,
    *,
    encoding: Encoding = "png",
    shards: int = 2,
    instruction: Literal["steps", "observation"] = "steps",
) -> Path:
    """RLDS: a TFDS folder with one Example an episode; the language lies in the step or in its observation."""
    observation = {
        "image": image((SIDE, SIDE, 3), encoding),
        "wrist_image": image((SIDE, SIDE, 3), encoding),
        "state": tensor((7,), "float32"),
    }
    flags = ("is_first", "is_last", "is_terminal")
    steps: dict[str, Any] = {
        "action": tensor((7,), "float32"),
        "reward": tensor((), "float32"),
        **{flag: tensor((), "bool") for flag in flags},
    }
    if instruction == "steps":
        steps["language_instruction"], language = text(), "steps/language_instruction"
    else:
        observation["natural_language_instruction"] = text()
        language = "steps/observation/natural_language_instruction"
    episodes = []
    for episode, length in enumerate(lengths):
        state, action = vectors(length, episode)
        last = np.arange(length) == length - 1
        episodes.append(
            {
                "steps/observation/image": [encode(frame, encoding) for frame in images(length, episode, 0)],
                "steps/observation/wrist_image": [encode(frame, encoding) for frame in images(length, episode, 1)],
                "steps/observation/state": state,
                "steps/action": action,
                "steps/reward": last.astype(np.float32),
                "steps/is_first": np.arange(length) == 0,
                "steps/is_last": last,
                "steps/is_terminal": last,
                language: [f"lift the cube {episode}".encode()] * length,
                "episode_metadata/file_path": [f"/somewhere/episode_{episode}.npy".encode()],
            }
        )
    return write_tfds(
        folder,
        {"observation": group(observation), **steps},
        episodes,
        shards=shards,
        metadata={"file_path": text()},
    )


def write_xvla_meta(folder: Path, lengths: Sequence[int] = LENGTHS, *, absolute: bool = False, **meta: Any) -> Path:
    """The public X-VLA code's meta file over HDF5 episodes with images as variable-length encoded bytes.

    `meta` adds or replaces entries of the JSON file; `absolute` lists the episodes by their full paths.
    """
    folder.mkdir(parents=True)
    for episode, length in enumerate(lengths):
        state, action = vectors(length, episode)
        with h5py.File(folder / f"episode_{episode}.hdf5", "w") as file:
            file["observations/state"], file["action"] = state, action
            file["language_instruction"] = f"lift the cube {episode}"
            for number, camera in enumerate(("front", "wrist")):
                rows = file.create_dataset(f"observations/images/{camera}", (length,), dtype=h5py.vlen_dtype(np.uint8))
                for index, frame in enumerate(images(length, episode, number)):
                    rows[index] = np.frombuffer(encode(frame, "jpeg"), dtype=np.uint8)
    names = [f"episode_{episode}.hdf5" for episode in range(len(lengths))]
    content = {
        "dataset_name": "tester",
        "datalist": [str(folder.resolve() / name) for name in names] if absolute else names,
        "observation_key": ["observations/images/front", "observations/images/wrist"],
        "language_instruction_key": "language_instruction",
        **meta,
    }
    path = folder / "meta.json"
    path.write_text(json.dumps(content, indent=2))
    return path


HDF5_CAMERAS = ("observations/images/front", "observations/images/wrist")
LEROBOT = {"reader": "lerobot", "cameras": (FRONT, WRIST), "state": (STATE,), "action": ACTION}
FORMATS: tuple[Format, ...] = (
    Format(name="lerobot30", write=write_dataset, **LEROBOT),
    Format(name="lerobot21", write=write_lerobot21, **LEROBOT),
    Format(name="groot", write=write_groot, **LEROBOT),
    Format(
        name="aloha",
        reader="hdf5",
        write=write_aloha,
        cameras=HDF5_CAMERAS,
        state=("observations/qpos",),
        action="action",
    ),
    Format(
        name="aloha_jpeg",
        reader="hdf5",
        write=lambda folder: write_aloha(folder, encoding="jpeg"),
        cameras=HDF5_CAMERAS,
        state=("observations/qpos",),
        action="action",
    ),
    Format(
        name="robomimic",
        reader="hdf5",
        write=lambda place: write_robomimic(place.with_suffix(".hdf5")),
        cameras=("obs/agentview_rgb", "obs/eye_in_hand_rgb"),
        state=("obs/ee_pos", "obs/ee_ori", "obs/gripper_states"),
        action="actions",
    ),
    Format(
        name="rlds",
        reader="rlds",
        write=write_rlds,
        cameras=("steps/observation/image", "steps/observation/wrist_image"),
        state=("steps/observation/state",),
        action="steps/action",
    ),
    Format(
        name="xvla_meta",
        reader="xvla_meta",
        write=write_xvla_meta,
        cameras=HDF5_CAMERAS,
        state=("observations/state",),
        action="action",
    ),
)
