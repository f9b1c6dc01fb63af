"""Configurations by name, so that a recipe can start from one of them and state only what differs.

`xvla-0.9b` is the released model. `xvla-preliminary` is the one on which the paper compares the four strategies
(arXiv 2510.10274, Sec. 3 and App. I): Florence-2-base under a DiT of 12 layers of 768 with adaptive norms.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.config import xvla_0_9b

FROM = "from"


def xvla_preliminary() -> dict[str, Any]:
    """The preliminary model, in the official form; `strategy` is to be set to the one of interest."""
    return merged(
        xvla_0_9b(),
        {
            "backbone": "dit",
            "hidden_size": 768,
            "depth": 12,
            "num_heads": 12,
            "florence_config": {
                "projection_dim": 768,
                "text_config": {
                    "d_model": 768,
                    "encoder_layers": 6,
                    "decoder_layers": 6,
                    "encoder_attention_heads": 12,
                    "decoder_attention_heads": 12,
                    "encoder_ffn_dim": 3072,
                    "decoder_ffn_dim": 3072,
                    "max_position_embeddings": 1024,
                },
                "vision_config": {
                    "dim_embed": [128, 256, 512, 1024],
                    "num_heads": [4, 8, 16, 32],
                    "num_groups": [4, 8, 16, 32],
                    "projection_dim": 768,
                },
            },
        },
    )


NAMED: dict[str, Callable[[], dict[str, Any]]] = {"xvla-0.9b": xvla_0_9b, "xvla-preliminary": xvla_preliminary}


def resolve_config(stated: Mapping[str, Any], file: Path | str) -> dict[str, Any]:
    """A configuration as stated, over the named one that its key `from` asks for."""
    if FROM not in stated:
        return merged({}, stated)
    name = stated[FROM]
    if name not in NAMED:
        raise XvlaError("unknown configuration", file=file, field=f"model.{FROM}", found=name, allowed=sorted(NAMED))
    return merged(NAMED[name](), {key: value for key, value in stated.items() if key != FROM})


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the values of `above`, mapping by mapping; neither is changed."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        out[key] = merged(old if isinstance(old, Mapping) else {}, value) if isinstance(value, Mapping) else value
    return out
