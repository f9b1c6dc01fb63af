"""Florence-2 as X-VLA uses it: transformers' native model without its decoder.

In: images and instruction tokens. Out: `vlm_features` (main view and language, through the text encoder) and
`aux_visual_inputs` (the other views, raw). The domain never enters here, so with frozen weights the features of
a frame are constants: that is what the feature cache rests on.
"""

from typing import Any

import torch
from torch import Tensor, nn

from xvla_platform.errors import XvlaError


def florence_config(microsoft: dict[str, Any]) -> Any:
    """Microsoft's configuration form → transformers' `Florence2Config`."""
    from transformers import Florence2Config

    vision = dict(microsoft["vision_config"])
    source = vision.pop("image_feature_source", ["spatial_avg_pool", "temporal_avg_pool"])
    if list(source) != ["spatial_avg_pool", "temporal_avg_pool"]:
        raise XvlaError(
            "unsupported image features",
            field="florence_config.vision_config.image_feature_source",
            found=source,
            allowed="[spatial_avg_pool, temporal_avg_pool]",
        )
    for dead in ("enable_checkpoint", "model_type", "transformers_version"):
        vision.pop(dead, None)
    vision["embed_dim"] = vision.pop("dim_embed", vision.get("embed_dim"))
    position = vision.pop("image_pos_embed", None) or {}
    temporal = vision.pop("visual_temporal_embedding", None) or {}
    vision.setdefault("max_position_embeddings", position.get("max_pos_embeddings", 50))
    vision.setdefault("max_temporal_embeddings", temporal.get("max_temporal_embeddings", 100))
    text = {k: v for k, v in microsoft["text_config"].items() if k not in ("transformers_version", "torch_dtype")}
    # The decoder is deleted below; one layer of it is enough to build.
    text |= {"model_type": "bart", "decoder_layers": 1, "decoder_ffn_dim": 8}
    return Florence2Config(
        vision_config=vision, text_config=text, image_token_id=int(microsoft.get("vocab_size", 51289)) - 1
    )


def build_florence(microsoft: dict[str, Any]) -> nn.Module:
    """`Florence2Model` without decoder, freshly initialised (on the meta device where that is current)."""
    from transformers import Florence2Model

    model = Florence2Model(florence_config(microsoft))
    del model.language_model.decoder
    return model


def image_features(vlm: nn.Module, pixels: Tensor) -> Tensor:
    """[n, 3, H, W] normalised images → [n, N, D]: one pooled token, then the grid row by row."""
    return vlm.multi_modal_projector(vlm.vision_tower(pixels).last_hidden_state)  # type: ignore[operator]


def encode(vlm: nn.Module, *, input_ids: Tensor, pixel_values: Tensor, image_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Florence-2's part of one forward pass.

    Args:
        input_ids: [B, L] instruction tokens; padding is attended to, as published.
        pixel_values: [B, V, 3, H, W] normalised; view 0 is the main view.
        image_mask: [B, V] which views exist; missing ones become exact zeros.

    Returns:
        vlm_features [B, N + L, D] and aux_visual_inputs [B, (V-1)·N, D].
    """
    return with_words(vlm, view_features(vlm, pixel_values, image_mask), input_ids)


def view_features(vlm: nn.Module, pixel_values: Tensor, image_mask: Tensor) -> Tensor:
    """Images [B, V, 3, H, W] → [B, V, N, D], before any word; views that the mask [B, V] leaves out are zeros."""
    batch, views = image_mask.shape
    if not bool(image_mask.any()):
        raise XvlaError("no view of the batch holds an image", field="image_mask")
    valid = image_mask.flatten()
    found = image_features(vlm, pixel_values.flatten(0, 1)[valid])
    features = found.new_zeros(batch * views, *found.shape[1:])
    features[valid] = found
    return features.view(batch, views, *found.shape[1:])


def with_words(vlm: nn.Module, features: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """`view_features` and instruction tokens [B, L] → what `encode` returns."""
    words = vlm.language_model.shared(input_ids)  # type: ignore[operator, union-attr]
    merged = torch.cat([features[:, 0], words], dim=1)
    encoder = vlm.language_model.encoder  # type: ignore[union-attr]
    positions = int(encoder.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]
    if merged.shape[1] > positions:
        raise XvlaError(
            "too many image and instruction tokens for the encoder's learned positions",
            field="florence_config.text_config.max_position_embeddings",
            found=positions,
            allowed=f"{merged.shape[1]} or more",
            hint="or shorten language_max_length",
        )
    vlm_features = encoder(inputs_embeds=merged).last_hidden_state  # type: ignore[operator]
    return vlm_features, features[:, 1:].flatten(1, 2)
