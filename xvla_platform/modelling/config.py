"""The model's dimensions, read from either public form of `config.json`.

In: the official form (`model_type: xvla`, `num_actions`, …) or LeRobot's (`type: xvla`, `chunk_size`, …).
Out: one frozen `XVLAConfig`. The file as it was read is kept, so that saving a checkpoint back changes nothing
but what the platform changed. Facts: arXiv 2510.10274, App. G, and the released configuration files.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.strategy import BACKBONES, STRATEGIES, Backbone, StrategyName, slot_tables
from xvla_platform.platform.base_config import config_space, positive, proprio_width, view_count
from xvla_platform.specs.action_space import ActionSpace, action_space

ConfigForm = Literal["official", "lerobot"]


@dataclass(frozen=True, kw_only=True)
class XVLAConfig:
    """Dimensions of one X-VLA.

    Attributes:
        hidden_size, depth, num_heads, mlp_ratio: The soft-prompted transformer.
        num_domains: Rows of every per-domain table.
        len_soft_prompts: Prompt tokens of one domain.
        dim_time: Width of the sinusoidal time embedding.
        max_len_seq: Rows of the learned positions (prompts are not counted).
        use_hetero_proj: Whether the two visual projections are per-domain too.
        num_actions: Anchors in one action chunk.
        action_mode: Name of the action space.
        dim_action, dim_proprio: Widths of the model's action and proprio vectors.
        real_action_dim: Meaningful action dims (`auto` only).
        num_views: Image slots, the main view first.
        language_max_length: Tokens an instruction is padded to.
        dropout: In the policy transformer's attention and MLP (training only).
        rotation_layout: Layout of 6D rotations that this base was trained with.
        strategy: How robots differ inside the model (see `strategy.py`); the released models have soft prompts.
        backbone: Plain pre-norm blocks, or the preliminary DiT's with adaptive norms.
        len_queries: Tokens into which a resampler (`hpt_projection`) reads the main view and the other views, each.
        florence: Florence-2's configuration in Microsoft's form.
        raw: The mapping that was read.
    """

    hidden_size: int
    depth: int
    num_heads: int
    mlp_ratio: float
    num_domains: int
    len_soft_prompts: int
    dim_time: int
    max_len_seq: int
    use_hetero_proj: bool
    num_actions: int
    action_mode: str
    dim_action: int
    dim_proprio: int
    real_action_dim: int
    num_views: int
    language_max_length: int
    rotation_layout: str
    florence: dict[str, Any]
    form: ConfigForm
    strategy: StrategyName = "soft_prompt"
    backbone: Backbone = "encoder"
    len_queries: int = 16
    dropout: float = 0.1
    raw: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read `folder/config.json`."""
        path = folder / "config.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise XvlaError("no config.json, so this is not a model folder", file=folder) from None
        except (OSError, ValueError) as error:
            raise XvlaError(f"cannot be read: {error}", file=path) from None
        return cls.from_dict(data, file=path, folder=folder)

    @classmethod
    def from_dict(cls, data: dict[str, Any], file: Path | str = "config.json", folder: Path | None = None) -> Self:
        """Read either public form; a missing or impossible value is an `XvlaError`.

        Args:
            folder: Where the preprocessor's configuration lies, which may state the number of views.
        """
        if not isinstance(data, dict):
            raise XvlaError("is not the configuration of an X-VLA model", file=file)
        try:
            return cls._read(data, file, folder)
        except (TypeError, ValueError) as error:
            raise XvlaError(f"holds a value of the wrong kind: {error}", file=file) from None

    @classmethod
    def _read(cls, data: dict[str, Any], file: Path | str, folder: Path | None) -> Self:
        lerobot = data.get("type") == "xvla"
        if not lerobot and data.get("model_type") != "xvla":
            raise XvlaError(
                "is not an X-VLA configuration",
                file=file,
                field="model_type",
                found=data.get("model_type", data.get("type", "missing")),
                allowed="xvla",
            )

        def get(key: str, *, default: Any = None) -> Any:
            value = data.get(key, default)
            if value is None:
                raise XvlaError("required field is missing", file=file, field=key)
            return value

        def count(key: str) -> int:
            get(key)
            return positive(data, (key,), 1, file)

        get("action_mode")
        space = config_space(data, file)
        config = cls(
            hidden_size=count("hidden_size"),
            depth=count("depth"),
            num_heads=count("num_heads"),
            mlp_ratio=float(get("mlp_ratio")),
            num_domains=count("num_domains"),
            len_soft_prompts=int(get("len_soft_prompts")),
            dim_time=count("dim_time"),
            max_len_seq=count("max_len_seq"),
            use_hetero_proj=bool(data.get("use_hetero_proj", False)),
            num_actions=count("chunk_size" if lerobot else "num_actions"),
            action_mode=space.name,
            dim_action=space.dim,
            dim_proprio=proprio_width(data, space, file),
            real_action_dim=space.real_dim,
            num_views=view_count(data, folder, file),
            language_max_length=int(data.get("tokenizer_max_length") or data.get("language_max_length") or 50),
            rotation_layout=str(data.get("rotation_layout", "rot6d_interleaved")),
            florence=dict(get("florence_config")),
            form="lerobot" if lerobot else "official",
            strategy=_one_of(data, "strategy", tuple(STRATEGIES), file),
            backbone=_one_of(data, "backbone", BACKBONES, file),
            len_queries=positive(data, ("len_queries",), 16, file),
            raw=data,
        )
        if config.use_hetero_proj and config.strategy == "hpt_projection":
            raise XvlaError("a resampler takes the place of per-domain projections", file=file, field="use_hetero_proj")
        if config.hidden_size % config.num_heads:
            raise XvlaError(
                "hidden_size must be a multiple of num_heads",
                file=file,
                field="hidden_size",
                found=f"{config.hidden_size} with {config.num_heads} heads",
            )
        return config

    @property
    def space(self) -> ActionSpace:
        """The action space of this base."""
        return action_space(self.action_mode, dim=self.dim_action, real_dim=self.real_action_dim)

    @property
    def encoder_inputs(self) -> int:
        """Numbers of one anchor that the action encoder reads; a DiT gets the time through its norms instead."""
        return self.dim_action + self.dim_proprio + (self.dim_time if self.backbone == "encoder" else 0)

    @property
    def slot_tables(self) -> tuple[str, ...]:
        """Module names of the per-domain tables."""
        return slot_tables(self.strategy, hetero=self.use_hetero_proj)

    @property
    def slot_numbers(self) -> int:
        """How many numbers one domain owns in its tables."""
        width, features = self.hidden_size, int(self.florence["projection_dim"])
        numbers = (self.encoder_inputs + 1) * width + (width + 1) * self.dim_action
        strategy = STRATEGIES[self.strategy]
        if strategy.prompts:
            numbers += self.len_soft_prompts * width
        if strategy.resamples:
            numbers += 2 * (self.len_queries * width + (features + 1) * 2 * width)
        elif self.use_hetero_proj:
            numbers += 2 * (features + 1) * width
        return numbers

    def with_domains(self, num_domains: int) -> Self:
        """The same dimensions over tables of `num_domains` rows."""
        return replace(self, num_domains=num_domains, raw={**self.raw, "num_domains": num_domains})


def _one_of(data: dict[str, Any], key: str, allowed: tuple[Any, ...], file: Path | str) -> Any:
    """A key with a few values, of which the first is the default."""
    value = data.get(key, allowed[0])
    if value not in allowed:
        raise XvlaError("unknown value", file=file, field=key, found=value, allowed=list(allowed))
    return value


def xvla_0_9b() -> dict[str, Any]:
    """The released 0.9B configuration (X-VLA-Pt), in the official form."""
    return {
        "model_type": "xvla",
        "architectures": ["XVLA"],
        "hidden_size": 1024,
        "depth": 24,
        "num_heads": 16,
        "mlp_ratio": 4.0,
        "num_domains": 30,
        "len_soft_prompts": 32,
        "dim_time": 32,
        "max_len_seq": 512,
        "use_hetero_proj": False,
        "num_actions": 30,
        "action_mode": "ee6d",
        "use_proprio": True,
        "florence_config": {
            "model_type": "florence2",
            "projection_dim": 1024,
            "vocab_size": 51289,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
            "is_encoder_decoder": True,
            "text_config": {
                "model_type": "florence2_language",
                "vocab_size": 51289,
                "d_model": 1024,
                "encoder_layers": 12,
                "decoder_layers": 12,
                "encoder_attention_heads": 16,
                "decoder_attention_heads": 16,
                "encoder_ffn_dim": 4096,
                "decoder_ffn_dim": 4096,
                "max_position_embeddings": 4096,
                "dropout": 0.1,
                "attention_dropout": 0.1,
                "activation_dropout": 0.1,
                "activation_function": "gelu",
                "scale_embedding": False,
                "pad_token_id": 1,
                "bos_token_id": 0,
                "eos_token_id": 2,
            },
            "vision_config": {
                "model_type": "davit",
                "drop_path_rate": 0.1,
                "patch_size": [7, 3, 3, 3],
                "patch_stride": [4, 2, 2, 2],
                "patch_padding": [3, 1, 1, 1],
                "patch_prenorm": [False, True, True, True],
                "dim_embed": [256, 512, 1024, 2048],
                "num_heads": [8, 16, 32, 64],
                "num_groups": [8, 16, 32, 64],
                "depths": [1, 1, 9, 1],
                "window_size": 12,
                "projection_dim": 1024,
                "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 100},
                "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 50},
                "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
            },
        },
    }
