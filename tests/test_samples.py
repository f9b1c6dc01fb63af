"""Samples of a dataset: a flat index over episodes, aligned states, chunks, frames and instructions; the split."""

from pathlib import Path

import numpy as np
import pytest
from data_helpers import FRONT, WRIST, columns, images, make_spec, read_dataset

from xvla_platform.data.binding import Binding
from xvla_platform.data.reader import DatasetReader
from xvla_platform.data.samples import Samples, split_episodes
from xvla_platform.errors import XvlaError
from xvla_platform.specs.action_space import action_space

LENGTHS = (12, 9, 15)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> DatasetReader:
    return read_dataset(tmp_path_factory.mktemp("data") / "set", LENGTHS)


def samples_of(reader: DatasetReader, episodes: tuple[int, ...] = (0, 2), **more: object) -> Samples:
    spec = make_spec(**more)  # type: ignore[arg-type]
    return Samples(reader, spec, Binding(spec, action_space("ee6d"), "rot6d_interleaved"), episodes, 10)


def test_the_index_is_flat_and_ordered(reader: DatasetReader) -> None:
    samples = samples_of(reader)
    assert len(samples) == 27
    assert samples.episode_of.tolist() == [0] * 12 + [2] * 15
    assert samples.frame_of.tolist() == [*range(12), *range(15)]
    assert samples.instruction(0) == "lift the cube 0"
    assert samples.instruction(26) == "lift the cube 2"


@pytest.mark.parametrize("tail", ["hold", "shrink"])
def test_arrays_follow_the_order_of_the_request(reader: DatasetReader, tail: str) -> None:
    samples, wanted = samples_of(reader, tail=tail), [20, 3, 26, 3]
    state = samples.raw_state(wanted)
    assert state[0] == pytest.approx(columns(15, 2)["observation.state"][8], abs=1e-6)
    assert np.array_equal(state[1], state[3])
    assert np.array_equal(samples.proprio(wanted), samples.binding.proprio(state))
    chunks = samples.chunks(wanted)
    assert chunks.shape == (4, 10, 20)
    assert chunks.dtype == np.float32
    whole = samples.chunks(np.arange(len(samples)))
    assert np.array_equal(chunks, whole[wanted])
    front, wrist = samples.images(wanted)
    for camera, view in enumerate((front, wrist)):
        for place, index in enumerate(wanted):
            episode, frame = samples.episode_of[index], samples.frame_of[index]
            expected = images(LENGTHS[episode], int(episode), camera)[frame].mean()
            assert view[place].mean() == pytest.approx(expected, abs=3)


def test_chunks_are_the_commands_ahead(reader: DatasetReader) -> None:
    samples = samples_of(reader)
    chunk = samples.binding.decode(samples.chunks([2])[0])
    assert chunk["position"] == pytest.approx(columns(12, 0)["action"][2:, :3], abs=1e-5)
    held = samples.binding.decode(samples.chunks([11])[0])
    assert held["position"] == pytest.approx(np.tile(columns(12, 0)["action"][-1, :3], (10, 1)), abs=1e-5)


def test_main_view_comes_first_whatever_the_order_declared(reader: DatasetReader) -> None:
    assert [view[0].mean() > 50 for view in samples_of(reader, cameras=(WRIST, FRONT)).images([0])] == [False, True]


def test_a_one_frame_episode(tmp_path: Path) -> None:
    samples = samples_of(read_dataset(tmp_path / "set", (1, 3, 1)), (0, 2))
    assert len(samples) == 2
    chunks = samples.chunks([0, 1])
    assert np.array_equal(chunks, np.repeat(chunks[:, :1], 10, axis=1))


def test_two_rates_of_one_motion(tmp_path: Path) -> None:
    def at_thirty(episode: int, vectors: dict[str, np.ndarray]) -> None:
        time = np.arange(len(vectors["action"]) + 1)[:, None] / 30
        motion = np.concatenate([np.tile(0.1 * time, (1, 6)), np.zeros_like(time)], axis=1)
        vectors.update({"observation.state": motion[:-1], "action": motion[1:]})

    def at_ten(episode: int, vectors: dict[str, np.ndarray]) -> None:
        at_thirty(episode, vectors)
        vectors.update({key: values * 3 for key, values in vectors.items()})

    fast = samples_of(read_dataset(tmp_path / "fast", (60,), fps=30, edit=at_thirty), (0,), hz=30.0)
    slow = samples_of(read_dataset(tmp_path / "slow", (20,), fps=10, edit=at_ten), (0,), hz=10.0)
    assert slow.chunks([5])[0, 0:, :3] == pytest.approx(fast.chunks([15])[0, 0:, :3], abs=1e-5)


def test_faults_name_their_episode(reader: DatasetReader, tmp_path: Path) -> None:
    with pytest.raises(XvlaError, match="no usable frame"):
        samples_of(reader, ())
    narrow = make_spec()
    camera = narrow.cameras[0].model_copy(update={"resolution": (16, 16)})
    spec = narrow.model_copy(update={"cameras": (camera,)})
    samples = Samples(reader, spec, Binding(spec, action_space("ee6d"), "rot6d_columns"), [0], 10)
    with pytest.raises(XvlaError, match=r"episode 0 has frames of another size.*found \[32, 32\]"):
        samples.images([0])


@pytest.mark.parametrize(
    ("count", "held_out", "sizes"),
    [
        (3, 0.01, (1, 1, 1)),
        (10, 0.2, (8, 1, 1)),
        (50, 0.2, (40, 5, 5)),
        (20, 0.25, (15, 2, 3)),
        (4, 0.9, (1, 1, 2)),
        (3, 0.99, (1, 1, 1)),
    ],
)
def test_the_split(count: int, held_out: float, sizes: tuple[int, int, int]) -> None:
    parts = split_episodes(count, held_out, seed=7)
    assert tuple(map(len, parts)) == sizes
    assert sorted(sum(parts, ())) == list(range(count))
    assert parts == split_episodes(count, held_out, seed=7)


def test_the_split_depends_on_the_seed_and_needs_three() -> None:
    assert split_episodes(50, 0.2, 0) != split_episodes(50, 0.2, 1)
    with pytest.raises(XvlaError, match=r"too few episodes.*found 2"):
        split_episodes(2, 0.2, 0)


def test_poses_reached_are_their_own_moment(reader: DatasetReader) -> None:
    samples = samples_of(reader, timing="reached")
    chunk = samples.binding.decode(samples.chunks([2])[0])
    assert chunk["position"][:9] == pytest.approx(columns(12, 0)["action"][3:, :3], abs=1e-5)


def test_the_margin_and_idle_frames_are_left_out(tmp_path: Path) -> None:
    def rest(episode: int, vectors: dict[str, np.ndarray]) -> None:
        vectors["action"][4:8] = vectors["action"][4]

    reader = read_dataset(tmp_path / "set", (12, 9), edit=rest)
    idle = {"skip_idle": {}}
    assert samples_of(reader, (0, 1)).frame_of.tolist() == [*range(12), *range(9)]
    # Commands 4 to 7 are one pose: at frames 5, 6 and 7 it is due now and a tick later.
    assert samples_of(reader, (0,), dataset=idle).frame_of.tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    assert samples_of(reader, (0,), dataset={**idle, "tail_margin": 3}).frame_of.tolist() == [0, 1, 2, 3, 4, 8]
    with pytest.raises(XvlaError, match=r"no usable frame.*tail_margin is 12 frames"):
        samples_of(reader, (0, 1), dataset={"tail_margin": 12})


def test_the_digest_of_the_footage_follows_what_changes_it(reader: DatasetReader) -> None:
    variants = ({}, {"dataset": {"tail_margin": 1}}, {"front": {"flip": "both"}}, {"front": {"channels": "bgr"}})
    assert len({samples_of(reader, **more).footage() for more in variants}) == 4  # type: ignore[arg-type]
    assert samples_of(reader).footage() == samples_of(reader, horizon_s=0.5).footage()
