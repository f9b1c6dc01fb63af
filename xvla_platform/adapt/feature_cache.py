"""The features of a run's splits: found in the workspace's stores, encoded where they are missing, or left to the loop.

In: splits without features. Out: the same with them, after all ranks have filled the stores together; training frames
in as many variants as the stages with colour jitter draw from. When nothing is missing, the encoder need not even be
loaded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator

from xvla_platform.adapt.arrays import MEMORY_BUDGET
from xvla_platform.adapt.feature_filling import Ranks, fill
from xvla_platform.adapt.feature_plan import STORES, FeaturePlan, cached_stages, jittered_variants, plan_features
from xvla_platform.adapt.feature_room import make_room
from xvla_platform.adapt.features import Stored, stored_features
from xvla_platform.adapt.robot_data import Split
from xvla_platform.adapt.sources import Features, Jitter, Strength
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.flops import count_flops
from xvla_platform.modelling.precision import has_bf16
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.specs.records import EmbodimentRecord

if TYPE_CHECKING:
    from xvla_platform.adapt.setting import Setting


@dataclass(frozen=True)
class FeatureCache:
    """The stores of one run's splits, and what was decided about the training frames.

    Attributes:
        stored: A store for each split's frames as they are.
        variants: For each strength of colour jitter, the stores of the training frames' further variants.
        plan: Whether training reads any of it; validation and test always do.
    """

    setting: "Setting"
    root: Path
    stored: Mapping[str, Stored]
    variants: Mapping[Strength, tuple[Stored, ...]]
    plan: FeaturePlan

    def used(self) -> Iterator[Stored]:
        """What is read: the training frames' stores only where that pays."""
        for name, stored in self.stored.items():
            if name != "train" or self.plan.cached:
                yield stored
        for several in self.variants.values() if self.plan.cached else ():
            yield from several

    @property
    def complete(self) -> bool:
        """Whether every block that is used lies there unharmed."""
        return not any(stored.store.missing() for stored in self.used())

    def fill(self, splits: dict[str, Split], model: XVLA) -> dict[str, Split]:
        """The splits with their features; what is missing is encoded by `model` and kept."""
        setting = self.setting
        if setting.accelerator.is_main_process:
            absent = [stored.store.key.count for stored in self.used() if not stored.store.folder.is_dir()]
            removed = make_room(self.root, sum(absent) * self.plan.row_bytes, setting.feature_budget)
            if removed:
                setting.note(f"features  {len(removed)} stores that were used longest ago gave way")
        setting.accelerator.wait_for_everyone()
        out = dict(splits)
        for name, stored in self.stored.items():
            if name == "train" and not self.plan.cached:
                continue
            features = self._filled(stored, f"features {name}", model)
            variants: dict[Strength, tuple[Features, ...]] = {}
            for strength, several in self.variants.items() if name == "train" else ():
                variants[strength] = tuple(
                    self._filled(jittered, f"features {name}, variant {number}", model)
                    for number, jittered in enumerate(several, start=2)
                )
            out[name] = replace(out[name], source=replace(out[name].source, features=features, variants=variants))
        return out

    def _filled(self, stored: Stored, label: str, model: XVLA) -> Features:
        """One store's features, after all ranks have encoded what it lacks."""
        setting, ranks = self.setting, ranks_of(self.setting.accelerator)
        fill(
            stored.store,
            lambda rows: stored.encode(model, rows),
            ranks=ranks,
            progress=setting.progress(label, stored.store.key.count) if setting.progress else None,
            waiting=lambda: setting.note("features  another run is encoding these frames; waiting for it"),
        )
        stores = sum(1 for _ in self.used())
        return stored.store.load(MEMORY_BUDGET // (ranks.world * max(1, stores - len(self.stored) + 1)))


def open_cache(
    setting: "Setting",
    record: EmbodimentRecord,
    splits: dict[str, Split],
    processor: Processor,
    config: XVLAConfig,
    in_loop: frozenset[str],
) -> FeatureCache:
    """Find the stores of these splits, hold them, and decide whether the training frames are cached."""
    root, stages = setting.workspace.runs / STORES, setting.run.plan.stages
    device: torch.device = setting.accelerator.device

    def store(split: Split, jitter: Jitter | None = None, variant: int = 0) -> Stored:
        found = stored_features(
            root, record, split.samples, split.source, processor, device, jitter=jitter, variant=variant
        )
        found.store.hold()
        return found

    stored = {name: store(split) for name, split in splits.items()}
    variants = {
        strength: tuple(store(splits["train"], Jitter(strength=strength), number) for number in range(1, count + 1))
        for strength, count in jittered_variants(cached_stages(stages, in_loop)).items()
    }
    train = [stored["train"].store, *(several.store for group in variants.values() for several in group)]
    found = sum(part.key.count - sum(len(part.rows(block)) for block in part.missing()) for part in train)
    setting.accelerator.wait_for_everyone()
    kept = dict(setting.run.state.get("features", {}))
    plan = plan_features(
        stages,
        in_loop,
        count_flops(config, processor.size),
        frames=train[0].key.count,
        held_out=sum(part.store.key.count for name, part in stored.items() if name != "train"),
        found=found,
        item_bytes=2 if has_bf16(device) else 4,
        root=root,
        # A resumed run goes on as it began: the two ways round differently.
        choice=kept.get(record.spec.name, setting.features),
        budget=setting.feature_budget,
    )
    if setting.accelerator.is_main_process:
        setting.run.update(features=kept | {record.spec.name: "cache" if plan.cached else "on-the-fly"})
    return FeatureCache(setting, root, stored, variants, plan)


def ranks_of(accelerator: Accelerator) -> Ranks:
    """The launched processes, as a store sees them."""
    return Ranks(rank=accelerator.process_index, world=accelerator.num_processes, wait=accelerator.wait_for_everyone)
