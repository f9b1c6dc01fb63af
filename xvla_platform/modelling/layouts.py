"""The three public checkpoint layouts, as pure key maps to the model's own names (native Florence-2, no prefix).

`official`          no prefix, Microsoft's Florence names  (2toINF/X-VLA-*)
`lerobot_vendored`  `model.` + Microsoft's names           (first LeRobot checkpoints)
`lerobot`           `model.` + transformers' names         (current LeRobot)

The only tensor that changes is the image projection: a bare (in, out) parameter there, a linear weight here.
The text embedding is tied; a file may hold either alias or both.
"""

import re
from collections.abc import Iterable
from typing import Literal

from torch import Tensor

Layout = Literal["official", "lerobot_vendored", "lerobot"]
LAYOUTS: tuple[Layout, ...] = ("official", "lerobot_vendored", "lerobot")

SHARED = "vlm.language_model.shared.weight"
EMBED = "vlm.language_model.encoder.embed_tokens.weight"
PROJECTION = "vlm.multi_modal_projector.image_projection.weight"
LOGITS_BIAS = "vlm.language_model.final_logits_bias"  # Microsoft's only; zero, and unused without a decoder

# (Microsoft's pattern, replacement, native pattern, replacement), first match wins in either direction.
_BLOCK = r"(vlm\.vision_tower\.blocks\.\d+\.\d+\.(?:spatial|channel)_block\.)"
_RULES: tuple[tuple[str, str, str, str], ...] = (
    (
        r"(vlm\.vision_tower\.convs\.\d+\.)proj\.",
        r"\1conv.",
        r"(vlm\.vision_tower\.convs\.\d+\.)conv\.",
        r"\1proj.",
    ),
    (_BLOCK + r"(conv[12])\.fn\.dw\.", r"\1\2.", _BLOCK + r"(conv[12])\.(?!fn)", r"\1\2.fn.dw."),
    (
        _BLOCK + r"window_attn\.norm\.",
        r"\1norm1.",
        _BLOCK.replace("spatial|channel", "spatial") + r"norm1\.",
        r"\1window_attn.norm.",
    ),
    (
        _BLOCK + r"channel_attn\.norm\.",
        r"\1norm1.",
        _BLOCK.replace("spatial|channel", "channel") + r"norm1\.",
        r"\1channel_attn.norm.",
    ),
    (
        _BLOCK + r"(window_attn|channel_attn)\.fn\.",
        r"\1\2.",
        _BLOCK + r"(window_attn|channel_attn)\.",
        r"\1\2.fn.",
    ),
    (_BLOCK + r"ffn\.norm\.", r"\1norm2.", _BLOCK + r"norm2\.", r"\1ffn.norm."),
    (_BLOCK + r"ffn\.fn\.net\.", r"\1ffn.", _BLOCK + r"ffn\.", r"\1ffn.fn.net."),
    (r"vlm\.image_projection$", PROJECTION, re.escape(PROJECTION) + "$", "vlm.image_projection"),
    (
        r"vlm\.image_proj_norm\.",
        "vlm.multi_modal_projector.image_proj_norm.",
        r"vlm\.multi_modal_projector\.image_proj_norm\.",
        "vlm.image_proj_norm.",
    ),
    (
        r"vlm\.image_pos_embed\.",
        "vlm.multi_modal_projector.image_position_embed.",
        r"vlm\.multi_modal_projector\.image_position_embed\.",
        "vlm.image_pos_embed.",
    ),
    (
        r"vlm\.visual_temporal_embed\.",
        "vlm.multi_modal_projector.visual_temporal_embed.",
        r"vlm\.multi_modal_projector\.visual_temporal_embed\.",
        "vlm.visual_temporal_embed.",
    ),
    (
        r"vlm\.language_model\.model\.",
        "vlm.language_model.",
        r"vlm\.language_model\.(?!final_logits_bias)",
        "vlm.language_model.model.",
    ),
)


def detect_layout(keys: Iterable[str]) -> Layout | None:
    """Which layout a checkpoint's keys are in, or None when they are no X-VLA's."""
    names = set(keys)
    prefixed = any(name.startswith("model.transformer.") for name in names)
    if not prefixed and not any(name.startswith("transformer.") for name in names):
        return None
    prefix = "model." if prefixed else ""
    vendored = f"{prefix}vlm.image_projection" in names or any(
        name.startswith(f"{prefix}vlm.language_model.model.") for name in names
    )
    if prefixed:
        return "lerobot_vendored" if vendored else "lerobot"
    alone = not any(name.startswith("vlm.") for name in names)  # the policy transformer without its encoder
    return "official" if vendored or alone else None


def to_native(key: str, layout: Layout) -> str | None:
    """A file's key → the model's name; None for what the model has no use for."""
    if layout != "official":
        if not key.startswith("model."):
            return key  # not ours: reported as unexpected under its own name
        key = key.removeprefix("model.")
    if layout == "lerobot":
        return key
    if key == LOGITS_BIAS:
        return None
    for pattern, replacement, _, _ in _RULES:
        new, hits = re.subn("^" + pattern, replacement, key)
        if hits:
            return new
    return key


def from_native(name: str, layout: Layout) -> str:
    """The model's name → the key that a file of this layout uses."""
    if layout != "lerobot":
        for _, _, pattern, replacement in _RULES:
            new, hits = re.subn("^" + pattern, replacement, name)
            if hits:
                name = new
                break
    return name if layout == "official" else f"model.{name}"


def convert_tensor(name: str, tensor: Tensor, layout: Layout) -> Tensor:
    """Between a file's tensor and the model's (the map is its own inverse)."""
    if name == PROJECTION and layout != "lerobot":
        return tensor.t().contiguous()
    return tensor
