"""The model's own facts: sizes, names and token counts of the released 0.9B, and the size of what a robot adds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapt_helpers import small_batch, small_config, small_model, smooth_image
from conftest import fill_adaptation
from safetensors import safe_open

from xvla_platform.errors import XvlaError
from xvla_platform.modelling import florence
from xvla_platform.modelling.checkpoint import save_model
from xvla_platform.modelling.config import XVLAConfig, xvla_0_9b
from xvla_platform.modelling.layouts import LAYOUTS, LOGITS_BIAS, from_native
from xvla_platform.modelling.slot import SLOT_MODULES, table
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.policy.adapter import Adapter, write_adapter
from xvla_platform.policy.example import Example, load_example, save_example
from xvla_platform.policy.policy import Observation
from xvla_platform.specs.records import BaseRef


@pytest.fixture(scope="module")
def released() -> XVLA:
    """The released dimensions without memory."""
    with torch.device("meta"):
        return XVLA(XVLAConfig.from_dict(xvla_0_9b()))


def test_parameters_and_keys(released: XVLA) -> None:
    """879 M parameters; 903 names of our own, 603 of them Florence's; the official model has 904 with its bias."""
    assert sum(parameter.numel() for parameter in released.parameters()) == 879_482_456
    names = list(released.state_dict())
    assert len(names) == 903
    assert sum(name.startswith("vlm.") for name in names) == 603
    official = {from_native(name, "official") for name in [*names, LOGITS_BIAS]}
    assert len(official) == 904
    assert sum(name.startswith("vlm.") for name in official) == 604


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_saved_file_holds_one_alias_and_microsofts_bias(tmp_path: Path, layout: Any) -> None:
    """Written: every name but one alias of the tied embedding, plus (not in LeRobot's current layout) the bias.

    At 0.9B that is 902 + 1 = 903 tensors in an official file and 902 in a current LeRobot one.
    """
    model = small_model()
    save_model(model, tmp_path, layout=layout)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        keys = set(file.keys())
        assert file.metadata() == {"format": "pt"}
    assert len(keys) == len(model.state_dict()) - 1 + (layout != "lerobot")
    aliases = [key for key in keys if key.endswith((".shared.weight", ".embed_tokens.weight"))]
    assert len(aliases) == 1


def test_token_counts(released: XVLA) -> None:
    """50 tokens a view; three views make 100 of main view and language, 100 auxiliary, 230 with positions, 262."""
    assert released.vlm is not None
    view = florence.image_features(released.vlm, torch.empty(1, 3, 224, 224, device="meta"))
    assert view.shape == (1, 50, 1024)
    config = released.config
    merged = torch.empty(1, 50 + config.language_max_length, 1024, device="meta")
    features = released.vlm.language_model.encoder(inputs_embeds=merged).last_hidden_state  # type: ignore[union-attr, operator]
    seen: list[int] = []
    handle = released.transformer.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    chunk = released.predict(
        domain_id=torch.zeros(1, dtype=torch.long, device="meta"),
        vlm_features=features,
        aux_visual_inputs=torch.empty(1, 2 * 50, 1024, device="meta"),
        noisy_action=torch.empty(1, 30, 20, device="meta"),
        proprio=torch.empty(1, 20, device="meta"),
        t=torch.empty(1, device="meta"),
    )
    handle.remove()
    assert features.shape[1] == 100
    assert seen == [262]
    assert seen[0] - config.len_soft_prompts == 230
    assert chunk.shape == (1, 30, 20)


def test_slot_numbers(released: XVLA) -> None:
    """One robot owns 128,020 numbers: half a megabyte in float32."""
    assert released.config.slot_numbers == 128_020
    assert released.config.slot_numbers * 4 == 512_080
    assert sum(table(released, name).shape[1] for name in SLOT_MODULES) == 128_020
    assert all(table(released, name).shape[0] == 30 for name in SLOT_MODULES)


def test_a_prompt_only_artifact_is_below_a_megabyte(released: XVLA, tmp_path: Path, robot: dict[str, Any]) -> None:
    """At the released dimensions, with three 224 pixel views inside; 150 kB are left to the two pictures."""
    rows = {name: torch.randn(table(released, name).shape[1]) for name in SLOT_MODULES}
    fill_adaptation(tmp_path, 1, robot)
    base = BaseRef(id="user/base", revision="a" * 40, fingerprint="f" * 64)
    write_adapter(tmp_path, Adapter(domain_id=20, rows=rows, lora={}, lora_spec=None), base)
    views = {name: smooth_image(224, seed) for seed, name in enumerate(("front", "left", "wrist"))}
    observation = Observation(images=views, state=np.zeros(7), instruction="put the red cube on the plate")
    save_example(tmp_path, Example(observation=observation, seed=0, chunk=np.zeros((30, 20), dtype=np.float32)))
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert 512_080 <= sizes["adapter_model.safetensors"] <= 514_000
    assert sum(sizes.values()) + 150_000 <= 1_000_000, sizes
    again = load_example(tmp_path).observation
    assert all(np.array_equal(again.images[name], view) for name, view in views.items())


def test_the_same_seed_makes_the_same_model() -> None:
    """Bases are reproducible from a seed, and making one leaves torch's own generator alone."""
    torch.manual_seed(5)
    first = small_model(seed=3).state_dict()
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))
    second, other = small_model(seed=3).state_dict(), small_model(seed=4).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_more_tokens_than_positions_is_an_error() -> None:
    """Beyond the learned positions there is nothing to add: one line, not a shape error."""
    model = small_model(max_len_seq=20)
    with pytest.raises(XvlaError, match="too many tokens for the learned positions"):
        model(**small_batch([0], model))


def test_a_batch_without_any_image_is_an_error() -> None:
    """No view at all is a mistake of the caller, not a batch of zeros."""
    with pytest.raises(XvlaError, match="no view of the batch holds an image"):
        small_model().encode(
            input_ids=torch.ones(1, 16, dtype=torch.long),
            pixel_values=torch.zeros(1, 2, 3, 64, 64),
            image_mask=torch.zeros(1, 2, dtype=torch.bool),
        )


def test_a_missing_view_does_not_depend_on_its_pixels() -> None:
    """Masked views are exact zeros whatever lies in their place, and the others do not notice."""
    model, pixels = small_model(), torch.randn(2, 2, 3, 64, 64)
    mask = torch.tensor([[True, True], [True, False]])
    words = torch.ones(2, 16, dtype=torch.long)
    first = model.encode(input_ids=words, pixel_values=pixels, image_mask=mask)
    pixels[1, 1] = float("nan")
    second = model.encode(input_ids=words, pixel_values=pixels, image_mask=mask)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not first[1][1].any()
    assert first[1][0].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "pi0"}, "is not an X-VLA configuration"),
        ({"hidden_size": None}, "hidden_size: required field is missing"),
        ({"hidden_size": "wide"}, "hidden_size: expected a positive whole number; found wide"),
        ({"florence_config": 3}, "holds a value of the wrong kind"),
        ({"num_heads": 3}, "hidden_size must be a multiple of num_heads"),
        ({"action_mode": "voltage"}, "unknown action space; found voltage; allowed: agibot_ee6d, auto, ee6d, joint"),
    ],
)
def test_an_impossible_configuration_is_named(change: dict[str, Any], message: str) -> None:
    """Each mistake in config.json is one line that names the field."""
    with pytest.raises(XvlaError, match=message):
        XVLAConfig.from_dict({**small_config(), **change})
