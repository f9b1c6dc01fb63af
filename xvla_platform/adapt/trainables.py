"""Which parameters a stage trains, and in which group. Everything else is frozen for real.

A group that the stage's `lr` does not name gets `requires_grad=False` and never meets the optimizer: no gradient,
no moments, no memory (the public recipe freezes by a learning rate of 0 and pays for all of it).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.strategy import is_projection_table, is_table
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.specs.plan import Group, Stage


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """One trained parameter, its group and whether weight decay applies."""

    name: str
    parameter: nn.Parameter
    group: Group
    decay: bool


def group_of(name: str) -> Group:
    """The group of a parameter, by its name in the model."""
    if ".lora_" in name:
        return "lora"
    if name.startswith("vlm."):
        return "vlm"
    if "soft_prompt_hub" in name:
        return "soft_prompts"
    if ".action_encoder." in name or ".action_decoder." in name or is_projection_table(name):
        return "action_heads"
    return "transformer_core"


def select_trainables(model: XVLA, stage: Stage) -> list[Trainable]:
    """Freeze everything, then open what the stage names; in name order, so that it never varies.

    With an open slot its rows stand for the tables: the tables themselves stay frozen.
    """
    rows = {name for name, _ in model.named_parameters() if name.endswith(".row")}
    chosen: list[Trainable] = []
    for name, parameter in sorted(model.named_parameters()):
        group = group_of(name)
        closed_table = bool(rows) and is_table(name) and name not in rows
        trained = group in stage.lr and not closed_table and model.reaches(name)
        parameter.requires_grad_(trained)
        if trained:
            decay = stage.weight_decay > 0 and not is_table(name) and parameter.ndim > 1
            chosen.append(Trainable(name=name, parameter=parameter, group=group, decay=decay))
    return chosen


def eight_bit() -> Any:
    """bitsandbytes, which may be absent."""
    try:
        import bitsandbytes
    except ImportError:
        raise XvlaError(
            "moments of one byte need bitsandbytes",
            field="optimizer",
            found="adamw8bit",
            allowed="adamw",
            hint="install it with `pip install 'xvla-platform[eightbit]'`",
        ) from None
    return bitsandbytes


def build_optimizer(trainables: list[Trainable], stage: Stage) -> torch.optim.Optimizer:
    """AdamW 0.9/0.95 with one parameter group per (group, decay); `lr` is set at every step by the loop."""
    buckets: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for trainable in trainables:
        buckets.setdefault((trainable.group, trainable.decay), []).append(trainable.parameter)
    groups = [
        {
            "params": parameters,
            "group": group,
            "peak": stage.lr[group],  # type: ignore[index]
            "lr": 0.0,
            "weight_decay": stage.weight_decay if decay else 0.0,
        }
        for (group, decay), parameters in buckets.items()
    ]
    if stage.optimizer == "adamw8bit":
        # Small tensors, the slot's rows among them, keep moments of full width.
        optimizer: torch.optim.Optimizer = eight_bit().optim.AdamW8bit(groups, betas=(0.9, 0.95))
        return optimizer
    fused = all(t.parameter.device.type in ("cuda", "cpu") for t in trainables)
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=fused or None)


def counts(trainables: list[Trainable]) -> dict[str, int]:
    """Trained numbers by group."""
    out: dict[str, int] = {}
    for trainable in trainables:
        out[trainable.group] = out.get(trainable.group, 0) + trainable.parameter.numel()
    return out
