"""Facts of the model: action spaces, names in the public layouts, stages of the built-in plans."""

from docs_from_code.common import table


def action_spaces() -> str:
    """The published action spaces, field by field."""
    from xvla_platform.specs.action_space import SPACES, action_space

    rows = []
    for name in SPACES:
        for field in action_space(name).fields:
            dims = f"{field.start}-{field.stop - 1}" if field.size > 1 else f"{field.start}"
            hidden = "yes" if field.hidden else "no"
            loss = f"{field.weight:g} · {field.loss}"
            rows.append((f"`{name}`", field.arm, field.kind, dims, loss, f"`{field.loss_name}`", hidden))
    return table(("space", "arm", "kind", "dims", "weight · loss", "loss name", "hidden from input"), rows)


def layouts() -> str:
    """One name of every kind in each of the three public layouts."""
    from xvla_platform.modelling.layouts import from_native, to_native

    block = "vlm.vision_tower.blocks.0.0"
    names = [
        "transformer.soft_prompt_hub.weight",
        "vlm.vision_tower.convs.0.conv.weight",
        "vlm.vision_tower.convs.0.norm.weight",
        f"{block}.spatial_block.conv1.weight",
        f"{block}.spatial_block.norm1.weight",
        f"{block}.spatial_block.window_attn.qkv.weight",
        f"{block}.channel_block.norm1.weight",
        f"{block}.channel_block.channel_attn.qkv.weight",
        f"{block}.channel_block.norm2.weight",
        f"{block}.channel_block.ffn.fc1.weight",
        "vlm.multi_modal_projector.image_projection.weight",
        "vlm.multi_modal_projector.image_proj_norm.weight",
        "vlm.multi_modal_projector.image_position_embed.row_embeddings.weight",
        "vlm.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed",
        "vlm.language_model.encoder.layers.0.fc1.weight",
    ]
    rows = []
    for name in names:
        official = from_native(name, "official")
        if to_native(official, "official") != name:
            raise SystemExit(f"{name} does not survive the way to the official layout and back")
        rows.append((f"`{name}`", f"`{official}`"))
    native = "this project; with `model.` before it, `lerobot`"
    return table((native, "`official`; with `model.` before it, `lerobot_vendored`"), rows)


def plans() -> str:
    """The stages of the built-in plans."""
    from xvla_platform.adapt.recipe import FULL, LORA, PROMPT

    rows = []
    for stage in (PROMPT, LORA, FULL):
        rates = ", ".join(f"`{group}` {rate:g}" for group, rate in stage.lr.items())
        rows.append((f"`{stage.name}`", stage.steps, stage.batch_size, rates, stage.warmup_steps, stage.eval_every))
    return table(("stage", "steps", "batch", "peak rates", "warm-up", "measured every"), rows)
