"""The ready plugins of the base's own robots: they load, fit the base, agree with its table, and read their schema.

Each is tried on a small recording of exactly the columns, sizes and pictures it declares, written for the test.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY
from formats import encode
from rlds_writer import group, image, tensor, text, write_tfds

from xvla_platform.data.binding import Binding
from xvla_platform.data.canonical import to_canonical
from xvla_platform.data.lerobot_video import VideoFile, VideoSettings
from xvla_platform.data.rotations import from_matrix, geodesic_deg, to_matrix
from xvla_platform.data.samples import Samples
from xvla_platform.data.vectors import read_vectors
from xvla_platform.data.verify import check_dataset
from xvla_platform.errors import XvlaError
from xvla_platform.platform.domains import published_domains
from xvla_platform.platform.embodiments import open_data
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.specs.action_space import action_space
from xvla_platform.specs.domain import DomainConvention
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.fields import FieldSpec

# Plugin to the row of the public bases that was trained with its data.
ROBOTS = {
    "bridge_widowx": 0,
    "google_robot": 1,
    "calvin": 2,
    "libero": 3,
    "softfold_agilex": 5,
    "robotwin2": 6,
    "robocasa": 7,
    "vlabench": 8,
    "robomind_franka": 11,
    "robomind_ur": 12,
    "droid_left": 13,
    "droid_right": 14,
    "agibot": 15,
    "airbot": 18,
}
EE6D, ANCHORS = action_space("ee6d"), 30
DOMAINS = {domain.domain_id: domain for domain in published_domains().domains}
LANGUAGE_OF = {"robomind_franka": "language_raw", "robomind_ur": "language_raw"}


@dataclass(frozen=True)
class Recorded:
    """A plugin beside a recording of its own schema."""

    spec: EmbodimentSpec
    folder: Path
    lengths: tuple[int, ...]


@pytest.fixture(scope="module", params=sorted(ROBOTS))
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("plugins") / request.param
    folder.mkdir()
    shutil.copy(REPOSITORY / "plugins" / request.param / "plugin.yaml", folder)
    spec = load_plugin(folder).spec
    window = round(spec.control_hz * spec.horizon_s)
    lengths = (max(window, spec.dataset.tail_margin) + 6, spec.dataset.tail_margin + 5)
    {"rlds": write_rlds, "xvla_meta": write_meta, "lerobot": write_lerobot}[spec.dataset.format](spec, folder, lengths)
    return Recorded(spec, folder, lengths)


def motion(field: FieldSpec, length: int, episode: int) -> np.ndarray:
    """Recorded numbers [L, size] of a smooth motion that depends on what the field is, not on where it stands."""
    time = np.arange(length) / 40 + episode + (7 if field.arm == "right" else 0)
    waves = np.stack([np.sin((1 + 0.3 * number) * time + number) for number in range(field.size)], axis=1)
    if field.kind == "rotation":
        angles = 0.4 * np.stack([np.sin((1 + 0.3 * n) * time + n) for n in range(3)], axis=1)
        matrices = to_matrix(angles, "euler_xyz_extrinsic", "rad")
        return from_matrix(matrices, field.format, field.unit)
    if field.kind == "gripper":
        closed = np.sin(3 * time)[:, None] > 0
        return np.where(closed, field.closed, field.open).astype(float)
    return 0.3 * waves


def columns(spec: EmbodimentSpec, length: int, episode: int) -> dict[str, np.ndarray]:
    """Dataset key to its numbers [L, n], float32; proprio and action share columns where they name the same."""
    out: dict[str, np.ndarray] = {}
    for vector in (spec.action, spec.proprio):
        for key, fields in vector.columns().items():
            parts = [motion(field, length, episode) for field in fields]
            out[key] = np.concatenate(parts, axis=1).astype(np.float32)
    return out


def pictures(spec: EmbodimentSpec) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        c.key: np.kron(random.integers(0, 255, (2, 2, 3)), np.ones((c.resolution[0] // 2, c.resolution[1] // 2, 1)))
        .astype(np.uint8)
        for c in spec.cameras
    }  # fmt: skip


def write_meta(spec: EmbodimentSpec, folder: Path, lengths: tuple[int, ...]) -> None:
    """What the plugin's README tells to write: HDF5 episodes and the meta file that it shows."""
    data = folder / "data"
    data.mkdir()
    readme = (REPOSITORY / "plugins" / spec.name / "README.md").read_text()
    meta = json.loads(readme.split("```json")[1].split("```")[0])
    assert meta["observation_key"] == [camera.key for camera in spec.ordered_cameras]
    for episode, length in enumerate(lengths):
        with h5py.File(data / meta["datalist"][episode], "w") as file:
            for key, values in columns(spec, length, episode).items():
                file[key] = values
            file[meta["language_instruction_key"]] = f"lift cube {episode}"
            for key in {meta.get("left_time_key"), meta.get("right_time_key")} - {None}:
                file[key] = 100.0 + np.arange(length) / spec.control_hz
            for key, picture in pictures(spec).items():
                rows = file.create_dataset(key, (length,), dtype=h5py.vlen_dtype(np.uint8))
                rows[:] = [np.frombuffer(encode(picture, "jpeg"), dtype=np.uint8)] * length
    (data / "meta.json").write_text(json.dumps(meta))


def write_rlds(spec: EmbodimentSpec, folder: Path, lengths: tuple[int, ...]) -> None:
    sizes = {key: values.shape[1] for key, values in columns(spec, 2, 0).items()}
    names = [key.removeprefix("steps/") for key in (*sizes, *(c.key for c in spec.cameras))]
    assert all(name.count("/") <= 1 for name in names)
    observation: dict[str, Any] = {
        key.split("/")[-1]: tensor((size,), "float32") for key, size in sizes.items() if "/observation/" in key
    }
    observation |= {c.key.split("/")[-1]: image((*c.resolution, 3), "jpeg") for c in spec.cameras}
    steps: dict[str, Any] = {
        key.split("/")[-1]: tensor((size,), "float32") for key, size in sizes.items() if "/observation/" not in key
    }
    language = "natural_language_instruction" if spec.name == "google_robot" else "language_instruction"
    if spec.name == "google_robot":
        observation[language] = text()
    else:
        steps[language] = text()
    steps |= {flag: tensor((), "bool") for flag in ("is_first", "is_last")}
    place = f"steps/observation/{language}" if language in observation else f"steps/{language}"
    episodes = []
    for episode, length in enumerate(lengths):
        record: dict[str, Any] = dict(columns(spec, length, episode))
        record |= {key: [encode(picture, "jpeg")] * length for key, picture in pictures(spec).items()}
        record[place] = [f"lift cube {episode}".encode()] * length
        record |= {"steps/is_first": np.arange(length) == 0, "steps/is_last": np.arange(length) == length - 1}
        episodes.append(record)
    write_tfds(folder / "data", {"observation": group(observation), **steps}, episodes, shards=1)


def write_lerobot(spec: EmbodimentSpec, folder: Path, lengths: tuple[int, ...]) -> None:
    """LeRobot 2.1 with two-armed columns of two rows, as the public conversion of AgiBot World has them."""
    data, features = folder / "data", {}
    for key, values in columns(spec, 2, 0).items():
        arms = [2, values.shape[1] // 2] if values.shape[1] > 2 else [2]
        features[key] = {"dtype": "float32", "shape": arms, "names": None}
    for camera in spec.cameras:
        features[camera.key] = {"dtype": "video", "shape": [*camera.resolution, 3], "names": ["height", "width", "c"]}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    for episode, length in enumerate(lengths):
        frame = np.arange(length)
        rows = {
            "timestamp": pa.array((frame / spec.control_hz).astype(np.float32)),
            "frame_index": pa.array(frame),
            "episode_index": pa.array(np.full(length, episode)),
            "index": pa.array(frame + sum(lengths[:episode])),
            "task_index": pa.array(np.full(length, episode)),
        }
        for key, values in columns(spec, length, episode).items():
            rows[key] = pa.array(values.reshape(length, *features[key]["shape"]).tolist())
        path = data / f"data/chunk-000/episode_{episode:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows), path)
        for key, picture in pictures(spec).items():
            place = data / f"videos/chunk-000/{key}/episode_{episode:06d}.mp4"
            settings = VideoSettings(gop=30, preset="ultrafast")
            video = VideoFile(place, int(spec.control_hz), *picture.shape[:2], settings, (0, episode))
            video.write(np.repeat(picture[None], length, 0))
            video.close()
    info = {
        "codebase_version": "v2.1", "robot_type": "a2d", "total_episodes": len(lengths),
        "total_frames": sum(lengths), "total_tasks": 2, "total_videos": 3 * len(lengths), "total_chunks": 1,
        "chunks_size": 1000, "fps": int(spec.control_hz), "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }  # fmt: skip
    tables: Mapping[str, list[dict[str, Any]]] = {
        "tasks": [{"task_index": i, "task": f"lift cube {i}"} for i in range(len(lengths))],
        "episodes": [{"episode_index": i, "tasks": [f"lift cube {i}"], "length": n} for i, n in enumerate(lengths)],
    }
    (data / "meta").mkdir()
    (data / "meta/info.json").write_text(json.dumps(info))
    for name, table in tables.items():
        (data / f"meta/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))


def domain_of(spec: EmbodimentSpec) -> DomainConvention:
    return DOMAINS[ROBOTS[spec.name]]


def binding_of(spec: EmbodimentSpec) -> Binding:
    return Binding(spec, EE6D, domain_of(spec).rotation_layout or "rot6d_interleaved")


@pytest.mark.parametrize("name", sorted(ROBOTS))
def test_the_declaration_agrees_with_the_base(name: str) -> None:
    """Rate, horizon, margin, arms, rotation format and gripper are those of the row's convention."""
    spec = load_plugin(REPOSITORY / "plugins" / name).spec
    domain = DOMAINS[ROBOTS[name]]
    assert spec.name == name
    assert (spec.control_hz, spec.horizon_s) == (domain.control_hz, domain.horizon_s)
    assert spec.dataset.tail_margin == domain.tail_margin
    assert spec.dataset.tail == "shrink"
    assert {field.arm for field in spec.action.fields if field.kind != "ignored"} == set(domain.arms)
    assert len(spec.cameras) <= 3
    binding = binding_of(spec)  # refuses what does not fit
    assert binding.action_mask.sum() == 10 * len(domain.arms)
    for field in spec.action.fields:
        if field.kind == "rotation" and domain.rotation_source is not None:
            assert field.format == domain.rotation_source
        if field.kind == "gripper":
            low, high = sorted((field.open, field.closed))
            for value in np.linspace(low, high, 21):
                assert domain.gripper is not None
                canonical = to_canonical(field, np.array([value]))[0]
                assert canonical == pytest.approx(domain.gripper.closedness(value), abs=1e-9), f"{value} of {name}"


def test_every_row_of_the_base_with_a_public_dataset_has_a_plugin() -> None:
    assert {name for name in ROBOTS if not (REPOSITORY / "plugins" / name / "plugin.yaml").is_file()} == set()
    lacking = {domain.name for domain in DOMAINS.values()} - {DOMAINS[row].name for row in ROBOTS.values()}
    assert lacking == {"widowx-air", "AGIBOT-challenge", "AIR-AGILEX", "robomind-agilex", "robomind-franka-dual"}


def test_its_recording_is_what_it_declares(recorded: Recorded) -> None:
    reader = open_data(recorded.spec, recorded.folder)
    check_dataset(reader, recorded.spec)
    assert [episode.length for episode in reader.episodes] == list(recorded.lengths)
    assert [episode.instruction for episode in reader.episodes] == ["lift cube 0", "lift cube 1"]
    vectors = read_vectors(reader, 1, (("proprio", recorded.spec.proprio), ("action", recorded.spec.action)))
    for name, vector in (("proprio", recorded.spec.proprio), ("action", recorded.spec.action)):
        for field, slot in zip(vector.fields, vector.slices().values(), strict=True):
            if field.kind != "ignored":
                assert np.allclose(vectors[name][:, slot], motion(field, recorded.lengths[1], 1), atol=1e-6), field.name


def test_a_chunk_ends_where_the_recording_is_one_horizon_later(recorded: Recorded) -> None:
    """And goes back into the robot's own numbers: what is sent to it is what was recorded."""
    spec, reader = recorded.spec, open_data(recorded.spec, recorded.folder)
    binding = binding_of(spec)
    samples = Samples(reader, spec, binding, [0, 1], ANCHORS)
    for episode, length in enumerate(recorded.lengths):
        starts = samples.frame_of[samples.episode_of == episode]
        assert len(starts)
        assert starts.max() < length - spec.dataset.tail_margin
    window = round(spec.control_hz * spec.horizon_s)
    start = int(samples.frame_of[0])
    target = start + window - (spec.action.timing == "command")
    assert target < recorded.lengths[0]
    sent = binding.to_columns(samples.chunks([0])[0], samples.raw_state([0])[0])[-1]
    for field, slot in zip(spec.action.fields, spec.action.slices().values(), strict=True):
        truth = motion(field, recorded.lengths[0], 0)[target]
        if field.kind == "ignored":
            assert (sent[slot] == field.value).all()
        elif field.kind == "rotation":
            told, meant = (to_matrix(part, field.format, field.unit) for part in (sent[slot], truth))
            assert geodesic_deg(told, meant) < 0.01
        else:
            assert np.allclose(sent[slot], truth, atol=1e-5), field.name


def test_its_pictures_have_the_declared_size_and_colours(recorded: Recorded) -> None:
    spec, reader = recorded.spec, open_data(recorded.spec, recorded.folder)
    samples = Samples(reader, spec, binding_of(spec), [0], ANCHORS)
    for camera, frames in zip(spec.ordered_cameras, samples.images([0, 1]), strict=True):
        assert frames.shape == (2, *camera.resolution, 3)
        written = pictures(spec)[camera.key]
        meant = written[..., ::-1] if camera.channels == "bgr" else written
        assert np.abs(frames[0].astype(float) - meant).mean() < 12


@pytest.mark.parametrize("name", sorted(ROBOTS))
def test_without_its_data_the_plugin_says_so(name: str, tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "plugins" / name / "plugin.yaml", tmp_path)
    spec = load_plugin(tmp_path).spec
    with pytest.raises(XvlaError) as caught:
        open_data(spec, tmp_path)
    assert "data" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(ROBOTS))
def test_the_readme_gives_sources_and_what_is_not_known(name: str) -> None:
    readme = (REPOSITORY / "plugins" / name / "README.md").read_text()
    for heading in ("## What to point at", "## Facts", "## Not established"):
        assert heading in readme
    assert f"xvla check plugins/{name}" in readme
    assert f"row {ROBOTS[name]} (" in readme
