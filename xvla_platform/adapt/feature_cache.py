"""The features of a run's splits: found in the workspace's stores, encoded where they are missing, or left to the loop.

In: splits without features. Out: the same with them, after all ranks have filled the stores together. When nothing
is missing, the encoder need not even be loaded.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import Accelerator

from xvla_platform.adapt.arrays import MEMORY_BUDGET
from xvla_platform.adapt.feature_plan import STORES, FeaturePlan, plan_features
from xvla_platform.adapt.feature_store import Ranks, fill, make_room
from xvla_platform.adapt.features import Stored, stored_features
from xvla_platform.adapt.robot_data import Split
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.flops import count_flops
from xvla_platform.modelling.precision import has_bf16
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.xvla import XVLA

if TYPE_CHECKING:
    from xvla_platform.adapt.engine import Setting


@dataclass(frozen=True)
class FeatureCache:
    """The stores of one run's splits, and what was decided about the training frames."""

    setting: "Setting"
    root: Path
    stored: dict[str, Stored]
    plan: FeaturePlan

    @cached_property
    def used(self) -> list[str]:
        """Splits whose features are read from a store; the training frames' only where that pays."""
        return [name for name in self.stored if name != "train" or self.plan.cached]

    @property
    def complete(self) -> bool:
        """Whether every block that is used lies there unharmed."""
        return not any(self.stored[name].store.missing() for name in self.used)

    def fill(self, splits: dict[str, Split], model: XVLA) -> dict[str, Split]:
        """The splits with their features; what is missing is encoded by `model` and kept."""
        setting, accelerator = self.setting, self.setting.accelerator
        ranks = ranks_of(accelerator)
        if accelerator.is_main_process:
            removed = make_room(self.root, self.plan.size, setting.feature_budget)
            if removed:
                setting.note(f"features  {len(removed)} stores that were used longest ago gave way")
        out = dict(splits)
        for name in self.used:
            stored = self.stored[name]
            advance = setting.progress(f"features {name}", stored.store.key.count) if setting.progress else None

            def encode(rows, stored=stored):  # type: ignore[no-untyped-def]
                return stored.encode(model, rows)

            fill(
                stored.store,
                encode,
                ranks=ranks,
                progress=advance,
                waiting=lambda: setting.note("features  another run is encoding these frames; waiting for it"),
            )
            features = stored.store.load(MEMORY_BUDGET // ranks.world)
            out[name] = replace(out[name], source=replace(out[name].source, features=features))
        return out


def open_cache(
    setting: "Setting",
    splits: dict[str, Split],
    processor: Processor,
    config: XVLAConfig,
    in_loop: frozenset[str],
) -> FeatureCache:
    """Find the stores of these splits and decide whether the training frames are cached."""
    root = setting.workspace.runs / STORES
    device = setting.accelerator.device
    stored = {
        name: stored_features(root, setting.record, split.samples, split.source, processor, device)
        for name, split in splits.items()
    }
    train = stored["train"].store
    lacking = sum(len(train.rows(block)) for block in train.missing())
    setting.accelerator.wait_for_everyone()
    plan = plan_features(
        setting.run.plan.stages,
        in_loop,
        count_flops(config, processor.size),
        frames=train.key.count,
        held_out=sum(part.store.key.count for name, part in stored.items() if name != "train"),
        found=train.key.count - lacking,
        item_bytes=2 if has_bf16(device) else 4,
        root=root,
        # A resumed run goes on as it began: the two ways round differently.
        choice=setting.run.state.get("features", setting.features),
        budget=setting.feature_budget,
    )
    if setting.accelerator.is_main_process:
        setting.run.update(features="cache" if plan.cached else "on-the-fly")
    return FeatureCache(setting, root, stored, plan)


def ranks_of(accelerator: Accelerator) -> Ranks:
    """The launched processes, as a store sees them."""
    return Ranks(rank=accelerator.process_index, world=accelerator.num_processes, wait=accelerator.wait_for_everyone)
