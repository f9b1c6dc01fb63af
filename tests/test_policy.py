"""A registered adaptation acts: robot units in and out, the same seed the same chunk, another base refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from adapt_helpers import command, write_place, write_small_base
from data_helpers import gripper, joints, make_spec

from xvla_platform.data.binding import Binding
from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.errors import XvlaError
from xvla_platform.evaluation.baselines import hold_still, mean_action, nearest_demonstration
from xvla_platform.evaluation.open_loop import relative_error
from xvla_platform.evaluation.report import example_difference
from xvla_platform.modelling.sampling import SAMPLERS
from xvla_platform.platform.bases import resolve_base
from xvla_platform.policy.example import Example, load_example, save_example
from xvla_platform.policy.policy import Observation, Policy, load_policy
from xvla_platform.specs.action_space import action_space


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one prompt-only adaptation."""
    root = write_place(tmp_path_factory.mktemp("policy") / "place")
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    words = ("adapt", "--embodiment", "my_arm", "--then", "none", "--steps", "4", "--batch-size", "4")
    assert command(*words, cwd=root) == 0
    return root


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    return place / "registry" / "my_arm" / "v1"


@pytest.fixture(scope="module")
def policy(place: Path, folder: Path) -> Policy:
    return load_policy(folder, base=resolve_base(str(place / "base")))


@pytest.fixture
def observation(place: Path) -> Observation:
    """The first frame of the dataset as a robot would see it."""
    reader = open_lerobot(place / "plugins" / "my_arm" / "demonstrations")
    views = {name: reader.frames(0, f"observation.images.{name}", [0])[0] for name in ("front", "wrist")}
    return Observation(
        images=views, state=np.array([0.3, 0.1, 0.2, 0.1, 0.2, 0.3, 0.04]), instruction="lift the cube 0"
    )


def test_a_chunk_is_in_the_robots_units(policy: Policy, observation: Observation) -> None:
    """Ten targets over the declared second; columns are the fields side by side; grippers lie within the stroke."""
    chunk = policy.act(observation, seed=1)
    assert chunk.model.shape == (10, 20)
    np.testing.assert_allclose(chunk.times, np.arange(1, 11) / 10)
    assert {name: values.shape for name, values in chunk.fields.items()} == {
        "position": (10, 3),
        "rotation": (10, 3),
        "gripper": (10, 1),
    }
    assert chunk.columns.shape == (10, 7)
    np.testing.assert_allclose(chunk.columns, np.concatenate(list(chunk.fields.values()), axis=1))
    assert (chunk.fields["gripper"] >= 0.0).all()
    assert (chunk.fields["gripper"] <= 0.08).all()
    assert np.isfinite(chunk.columns).all()


def test_the_seed_fixes_the_chunk(policy: Policy, observation: Observation) -> None:
    """Equal seeds give equal bits, other seeds, other states and other words another chunk."""
    first = policy.act(observation, seed=1).model
    assert np.array_equal(first, policy.act(observation, seed=1).model)
    changed = (
        policy.act(observation, seed=2),
        policy.act(replace(observation, state=observation.state + 0.1), seed=1),
        policy.act(replace(observation, instruction="lift the cube 3"), seed=1),
        policy.act(observation, seed=1, sampler=SAMPLERS["fast"]),
    )
    assert all(not np.array_equal(first, chunk.model) for chunk in changed)


def test_the_example_is_answered_again(place: Path, folder: Path, policy: Policy) -> None:
    """Whoever pulls the folder can check it without the dataset; a changed row is seen."""
    assert example_difference(folder, policy)[0] == 0.0
    other = load_policy(folder, base=resolve_base(str(place / "base")))
    other.model.transformer.action_encoder.fc.weight.data[3] *= 1.1
    assert example_difference(folder, other)[0] > 1e-4


def test_an_example_comes_back_whole(tmp_path: Path, observation: Observation) -> None:
    """Images without loss, numbers in full precision, words as they were."""
    chunk = np.random.default_rng(0).normal(size=(10, 20)).astype(np.float32)
    save_example(tmp_path, Example(observation=observation, seed=3, chunk=chunk))
    again = load_example(tmp_path)
    assert (again.seed, again.observation.instruction) == (3, observation.instruction)
    assert np.array_equal(again.chunk, chunk)
    assert np.array_equal(again.observation.state, observation.state)
    assert all(np.array_equal(again.observation.images[k], v) for k, v in observation.images.items())
    (tmp_path / "example_batch.safetensors").write_bytes(b"no")
    with pytest.raises(XvlaError, match="the example cannot be read"):
        load_example(tmp_path)


def test_undeclared_cameras_are_refused(policy: Policy, observation: Observation) -> None:
    """A missing or an extra camera is named, with those that were declared."""
    front = {"front": observation.images["front"]}
    with pytest.raises(XvlaError, match="found front; allowed: front, wrist"):
        policy.act(replace(observation, images=front))
    with pytest.raises(XvlaError, match="found front, top, wrist; allowed: front, wrist"):
        policy.act(replace(observation, images={**observation.images, "top": observation.images["front"]}))


def test_what_is_not_as_declared_is_refused(policy: Policy, observation: Observation) -> None:
    """Wrong kinds, sizes and numbers are named with what they should be; nothing of them is remembered."""
    front, state = observation.images["front"], observation.state
    images = {
        "a float image": front / 255.0,
        "whole numbers of eight bytes": front.astype(np.int64),
        "channels first": front.transpose(2, 0, 1),
        "an alpha channel": np.concatenate([front, front[..., :1]], axis=-1),
        "another resolution": np.zeros((48, 32, 3), np.uint8),
        "a batch": front[None],
    }
    for name, image in images.items():
        with pytest.raises(XvlaError, match=r"images\.front: is not an image as declared.*uint8 \[32, 32, 3\]"):
            pytest.fail(f"{name}: {policy.act(replace(observation, images={**observation.images, 'front': image}))}")
    states = {
        "too short": state[:-1],
        "too long": np.append(state, 0.0),
        "a batch": state[None],
        "words": state.astype(str),
        "bits": state > 0,
    }
    for name, wrong in states.items():
        with pytest.raises(XvlaError, match=r"state: is not the declared vector.*7 numbers \(position 3, rotation 3"):
            pytest.fail(f"{name}: {policy.act(replace(observation, state=wrong))}")
        with pytest.raises(XvlaError, match="first_state: is not the declared vector"):
            policy.act(observation, first_state=wrong)
    broken = state.copy()
    broken[2] = np.nan
    policy.reset()
    with pytest.raises(XvlaError, match=r"state\[2\]: is not a finite number"):
        policy.act(replace(observation, state=broken))
    policy.act(observation)
    assert policy._first_state is not None
    assert np.array_equal(policy._first_state, state)
    others = {"images": [front, front], "state": state.tolist(), "instruction": None}
    for name, value in others.items():
        with pytest.raises(XvlaError, match=f"^{name}: (is|are) not"):
            policy.act(replace(observation, **{name: value}))
    with pytest.raises(XvlaError, match=r"images\.front: is not an array"):
        policy.act(replace(observation, images={**observation.images, "front": front.tolist()}))
    for seed in (-1, 2**63, 0.5, True):
        with pytest.raises(XvlaError, match="seed: is no seed"):
            policy.act(observation, seed=seed)  # type: ignore[arg-type]
    assert np.array_equal(
        policy.act(replace(observation, state=state.astype(np.float32).astype(np.float64))).model,
        policy.act(replace(observation, state=state.astype(np.float32))).model,
    )


def test_a_long_instruction_is_refused(policy: Policy, observation: Observation) -> None:
    """Not cut in the middle of the sentence."""
    with pytest.raises(XvlaError, match="this base reads 16"):
        policy.act(replace(observation, instruction="open the second drawer and put the green ball into it"))


def test_another_base_is_refused(folder: Path, tmp_path: Path) -> None:
    """Other weights of the same shape would load, and act wrongly: the fingerprint decides."""
    other = resolve_base(str(write_small_base(tmp_path / "other", seed=1)))
    with pytest.raises(XvlaError, match="the base's weights are not those the adaptation was made for"):
        load_policy(folder, base=other)


def test_a_moved_base_is_the_same_base(place: Path, folder: Path, tmp_path: Path, observation: Observation) -> None:
    """Its place does not matter, its weights do."""
    shutil.copytree(place / "base", tmp_path / "moved")
    moved = load_policy(folder, base=resolve_base(str(tmp_path / "moved")))
    here = load_policy(folder, base=resolve_base(str(place / "base")))
    assert np.array_equal(moved.act(observation).model, here.act(observation).model)


def test_standing_still_is_in_the_actions_numbers() -> None:
    """Scaled apart, proprio and action differ in numbers for one pose; equal sizes are told apart by name."""
    state = [joints(2, name="lift"), joints(2, "deg", name="arm"), gripper(0.1, 0.0)]
    action = [joints(2, name="arm", normalization="mean_std"), gripper(), joints(2, name="lift")]
    entry = {"mean": [0.5, 1.0], "std": [2.0, 4.0], "min": [-3.0, -9.0], "max": [4.0, 9.0], "floor": 0.02}
    space = action_space("auto", dim=20, real_dim=8)
    binding = Binding(
        make_spec(state, action), space, "rot6d_interleaved", {"canonical": {"action": {"arm": entry}, "proprio": {}}}
    )
    raw = np.array([[0.1, 0.2, 90.0, -90.0, 0.15]])
    chunk = hold_still(binding, binding.proprio(raw), 4)
    assert chunk is not None
    assert chunk.shape == (1, 4, 20)
    found = binding.decode(chunk)
    np.testing.assert_allclose(found["arm"][0, 3], np.radians([90, -90]), atol=1e-6)
    np.testing.assert_allclose(found["lift"][0, 3], [0.1, 0.2], atol=1e-6)
    assert found["gripper"][0, 3] == pytest.approx(0.08)
    without = make_spec([gripper()], action)
    bound = Binding(without, space, "rot6d_interleaved", {"canonical": {"action": {"arm": entry}}})
    assert hold_still(bound, bound.proprio(raw[:, 4:]), 4) is None


def test_baselines(policy: Policy) -> None:
    """Standing still repeats the state, the nearest demonstration shares the words, the mean is the mean."""
    proprio = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
    chunks = np.random.default_rng(1).normal(size=(4, 10, 20)).astype(np.float32)
    still = hold_still(policy.binding, proprio, 10)
    assert still is not None
    assert np.array_equal(still[:, 0, :3], proprio[:, :3])
    assert np.array_equal(still[:, 0], still[:, 9])
    words = np.array(["a", "a", "b", "b"])
    found = nearest_demonstration(proprio, chunks, words, proprio[[1, 1, 1]], np.array(["a", "b", "c"]))
    assert np.array_equal(found[0], chunks[1])
    assert any(np.array_equal(found[1], chunk) for chunk in chunks[2:])
    assert np.array_equal(found[2], chunks[1])
    np.testing.assert_allclose(mean_action(chunks, 2)[1], chunks.mean(0), atol=1e-6)
    assert relative_error({"a": 2.0, "b": 1.0}, {"a": 4.0, "b": 1.0}) == pytest.approx(0.75)
