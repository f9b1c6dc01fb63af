"""The models that are measured: three named sizes with random weights, or a base that is at hand.

What a step costs does not depend on what the weights say, so nothing has to be downloaded. `0.9B` has the released
dimensions; `mid` is the same with Florence-2-base's, `tiny` computes in tenths of a second.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xvla_platform.platform.bases import resolve_base
from xvla_platform.platform.files import write_json

SENTENCES = (
    "lift the red cube",
    "put the bowl on the plate",
    "open the drawer",
    "stack the green block on the blue one",
)
PIXELS = {"tiny": 112}  # others: 224, as released
NAMED = ("tiny", "mid", "0.9B")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How a size is measured.

    Attributes:
        batch: Samples of a step, as in the figures that others publish for it.
        micro: Largest part of a batch that the public recipe's memory allows on a machine of 24 GB.
        steps: Steps of the end-to-end comparison that are really taken; the rest of the thousand is extrapolated.
        frames: Frames of it that are really encoded.
    """

    name: str
    batch: int
    micro: int
    steps: int
    frames: int


def size_of(name: str) -> Size:
    """How the named size, or a base of any size, is measured."""
    if name == "tiny":
        return Size(name=name, batch=8, micro=16, steps=20, frames=100)
    if name == "mid":
        return Size(name=name, batch=4, micro=4, steps=2, frames=32)
    if name == "0.9B":
        return Size(name=name, batch=2, micro=2, steps=1, frames=16)
    return Size(name=name, batch=4, micro=4, steps=4, frames=32)


def make_base(name: str, folder: Path, seed: int = 0) -> None:
    """Write the base that `name` stands for into `folder`: random weights at a named size, else the base itself.

    The layout is one that every peer reads: `model.safetensors` in LeRobot's names, `config.json` in the official form.
    """
    from xvla_platform.modelling.checkpoint import load_model, random_model, save_model
    from xvla_platform.modelling.config import XVLAConfig
    from xvla_platform.modelling.processor import IMAGENET_MEAN, IMAGENET_STD

    folder.mkdir(parents=True, exist_ok=True)
    if name not in NAMED:
        base = resolve_base(name)
        save_model(load_model(base.folder), folder, layout="lerobot")
        for extra in (
            "preprocessor_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json",
            "merges.txt",
        ):
            if (base.folder / extra).is_file():
                shutil.copy(base.folder / extra, folder / extra)
        return
    save_model(random_model(XVLAConfig.from_dict(configuration(name)), seed), folder, layout="lerobot")
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": dict.fromkeys(("height", "width"), PIXELS.get(name, 224)),
        "resample": 3,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }
    write_json(folder / "preprocessor_config.json", processor)
    _write_tokenizer(folder)


def configuration(name: str) -> dict[str, Any]:
    """`config.json` of a named size, in the official form, with room for three views."""
    from xvla_platform.modelling.config import xvla_0_9b

    config = xvla_0_9b() | {"num_views": 3, "language_max_length": 50}
    if name == "mid":
        policy = {"hidden_size": 768, "depth": 12, "num_heads": 12}
        return _shrunk(config, policy, width=768, layers=6, stages=(128, 256, 512, 1024), heads=(4, 8, 16, 32))
    if name == "tiny":
        policy = {"hidden_size": 96, "depth": 4, "num_heads": 4}
        small = _shrunk(config, policy, width=96, layers=2, stages=(16, 32, 48, 64), heads=(2, 2, 4, 4))
        florence = small["florence_config"]
        florence["vocab_size"] = florence["text_config"]["vocab_size"] = 1000
        florence["text_config"]["max_position_embeddings"] = 256
        florence["vision_config"]["depths"] = [1, 1, 2, 1]
        return small
    return config


def tokens_of_view(florence: Mapping[str, Any], image_size: tuple[int, int]) -> int:
    """Tokens that Florence-2 makes of one view: a pooled one, then the grid after its four strided convolutions."""
    vision, count = florence["vision_config"], 1
    for side in image_size:
        for kernel, stride, padding in zip(
            vision["patch_size"], vision["patch_stride"], vision["patch_padding"], strict=True
        ):
            side = (side + 2 * padding - kernel) // stride + 1
        count *= side
    return count + 1


def _shrunk(
    config: dict[str, Any],
    policy: Mapping[str, int],
    *,
    width: int,
    layers: int,
    stages: tuple[int, ...],
    heads: tuple[int, ...],
) -> dict[str, Any]:
    """The released configuration with narrower and fewer layers."""
    florence = config["florence_config"]
    attention = {"encoder_attention_heads": width // 64 or 1, "decoder_attention_heads": width // 64 or 1}
    text = florence["text_config"] | attention
    text |= {"d_model": width, "encoder_layers": layers, "encoder_ffn_dim": 4 * width, "decoder_ffn_dim": 4 * width}
    vision = florence["vision_config"] | {"projection_dim": width}
    vision |= {"dim_embed": list(stages), "num_heads": list(heads), "num_groups": list(heads)}
    shrunk = {**florence, "projection_dim": width, "text_config": text, "vision_config": vision}
    return {**config, **policy, "florence_config": shrunk}


def _write_tokenizer(folder: Path) -> None:
    from xvla_platform.adapt.tokenizer import train_tokenizer

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    train_tokenizer(list(SENTENCES), 400, folder)
