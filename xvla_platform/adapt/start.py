"""What is refused before anything is decoded: a plan, a slot's start, a group of robots that could only fail later."""

from collections.abc import Sequence

import torch

from xvla_platform.adapt.initialise import check_initialisation
from xvla_platform.adapt.robot_data import some_episodes
from xvla_platform.adapt.setting import start_of
from xvla_platform.data.reader import DatasetReader
from xvla_platform.data.samples import SPLIT_SEED, split_episodes
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.platform.bases import ResolvedBase
from xvla_platform.specs.plan import AdaptationPlan
from xvla_platform.specs.records import EmbodimentRecord


def check_start(
    record: EmbodimentRecord, base: ResolvedBase, plan: AdaptationPlan, reader: DatasetReader, processes: int = 1
) -> None:
    """Refuse what would fail only after everything was decoded: the plan, the slot's start, a long instruction."""
    for stage in plan.stages:
        if stage.batch_size % processes:
            raise XvlaError(
                "the processes cannot share a batch equally",
                field=f"stage {stage.name}.batch_size",
                found=stage.batch_size,
                allowed=f"a multiple of {processes}",
            )
    training, _, _ = split_episodes(len(reader.episodes), record.spec.dataset.held_out, SPLIT_SEED)
    some_episodes(training, plan.demonstrations)
    check_initialisation(start_of(plan, record), base)
    processor = Processor.from_folder(base.folder, XVLAConfig.from_folder(base.folder)).for_robot(record.spec)
    for instruction in sorted({episode.instruction for episode in reader.episodes}):
        processor.tokens(instruction)


def one_group(records: Sequence[EmbodimentRecord]) -> list[EmbodimentRecord]:
    """The records of a run, by name, with tables that hold all their slots; robots of different bases are refused."""
    records = sorted(records, key=lambda record: record.spec.name)
    first, rows = records[0], max(record.slot.num_domains for record in records)
    for record in records[1:]:
        if record.base.fingerprint != first.base.fingerprint:
            raise XvlaError(
                "robots that are adapted together share one base",
                field="--embodiment",
                found=f"{first.spec.name} on {first.base.id}, {record.spec.name} on {record.base.id}",
                hint=f"register {record.spec.name} on {first.base.id}, or adapt them one by one",
            )
    return [
        record.model_copy(update={"slot": record.slot.model_copy(update={"num_domains": rows})}) for record in records
    ]


def stages_in_loop(plan: AdaptationPlan, base: ResolvedBase) -> frozenset[str]:
    """Names of the stages that train the encoder, as the base's own modules decide."""
    modules: list[str] = []
    if any(stage.lora is not None for stage in plan.stages):
        with torch.device("meta"):
            modules = [name for name, _ in XVLA(XVLAConfig.from_folder(base.folder)).named_modules()]
    return frozenset(stage.name for stage in plan.stages if stage.trains_vlm(modules))
