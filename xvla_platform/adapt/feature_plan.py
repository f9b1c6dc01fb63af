"""Cache features, or encode in the loop? Decided from arithmetic and room, and said with both costs.

A cached stage pays the encoder once a frame, or once a stored variant of it where colours are jittered; a stage on
the fly pays it once a sample drawn. With fewer draws than that, or no room for the cache, encoding on the fly is what
costs less.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

from xvla_platform.adapt.feature_room import fits
from xvla_platform.adapt.sources import Strength
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.flops import Flops
from xvla_platform.specs.plan import Stage

Choice = Literal["auto", "cache", "on-the-fly"]
DEFAULT_BUDGET_GB = 50.0
STORES = ".features"


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """What was decided for the training frames, and why.

    Attributes:
        cached: Whether training reads features from the store.
        reason: One line with both costs.
        size: Bytes that the stores of all splits take.
        row_bytes: Bytes of one frame's features.
    """

    cached: bool
    reason: str
    size: int
    row_bytes: int


def cached_stages(stages: Sequence[Stage], in_loop: frozenset[str]) -> list[Stage]:
    """Stages that can read the base's own features: what follows one that trains the encoder needs others."""
    return list(takewhile(lambda stage: stage.name not in in_loop, stages))


def jittered_variants(stages: Sequence[Stage]) -> dict[Strength, int]:
    """How many variants of a frame are stored beside the frame as it is, for each strength of jitter."""
    found: dict[Strength, int] = {}
    for stage in stages:
        if any(stage.color_jitter):
            found[stage.color_jitter] = max(found.get(stage.color_jitter, 0), stage.jitter_variants - 1)
    return found


def plan_features(
    stages: Sequence[Stage],
    in_loop: frozenset[str],
    flops: Flops,
    *,
    frames: int,
    held_out: int,
    found: int,
    item_bytes: int,
    root: Path,
    choice: Choice = "auto",
    budget: int = int(DEFAULT_BUDGET_GB * 1e9),
) -> FeaturePlan:
    """Decide for the stages that do not train the encoder.

    Args:
        in_loop: Stages that train the encoder; they draw nothing from the cache.
        frames, held_out: Training frames, and frames of validation and test, which are always cached.
        found: Features that are in the stores already, of training frames in any variant.
        item_bytes: Bytes of one number in the store.
        root: Folder of the stores. budget: Bytes they may take together.
    """
    before = cached_stages(stages, in_loop)
    draws = sum(stage.steps * stage.batch_size for stage in before)
    variants = 1 + sum(jittered_variants(before).values())
    row_bytes = flops.feature_numbers * item_bytes
    size = (frames * variants + held_out) * row_bytes
    missing = frames * variants - found
    once, every = missing * flops.encoder, draws * flops.encoder
    what = f"{frames} frames" if variants == 1 else f"{frames} frames in {variants} variants"
    costs = f"{draws} draws from {what}: encoding once {_tera(once)}, on the fly {_tera(every)}"
    if found:
        costs += f" ({found} of {frames * variants} are in the store already)"
    needed = missing * row_bytes
    room = needed <= budget and fits(root, needed)
    if choice == "cache" and not room:
        raise XvlaError(
            f"features take {size / 1e9:.1f} GB",
            file=root,
            field="--feature-budget",
            found=f"{budget / 1e9:g} GB, and {_free(root) / 1e9:.1f} GB free on the disk",
            hint="raise the budget, free some space, or leave --features auto",
        )
    cached = choice == "cache"
    if not draws:
        cached, reason = False, "the first stage trains the encoder: no cache"
    elif choice != "auto":
        reason = f"{costs}; --features {choice}"
    elif not room:
        reason = f"{costs}; the cache of {size / 1e9:.1f} GB exceeds the budget or the disk"
    else:
        cached, reason = once <= every, costs
    return FeaturePlan(cached=cached, reason=reason, size=size, row_bytes=row_bytes)


def _tera(flops: int) -> str:
    return f"{flops / 1e12:.3g} TFLOP"


def _free(root: Path) -> int:
    import shutil

    place = root
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
