"""Samplers: the published one to the bit, laws of the faster ones, kept features equal to computed ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapt_helpers import command, generated, small_batch, small_model, write_place
from conftest import REPOSITORY, one_line_error
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from xvla_platform.adapt.prepare import open_demonstrations
from xvla_platform.adapt.robot_data import split_samples
from xvla_platform.closed_loop.held_out import encode_all
from xvla_platform.errors import XvlaError
from xvla_platform.evaluation.open_loop import field_errors
from xvla_platform.evaluation.report import measure
from xvla_platform.modelling import objective
from xvla_platform.modelling.checkpoint import load_model
from xvla_platform.modelling.sampling import EXACT, SAMPLERS, Sampler, find_sampler, require, unavailable
from xvla_platform.modelling.xvla import XVLA, published_times
from xvla_platform.platform.bases import resolve_base
from xvla_platform.platform.workspace import Workspace
from xvla_platform.policy.comparing import observation_of
from xvla_platform.policy.mode import Mode
from xvla_platform.policy.policy import Observation, Policy, load_policy

CPU = torch.device("cpu")
HERE = [sampler for sampler in SAMPLERS.values() if unavailable(sampler, CPU) is None]


def plain_sampler(model: XVLA, batch: dict[str, Any], steps: int) -> Tensor:
    """The published loop written out over `XVLA.predict`, everything computed in every step."""
    estimate = torch.zeros_like(batch["noise"])
    for i in range(steps, 0, -1):
        t = torch.full((len(estimate),), i / steps)
        estimate = model.predict(
            domain_id=batch["domain_id"],
            vlm_features=batch["features"][0],
            aux_visual_inputs=batch["features"][1],
            proprio=batch["proprio"],
            noisy_action=objective.interpolate(estimate, batch["noise"], t),
            t=t,
        )
    return objective.finish(model.space, estimate)


@pytest.mark.parametrize("changes", [{}, {"use_hetero_proj": True}, {"num_views": 3}], ids=["plain", "hetero", "3"])
@torch.no_grad()
def test_the_exact_sampler_is_the_published_loop(changes: dict[str, Any]) -> None:
    """Projecting the observation once changes no bit, for one robot and for a batch of several."""
    model = small_model(**changes)
    for domains in ([1], [0, 1, 2, 1]):
        batch = small_batch(domains, model)
        assert torch.equal(generated(model, batch), plain_sampler(model, batch, 10))
    assert published_times(10) == EXACT.times
    assert torch.equal(generated(model, batch, times=published_times(3)), plain_sampler(model, batch, 3))


class Recorded(TorchDispatchMode):
    """Names of the operations that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_nothing_between_host_and_device_while_denoising() -> None:
    """What a CUDA graph captures neither reads numbers back nor brings new ones, and its shapes are fixed."""
    model = small_model()
    batch = small_batch([1], model)
    with Recorded() as recorded:
        generated(model, batch)
    assert "addmm" in recorded.names
    assert not recorded.names & {
        "lift_fresh",
        "_local_scalar_dense",
        "nonzero",
        "index_put_",
        "masked_select",
        "unique",
    }


def test_impossible_samplers_are_refused() -> None:
    """Each with one line that says what is allowed here."""
    for times in ((), (0.5, 0.1), (1.0, 0.1, 0.2), (1.0, 0.0), (1.0, 1.0)):
        with pytest.raises(XvlaError, match="begin at 1 and fall"):
            Sampler(name="odd", times=times)
    with pytest.raises(XvlaError, match="only where features are reused"):
        Sampler(name="odd", aux_every=2)
    with pytest.raises(XvlaError, match=r"no such sampler.*allowed: exact, merged, fast"):
        find_sampler("quick")
    with pytest.raises(XvlaError, match="CUDA graphs need an NVIDIA GPU"):
        require(SAMPLERS["graph"], CPU)
    assert find_sampler("1,0.3,0.1").times == (1.0, 0.3, 0.1)
    assert find_sampler("exact") is EXACT


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one adaptation of prompt and LoRA."""
    root = write_place(tmp_path_factory.mktemp("sampling") / "place")
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    words = ("adapt", "--embodiment", "my_arm", "--steps", "3", "--batch-size", "4")
    assert command(*words, cwd=root) == 0
    return root


def opened(place: Path, sampler: Sampler = EXACT) -> Policy:
    return load_policy(place / "registry" / "my_arm" / "v1", base=resolve_base(str(place / "base")), sampler=sampler)


@pytest.fixture(scope="module")
def policy(place: Path) -> Policy:
    return opened(place)


def observation(seed: int) -> Observation:
    generator = np.random.default_rng(seed)
    images = {name: generator.integers(0, 256, (32, 32, 3), dtype=np.uint8) for name in ("front", "wrist")}
    return Observation(
        images=images, state=np.array([0.3, 0.1, 0.2, 0.1, 0.2, 0.3, 0.04]), instruction="lift the cube 0"
    )


def test_kept_features_have_the_bits_of_computed_ones(place: Path, policy: Policy) -> None:
    """One view changes, none, both, or the words do: each answer is that of a policy that has seen nothing yet."""
    sampler = SAMPLERS["reuse"]
    first, second = observation(0), observation(1)
    other_wrist = replace(first, images={**first.images, "wrist": second.images["wrist"]})
    other_main = replace(first, images={**first.images, "front": second.images["front"]})
    other_words = replace(first, instruction="lift the cube 3")
    policy.reset()
    seen: list[bytes] = []
    for asked in (first, first, other_wrist, other_main, other_words, first, second):
        kept = policy.act(asked, seed=1, sampler=sampler).model
        policy.mode(sampler).reset()
        fresh = policy.act(asked, seed=1, sampler=sampler).model
        assert np.array_equal(kept, fresh)
        plain = policy.act(asked, seed=1, sampler="fast").model
        np.testing.assert_allclose(kept, plain, atol=2e-5)
        seen.append(kept.tobytes())
        policy.mode(sampler).reset()
        policy.act(first, seed=1, sampler=sampler)
    assert len(set(seen)) == 5


def test_a_frame_changed_in_place_is_a_new_frame(policy: Policy) -> None:
    """Drivers write into one buffer; what was kept is compared with a copy."""
    sampler, asked = SAMPLERS["reuse"], observation(0)
    before = policy.act(asked, seed=1, sampler=sampler).model
    asked.images["front"][:] = observation(1).images["front"]
    assert not np.array_equal(policy.act(asked, seed=1, sampler=sampler).model, before)


def test_stale_views_are_looked_at_again(policy: Policy) -> None:
    """On the second call the auxiliary view is the old one, on the third the new one; the main view is never old."""
    stale, fresh = SAMPLERS["stale"], SAMPLERS["reuse"]
    first, second = observation(0), observation(1)
    mixed = replace(second, images={"front": second.images["front"], "wrist": first.images["wrist"]})
    policy.reset()
    answers = [policy.act(asked, seed=1, sampler=stale).model for asked in (first, second, second)]
    for answer, asked in zip(answers, (first, mixed, second), strict=True):
        assert np.array_equal(answer, policy.act(asked, seed=1, sampler=fresh).model)


def test_views_a_robot_lacks_are_zeros_and_cost_nothing() -> None:
    """One camera on a base of three views: what the exact path gives for a masked view, from one encoded image."""
    model = small_model(num_views=3)
    frame = observation(0).images["front"]
    pixels = torch.from_numpy(frame).movedim(-1, 0).float() / 255
    tokens = torch.tensor([[5, 6, 7, *[1] * 13]])
    masked = torch.zeros(1, 3, 3, 32, 32)
    masked[0, 0] = pixels
    expected = model.encode(input_ids=tokens, pixel_values=masked, image_mask=torch.tensor([[True, False, False]]))
    batches: list[int] = []
    handle = model.encoder.vision_tower.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    for sampler in (EXACT, SAMPLERS["reuse"]):
        found = Mode(model, sampler, 1).encode([frame], lambda _: pixels, tokens)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
        assert not found[1].any()
    handle.remove()
    assert batches == [1, 1]


def test_a_policy_keeps_its_own_sampler(place: Path, policy: Policy) -> None:
    """Loaded with another sampler it answers as an exact policy asked for that one; unasked, exact is used."""
    fast = opened(place, SAMPLERS["fast"])
    asked = observation(0)
    assert np.array_equal(fast.act(asked).model, policy.act(asked, sampler="fast").model)
    assert np.array_equal(fast.act(asked, sampler=EXACT).model, policy.act(asked).model)
    assert not np.array_equal(fast.act(asked).model, policy.act(asked).model)


def test_the_command_compares_what_runs_here(place: Path, here: Any) -> None:
    """Exact against itself is nothing, each has times, and one that cannot run is named with its reason."""
    result = here("eval", "my_arm", "--samplers", "--sampler", "1,0.4,0.1", "--json", cwd=place)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    found = {one["name"]: one for one in report["samplers"]}
    assert set(found) == {*(sampler.name for sampler in HERE), "1,0.4,0.1"}
    assert {*report["unavailable"]} == {*SAMPLERS} - {sampler.name for sampler in HERE}
    assert set(found["exact"]["share_of_std"].values()) == {0.0}
    assert found["fast"]["worst_share_of_std"] > 0
    assert {name for name, one in found.items() if one["ms_unchanged"] is not None} == {"reuse", "stale"}
    assert all(one["ms"] > 0 and one["ms_p95"] >= one["ms"] for one in found.values())
    written = json.loads((place / "runs" / "eval" / "my_arm" / "v1" / "samplers.json").read_text())
    assert written["samplers"] == report["samplers"]
    assert (place / "runs" / "eval" / "my_arm" / "v1" / "samplers.png").stat().st_size > 5000
    assert "CUDA graphs" in one_line_error(here("eval", "my_arm", "--sampler", "graph", cwd=place))


def test_measuring_says_which_sampler_it_used(place: Path, here: Any) -> None:
    """The errors of another sampler are not passed off as the adaptation's recorded ones."""
    report = json.loads(here("eval", "my_arm", "--sampler", "faster", "--json", cwd=place).stdout)
    assert report["sampler"] == "faster"
    assert report["errors"] != report["recorded"]
    assert "compares on recorded" in one_line_error(here("eval", "my_arm", "--closed-loop", "--samplers", cwd=place))


def test_recorded_frames_are_encoded_as_the_sampler_encodes(place: Path, tmp_path: Path) -> None:
    """8-bit layers in the encoder are part of the deviation; kept features are refused, as no call comes before."""
    if SAMPLERS["int8"] not in HERE:
        pytest.skip("no 8-bit layers here")
    narrow = opened(place, SAMPLERS["int8"])
    reader = open_demonstrations(Workspace(place), narrow.record, None)
    samples = split_samples(narrow.record, reader, narrow.binding, narrow.model.config.num_actions)["test"][1]
    seen = [observation_of(samples, row) for row in range(len(samples))]
    for one in seen[:3]:
        called = narrow.mode().encode(narrow._frames(one), narrow._preprocess, narrow._words(one.instruction))
        torch.testing.assert_close(encode_all(narrow, [one])[0], called[0], rtol=1e-4, atol=1e-4)
    folder = place / "registry" / "my_arm" / "v1"
    measured = measure(folder, narrow, reader, picture=tmp_path / "seen.png").errors
    seed = json.loads((folder / "metrics.json").read_text())["eval_seed"]
    rows = range(len(samples))
    exactly_seen = encode_all(opened(place), seen)
    chunks = narrow.chunks_from_features(exactly_seen, torch.from_numpy(samples.proprio(rows)), seed=seed)
    assert measured != pytest.approx(field_errors(narrow.binding, chunks, samples.chunks(rows)), rel=1e-5)


def test_kept_features_are_not_measured_on_recorded_frames(place: Path, here: Any) -> None:
    """Neither for errors nor for ablations."""
    for more in ((), ("--ablate", "vision:black")):
        line = one_line_error(here("eval", "my_arm", "--sampler", "reuse", *more, cwd=place))
        assert "the sampler keeps features from call to call" in line


def test_the_shipped_base_bears_three_steps() -> None:
    """On its own pretrained rows the shipped base answers nearly the exact chunk in three steps; even spacing is worse.

    The reference's inputs stand for observations: only the sampler differs between the two answers.
    """
    base = load_model(REPOSITORY / "xvla_platform" / "bases" / "xvla-tiny")
    config, generator = base.config, torch.Generator().manual_seed(0)
    pixels = torch.randn(8, config.num_views, 3, 96, 96, generator=generator)
    tokens = torch.randint(3, 200, (8, config.language_max_length), generator=generator)
    with torch.no_grad():
        features = base.encode(
            input_ids=tokens, pixel_values=pixels, image_mask=torch.ones(8, config.num_views, dtype=torch.bool)
        )
    inputs = {
        "domain_id": torch.tensor([0]),
        "features": features,
        "proprio": torch.randn(8, config.dim_proprio, generator=generator) * 0.1,
        "noise": torch.randn(8, config.num_actions, config.dim_action, generator=generator),
    }
    exact = base.generate(**inputs)

    def away(times: tuple[float, ...]) -> float:
        return float((base.generate(**inputs, times=times) - exact).norm() / exact.std(0).norm())

    three, two, even = away(SAMPLERS["fast"].times), away(SAMPLERS["faster"].times), away(published_times(3))
    assert three < two < even
    assert three < 0.02


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["graph", "fast-graph", "bf16"])
def test_a_graph_answers_as_its_steps_do(name: str) -> None:
    """Replayed with other inputs, the captured steps give the chunk of the same steps launched one by one."""
    device = torch.device("cuda")
    model = small_model().to(device)
    sampler = SAMPLERS[name]
    if unavailable(sampler, device) is not None:
        pytest.skip(str(unavailable(sampler, device)))
    graphed, launched = Mode(model, sampler, 1), Mode(model, replace(sampler, graph=False), 1)
    for seed in (0, 1, 2):
        batch = small_batch([1], model, seed)
        features = (batch["features"][0][:1].to(device), batch["features"][1][:1].to(device))
        found = graphed.chunks(features, batch["proprio"][:1], seed=seed)
        expected = launched.chunks(features, batch["proprio"][:1], seed=seed)
        np.testing.assert_allclose(found, expected, atol=1e-6)
