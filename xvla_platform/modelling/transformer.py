"""The soft-prompted transformer: the policy half of X-VLA (arXiv 2510.10274, Sec. 3).

In: Florence-2's features, the noisy action chunk, proprio, flow time and the domain. Out: the clean action chunk.
Token order: [T control | L vlm | auxiliary views] + learned positions, then the domain's prompts, which carry no
position. Every block attends to everything (no mask). Notes on the numbers: LayerNorm eps 1e-5, GELU by tanh,
time frequencies with base 100 over raw t in [0, 1).

Two fields of the configuration change it. `strategy` says what a domain owns beside its action heads (`strategy.py`).
`backbone: dit` is the paper's preliminary policy (Sec. 3, App. I): the flow time enters through adaptive norms.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.domain import PROMPT_STD, DomainLinear, Resampler
from xvla_platform.modelling.strategy import STRATEGIES

TIME_BASE = 100.0


class Attention(nn.Module):
    """Multi-head self-attention with a fused qkv projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.dropout = 0.0

    def forward(self, x: Tensor, keep: int | None = None) -> Tensor:
        """[B, L, H] → [B, L, H], or the first `keep` tokens' [B, keep, H]."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(query[:, :, :keep], key, value, dropout_p=dropout)
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers around a tanh-approximated GELU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.dropout = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, H] → [B, L, H]."""
        x = F.gelu(self.fc1(x), approximate="tanh")
        if self.dropout and self.training:
            return F.dropout(self.fc2(F.dropout(x, self.dropout)), self.dropout)
        return self.fc2(x)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, keep: int | None = None) -> Tensor:
        """[B, L, H] → [B, L, H], or the first `keep` tokens' [B, keep, H]."""
        x = x[:, :keep] + self.attn(self.norm1(x), keep)
        return x + self.mlp(self.norm2(x))


class AdaptiveBlock(nn.Module):
    """A DiT's block: the condition shifts and scales both norms and gates both branches, all closed at the start."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, condition: Tensor, keep: int | None = None) -> Tensor:
        """x [B, L, H], condition [B, H] → [B, L, H], or the first `keep` tokens' [B, keep, H]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = _modulations(self.modulation, condition, 6)
        x = x[:, :keep] + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1, keep)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class SoftPromptedTransformer(nn.Module):
    """Predicts the clean action chunk from a noisy one, under a domain's prompt and action rows."""

    def __init__(self, config: XVLAConfig) -> None:
        super().__init__()
        width, features = config.hidden_size, int(config.florence["projection_dim"])
        self.hidden_size = width
        self.num_actions = config.num_actions
        self.dim_time = config.dim_time
        self.len_soft_prompts = config.len_soft_prompts
        self.adaptive = config.backbone == "dit"
        self.checkpointing = False
        strategy = STRATEGIES[config.strategy]
        block = AdaptiveBlock if self.adaptive else Block
        self.blocks = nn.ModuleList(block(width, config.num_heads, config.mlp_ratio) for _ in range(config.depth))

        def projection() -> nn.Module:
            if strategy.resamples:
                return Resampler(
                    features, width, config.num_domains, queries=config.len_queries, heads=config.num_heads
                )
            return DomainLinear(features, width, config.num_domains) if self.hetero else nn.Linear(features, width)

        self.hetero = config.use_hetero_proj or strategy.resamples
        self.vlm_proj = projection()
        self.aux_visual_proj = projection()
        self.pos_emb = nn.Parameter(torch.empty(1, config.max_len_seq, width))
        self.norm = nn.LayerNorm(width, elementwise_affine=not self.adaptive)
        self.action_encoder = DomainLinear(config.encoder_inputs, width, config.num_domains)
        self.action_decoder = DomainLinear(width, config.dim_action, config.num_domains)
        if strategy.prompts:
            self.soft_prompt_hub = nn.Embedding(config.num_domains, config.len_soft_prompts * width)
        if self.adaptive:
            self.time_mlp = nn.Sequential(nn.Linear(config.dim_time, width), nn.SiLU(), nn.Linear(width, width))
            self.modulation = nn.Linear(width, 2 * width)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.pos_emb, std=0.02)
        if self.prompted:
            nn.init.normal_(self.soft_prompt_hub.weight, std=PROMPT_STD)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                # A closed gate: at the start every adaptive block hands its input on.
                closed = name.endswith("modulation")
                (nn.init.zeros_ if closed else nn.init.xavier_uniform_)(module.weight)
                nn.init.zeros_(module.bias)

    @property
    def prompted(self) -> bool:
        """Whether domains have soft prompts."""
        return hasattr(self, "soft_prompt_hub")

    def set_dropout(self, rate: float) -> None:
        """Dropout of attention and MLP in training; attention without it runs fused on every device."""
        for block in self.blocks:
            block.attn.dropout = block.mlp.dropout = rate  # type: ignore[union-attr]

    def forward(
        self,
        *,
        domain_id: Tensor,
        context: Tensor,
        noisy_action: Tensor,
        proprio: Tensor,
        t: Tensor,
    ) -> Tensor:
        """One denoising prediction.

        Args:
            domain_id: [B], or [1] for a batch of one robot.
            context: [B, N, H] from `context`, the same for every step of a chunk.
            noisy_action: [B, T, A] after the action space's masking.
            proprio: [B, P] after the action space's masking.
            t: [B] flow time, 1 is noise.

        Returns:
            [B, T, A] clean action in model units.
        """
        batch, length, _ = noisy_action.shape
        time = time_embedding(t, self.dim_time).to(noisy_action.dtype)
        known = proprio if self.adaptive else torch.cat([proprio, time], dim=-1)
        known = known.unsqueeze(1).expand(-1, length, -1)
        x = self.action_encoder(torch.cat([noisy_action, known], dim=-1), domain_id)
        x = torch.cat([x, context], dim=1)
        if x.shape[1] > self.pos_emb.shape[1]:
            raise XvlaError(
                "too many tokens for the learned positions",
                field="max_len_seq",
                found=x.shape[1],
                allowed=f"up to {self.pos_emb.shape[1]}",
                hint="use fewer or smaller views",
            )
        x = x + self.pos_emb[:, : x.shape[1]]
        if self.prompted:
            prompts = self.soft_prompt_hub(domain_id).view(-1, self.len_soft_prompts, self.hidden_size)
            x = torch.cat([x, prompts.expand(batch, -1, -1)], dim=1)
        condition: tuple[Tensor, ...] = (F.silu(self.time_mlp(time)),) if self.adaptive else ()
        for i, block in enumerate(self.blocks):
            keep = length if i == len(self.blocks) - 1 else None  # nobody reads the other tokens after the last block
            if self.checkpointing and self.training:
                x = checkpoint(block, x, *condition, keep, use_reentrant=False)
            else:
                x = block(x, *condition, keep)
        x = self.norm(x)
        if self.adaptive:
            shift, scale = _modulations(self.modulation, condition[0], 2)
            x = x * (1 + scale) + shift
        return self.action_decoder(x, domain_id)

    def context(self, *, domain_id: Tensor, vlm_features: Tensor, aux_visual_inputs: Tensor) -> Tensor:
        """What the transformer sees of the observation, [B, N, H]; it depends on neither action nor time.

        Args:
            vlm_features: [B, L, D] language and main view.
            aux_visual_inputs: [B, (V-1)·N, D] auxiliary views.
        """
        if self.hetero:
            parts = self.vlm_proj(vlm_features, domain_id), self.aux_visual_proj(aux_visual_inputs, domain_id)
        else:
            parts = self.vlm_proj(vlm_features), self.aux_visual_proj(aux_visual_inputs)
        return torch.cat(parts, dim=1)


def _modulations(layer: nn.Module, condition: Tensor, parts: int) -> tuple[Tensor, ...]:
    """[B, H] → `parts` of [B, 1, H], one for each of a token's shifts, scales and gates."""
    return layer(condition).unsqueeze(1).chunk(parts, dim=-1)


def time_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of raw flow time: t [B] → [B, dim] as [cos | sin], in float32 whatever the model."""
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float().unsqueeze(-1) * torch.exp(-math.log(TIME_BASE) * steps / half)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(embedding, (0, dim - 2 * half))
