"""The learning rate of every group at every step: linear warm-up from zero, then cosine to a floor."""

import math

from xvla_platform.specs.plan import Stage


def scale_at(step: int, stage: Stage) -> float:
    """Share of the peak rate at `step` (0-based). The ramp starts above zero, so that no step is wasted."""
    if step < stage.warmup_steps:
        return (step + 1) / stage.warmup_steps
    span = max(1, stage.steps - stage.warmup_steps)
    progress = min(1.0, (step - stage.warmup_steps) / span)
    return stage.min_lr_ratio + (1 - stage.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
