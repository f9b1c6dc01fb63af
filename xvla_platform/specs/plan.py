"""What an adaptation does: stages, each with the parameter groups it trains and their rates.

A group that `Stage.lr` does not name is frozen: `requires_grad=False` and not in the optimizer.
"""

import re
from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from xvla_platform.specs.base import SCHEMA_VERSION, Seed, StrictModel
from xvla_platform.specs.embodiment import PromptSpec

Group = Literal["soft_prompts", "action_heads", "lora", "transformer_core", "vlm"]
Then = Literal["lora", "full", "none"]


class LoraSpec(StrictModel):
    """Low-rank adapters on named modules (peft).

    `rslora` scales by alpha / sqrt(rank) instead of alpha / rank; `dora` trains magnitude and direction apart.
    `targets` are regular expressions matched against full module names of the official layout
    (`transformer.blocks.0.attn.qkv`).
    """

    rank: int = Field(default=8, ge=1, le=512)
    alpha: int = Field(default=16, ge=1)
    rslora: bool = False
    dora: bool = False
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    targets: str = r"transformer\.blocks\.\d+\.(attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)"

    @field_validator("targets")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from None
        return value


class Stage(StrictModel):
    """One stretch of the loop with fixed groups.

    Attributes:
        steps: Optimizer steps.
        batch_size: Samples a step, over all processes.
        accumulate: Micro-batches that each process's share of a step is cut into, to save memory.
        checkpointing: Compute activations again in the backward pass instead of keeping them, to save memory.
        compile: Compile the blocks (`torch.compile`): the first step takes minutes. `xvla bench steps` says whether the
            others make up for it on your machine.
        ema: Decay of an exponential moving average of the trained weights, which is then what is measured and kept.
        lr: Peak learning rate of each trained group.
        optimizer: `adamw`, or `adamw8bit` with moments of one byte (extra `eightbit`).
        warmup_steps: Linear ramp from 0 to the peak rate.
        min_lr_ratio: Floor of the cosine, as a share of the peak.
        weight_decay: AdamW decay; never applied to the slot's rows.
        grad_clip: Largest global gradient norm.
        eval_every: Steps between measurements on the validation episodes.
        keep: Which weights the stage leaves: `best`, those of the lowest validation error, or `last`. The error of
            chunks on a few validation episodes says little about success on the robot (arXiv 2108.03298).
        dropout: Rate in the policy transformer. 0 keeps attention on the fused path (the public recipe has 0.1).
        color_jitter: (brightness, contrast, saturation) strengths for training images.
        jitter_variants: With cached features, how many variants of each frame are stored and drawn from: the frame as
            it is, and jittered ones. Stages of one `color_jitter` share the largest number.
    """

    name: str = Field(min_length=1, pattern=r"^[a-z][a-z0-9_]*$")
    steps: int = Field(ge=1)
    batch_size: int = Field(default=16, ge=1)
    accumulate: int = Field(default=1, ge=1)
    checkpointing: bool = False
    compile: bool = False
    ema: float | None = Field(default=None, gt=0.0, lt=1.0)
    lr: dict[Group, float]
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    warmup_steps: int = Field(default=100, ge=0)
    min_lr_ratio: float = Field(default=0.1, ge=0.0, le=1.0)
    weight_decay: float = Field(default=0.01, ge=0.0)
    grad_clip: float = Field(default=1.0, gt=0.0)
    eval_every: int = Field(default=200, ge=1)
    keep: Literal["best", "last"] = "best"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    color_jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)
    jitter_variants: int = Field(default=4, ge=2, le=64)
    lora: LoraSpec | None = None

    @model_validator(mode="after")
    def _rules(self) -> Self:
        bad = [group for group, rate in self.lr.items() if not 0.0 < rate < 1.0]
        if bad:
            raise ValueError(f"stage {self.name}: learning rate of {bad[0]} must lie between 0 and 1")
        if not self.lr:
            raise ValueError(f"stage {self.name}: `lr` names no group, so nothing would train")
        if (self.lora is not None) != ("lora" in self.lr):
            raise ValueError(f"stage {self.name}: `lora` and a rate for group lora go together")
        if self.warmup_steps > self.steps:
            raise ValueError(f"stage {self.name}: warm-up {self.warmup_steps} is longer than {self.steps} steps")
        return self

    def trains_vlm(self, modules: Iterable[str]) -> bool:
        """Whether the encoder changes, so that its features cannot be cached.

        Args:
            modules: Names of the model's modules, which decide what the LoRA targets mean.
        """
        if "vlm" in self.lr:
            return True
        if self.lora is None:
            return False
        pattern = re.compile(self.lora.targets)
        return any(name.startswith("vlm.") and pattern.fullmatch(name) is not None for name in modules)


class AdaptationPlan(StrictModel):
    """The stages of one adaptation, in order.

    Attributes:
        start: How the slot starts; absent: as the robot's plugin says.
        demonstrations: Episodes of the training split to learn from; absent: all. A smaller number takes some of
            those that a larger one takes; validation and test episodes stay the same.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(min_length=1)
    seed: Seed = 0
    start: PromptSpec | None = None
    demonstrations: int | None = Field(default=None, ge=1)
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _order(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stage names must be unique, found {', '.join(names)}")
        if sum(stage.lora is not None for stage in self.stages) > 1:
            raise ValueError("at most one stage can add LoRA")
        if any(s.lora for s in self.stages) and any({"transformer_core", "vlm"} & set(s.lr) for s in self.stages):
            raise ValueError("LoRA and full tuning are alternatives: one plan holds one of them")
        return self
