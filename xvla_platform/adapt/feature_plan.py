"""Cache features, or encode in the loop? Decided from arithmetic and room, and said with both costs.

A cached stage pays the encoder once a frame, a stage on the fly once a sample drawn. With fewer draws than frames, or
no room for the cache, encoding on the fly is what costs less.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

from xvla_platform.adapt.feature_store import fits
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
        size: Bytes that the store of all splits takes.
    """

    cached: bool
    reason: str
    size: int


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
        found: Training frames whose features are in the store already.
        item_bytes: Bytes of one number in the store.
        root: Folder of the stores. budget: Bytes they may take together.
    """
    # What follows a stage that trains the encoder needs other features than the base's.
    before = list(takewhile(lambda stage: stage.name not in in_loop, stages))
    draws = sum(stage.steps * stage.batch_size for stage in before)
    size = (frames + held_out) * flops.feature_numbers * item_bytes
    missing = frames - found
    once, every = missing * flops.encoder, draws * flops.encoder
    costs = f"{draws} draws from {frames} frames: encoding once {_tera(once)}, on the fly {_tera(every)}"
    if found:
        costs += f" ({found} frames are in the store already)"
    needed = missing * flops.feature_numbers * item_bytes
    room = needed <= budget and fits(root, needed)
    if choice == "cache" and not room:
        raise XvlaError(
            f"features take {size / 1e9:.1f} GB",
            file=root,
            field="--feature-budget",
            found=f"{budget / 1e9:g} GB, and {_free(root) / 1e9:.1f} GB free on the disk",
            hint="raise the budget, free some space, or leave --features auto",
        )
    if not draws:
        return FeaturePlan(cached=False, reason="the first stage trains the encoder: no cache", size=size)
    if choice != "auto":
        return FeaturePlan(cached=choice == "cache", reason=f"{costs}; --features {choice}", size=size)
    if not room:
        return FeaturePlan(
            cached=False, reason=f"{costs}; the cache of {size / 1e9:.1f} GB exceeds the budget or the disk", size=size
        )
    return FeaturePlan(cached=once <= every, reason=costs, size=size)


def _tera(flops: int) -> str:
    return f"{flops / 1e12:.3g} TFLOP"


def _free(root: Path) -> int:
    import shutil

    place = root
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
