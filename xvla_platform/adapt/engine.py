"""One adaptation from plan to registry.

load base → read demonstrations → encode each frame once → place and initialise the slot → per stage: freeze,
train, keep the best by validation error, prove that nothing else moved, measure on the test episodes → write the
artifact → reload it → same chunk for the same seed, or fail → register.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from xvla_platform.adapt.artifact import Finished, register
from xvla_platform.adapt.feature_cache import open_cache
from xvla_platform.adapt.feature_plan import DEFAULT_BUDGET_GB, Choice
from xvla_platform.adapt.features import encode_source
from xvla_platform.adapt.frozen import assert_unmoved, frozen_digest
from xvla_platform.adapt.initialise import check_initialisation, initialise_slot, probe_of
from xvla_platform.adapt.launch import on_first
from xvla_platform.adapt.loop import Job, Observer, run_stage
from xvla_platform.adapt.measuring import EVAL_SEED, Loaded, baselines, predict, validator
from xvla_platform.adapt.robot_data import ProgressFactory, Split, bare_split, split_samples, with_frames
from xvla_platform.adapt.run import Run, read_lines
from xvla_platform.adapt.snapshot import Snapshot, load_newest
from xvla_platform.adapt.trainables import select_trainables
from xvla_platform.data.binding import Binding
from xvla_platform.data.reader import DatasetReader
from xvla_platform.errors import XvlaError
from xvla_platform.evaluation.open_loop import field_errors
from xvla_platform.modelling.checkpoint import load_model
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.slot import close_slot, open_slot
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.platform.artifact import MANIFEST_NAME
from xvla_platform.platform.bases import ResolvedBase
from xvla_platform.platform.embodiments import base_space
from xvla_platform.platform.files import sha256_file
from xvla_platform.platform.registry import Adaptation, list_adaptations
from xvla_platform.platform.workspace import Workspace
from xvla_platform.policy.adapter import inject_lora
from xvla_platform.specs.plan import JITTER, AdaptationPlan, Stage
from xvla_platform.specs.records import EmbodimentRecord

UNADAPTED = "base, not adapted"
RUNGS = {"prompt": "prompt only", "lora": "prompt, then LoRA", "full": "prompt, then full tuning"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything an adaptation stands on, opened.

    Attributes:
        features, feature_budget: Whether to cache features, and the bytes that all stores may take together.
        note: Receives one line per inherited or measured choice.
        started: Called when all is loaded and the first stage is about to begin.
    """

    workspace: Workspace
    record: EmbodimentRecord
    base: ResolvedBase
    reader: DatasetReader
    statistics: Mapping[str, Any]
    run: Run
    accelerator: Accelerator
    observer: Observer
    progress: ProgressFactory | None = None
    features: Choice = "auto"
    feature_budget: int = int(DEFAULT_BUDGET_GB * 1e9)
    note: Callable[[str], None] = field(default=lambda line: None)
    started: Callable[[], None] = field(default=lambda: None)

    @property
    def scratch(self) -> Path:
        """Where this process keeps what does not fit into memory."""
        if self.accelerator.num_processes == 1:
            return self.run.scratch
        return self.run.scratch / f"rank-{self.accelerator.process_index}"


def adapt(setting: Setting, *, resume: bool = False) -> Adaptation:
    """Run the plan of `setting.run` to a registered adaptation."""
    run, domain, main = setting.run, setting.record.slot.domain_id, setting.accelerator.is_main_process
    placed = on_first(setting.accelerator, lambda: _already_placed(setting)) if resume else None
    if placed is not None:
        return on_first(setting.accelerator, lambda: _end(run, placed))
    loaded = _load(setting)
    setting.note(f"slot {domain} starts as {loaded.initial.source}")
    results, reference = baselines(loaded)
    unadapted = predict(loaded, domain) if main else loaded.target
    results[UNADAPTED] = field_errors(loaded.binding, unadapted, loaded.target)
    setting.accelerator.wait_for_everyone()  # before anyone writes a checkpoint
    snapshot = load_newest(run.folder / "checkpoints") if resume else None
    setting.accelerator.wait_for_everyone()
    adapted = unadapted
    setting.started()
    for index, stage in enumerate(run.plan.stages):
        _run_stage(setting, loaded, stage, index, snapshot, reference)
        adapted = predict(loaded, domain) if main else loaded.target
        results[RUNGS.get(stage.name, stage.name)] = field_errors(loaded.binding, adapted, loaded.target)
    finished = Finished(
        record=setting.record,
        base=setting.base,
        plan=run.plan,
        model=loaded.model,
        processor=loaded.processor,
        binding=loaded.binding,
        statistics=setting.statistics,
        test=loaded.splits["test"],
        results=results,
        unadapted=unadapted,
        adapted=adapted,
        initial=loaded.initial,
        lines=read_lines(run.folder),
        eval_seed=EVAL_SEED,
    )

    def remember(number: int, folder: Path) -> None:
        # Killed after the rename and before the status, the run must know its own version again.
        run.update(placing={"version": number, "manifest": sha256_file(folder / MANIFEST_NAME)})

    return on_first(setting.accelerator, lambda: _end(run, register(setting.workspace, finished, remember)))


def _end(run: Run, adaptation: Adaptation) -> Adaptation:
    run.update(status="finished", adaptation=adaptation.label)
    run.clean()
    return adaptation


def _already_placed(setting: Setting) -> Adaptation | None:
    """The version that this run placed just before it was killed."""
    placing = setting.run.state.get("placing")
    if placing is None:
        return None
    for adaptation in list_adaptations(setting.workspace, setting.record.spec.name):
        if adaptation.version == placing["version"]:
            same = sha256_file(adaptation.folder / MANIFEST_NAME) == placing["manifest"]
            return adaptation if same else None
    return None


def check_start(
    record: EmbodimentRecord, base: ResolvedBase, plan: AdaptationPlan, reader: DatasetReader, processes: int = 1
) -> None:
    """Refuse what would fail only after everything was decoded: the plan, the slot's start, a long instruction."""
    stages_in_loop(plan, base)
    for stage in plan.stages:
        if stage.batch_size % processes:
            raise XvlaError(
                "the processes cannot share a batch equally",
                field=f"stage {stage.name}.batch_size",
                found=stage.batch_size,
                allowed=f"a multiple of {processes}",
            )
    check_initialisation(record.spec.prompt, base)
    processor = Processor.from_folder(base.folder, XVLAConfig.from_folder(base.folder)).for_robot(record.spec)
    for instruction in sorted({episode.instruction for episode in reader.episodes}):
        processor.tokens(instruction)


def stages_in_loop(plan: AdaptationPlan, base: ResolvedBase) -> frozenset[str]:
    """Names of the stages that train the encoder, as the base's own modules decide; jitter elsewhere is refused."""
    modules: list[str] = []
    if any(stage.lora is not None for stage in plan.stages):
        with torch.device("meta"):
            modules = [name for name, _ in XVLA(XVLAConfig.from_folder(base.folder)).named_modules()]
    found = frozenset(stage.name for stage in plan.stages if stage.trains_vlm(modules))
    for stage in plan.stages:
        if any(stage.color_jitter) and stage.name not in found:
            raise XvlaError(f"color_jitter {JITTER}", field=f"stage {stage.name}")
    return found


def _load(setting: Setting) -> Loaded:
    record, base, plan = setting.record, setting.base, setting.run.plan
    check_start(record, base, plan, setting.reader, setting.accelerator.num_processes)
    in_loop = stages_in_loop(plan, base)
    config = XVLAConfig.from_folder(base.folder)
    processor = Processor.from_folder(base.folder, config).for_robot(record.spec)
    folder = setting.workspace.embodiments / record.spec.name
    binding = Binding(record.spec, base_space(base), record.rotation_layout, setting.statistics, folder=folder)
    splits = {
        name: bare_split(name, episodes, samples, record=record, processor=processor, config=config)
        for name, (episodes, samples) in split_samples(record, setting.reader, binding, config.num_actions).items()
    }
    cache = open_cache(setting, splits, processor, config, in_loop)
    setting.note(f"features  {cache.plan.reason}")
    model = load_model(
        base.folder,
        device=setting.accelerator.device,
        with_vlm=bool(in_loop) or not cache.plan.cached or not cache.complete,
        num_domains=record.slot.num_domains,
    )
    splits = cache.fill(splits, model)
    if in_loop or not cache.plan.cached:
        splits = {
            name: with_frames(split, processor, setting.scratch, setting.progress)
            if in_loop or name == "train"
            else split
            for name, split in splits.items()
        }
    initial = initialise_slot(
        model,
        record.slot.domain_id,
        record.spec.prompt,
        base.used_domains,
        probe_of(splits["train"].source, model, processor, setting.scratch),
        plan.seed,
    )
    if not in_loop and cache.plan.cached:
        model.vlm = None  # from here on only its features are needed
    return Loaded(
        model=model,
        processor=processor,
        binding=binding,
        splits=splits,
        initial=initial,
        in_loop=in_loop,
    )


def _run_stage(
    setting: Setting,
    loaded: Loaded,
    stage: Stage,
    index: int,
    snapshot: Snapshot | None,
    reference: Mapping[str, float],
) -> None:
    """Train one stage, or put back what it left when it had already finished before an interruption."""
    model, run, domain = loaded.model, setting.run, setting.record.slot.domain_id
    in_loop = stage.name in loaded.in_loop
    if stage.lora is not None:
        inject_lora(model, stage.lora, seed=run.plan.seed)
    slot = open_slot(model, domain)
    if on_first(setting.accelerator, lambda: (run.folder / f"stage-{index}.safetensors").is_file()):
        _put_back(model, stage, run.load_stage(index))
    else:
        everything_moves = bool({"transformer_core", "vlm"} & set(stage.lr))
        before = frozen_digest(model, domain, tables_only=everything_moves)
        train = loaded.splits["train"].source
        job = Job(
            model=model,
            stage=stage,
            index=index,
            seed=run.plan.seed,
            sources=[replace(train, features=None) if in_loop else train],
            weights=[1.0],
            processor=loaded.processor,
            accelerator=setting.accelerator,
            folder=run.folder,
            observer=setting.observer,
            validate=validator(loaded, stage, domain, reference, setting.scratch),
            save_every=stage.eval_every if in_loop or everything_moves else min(50, stage.eval_every),
        )
        run_stage(job, snapshot if snapshot is not None and snapshot.stage == index else None)
        assert_unmoved(before, frozen_digest(model, domain, tables_only=everything_moves), stage.name)
        if setting.accelerator.is_main_process:
            run.save_stage(index, {t.name: t.parameter for t in select_trainables(model, stage)})
        setting.accelerator.wait_for_everyone()  # a resumed rank must find what the first one kept
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    close_slot(model, slot)
    if in_loop:
        cache_needed = any(later.name not in loaded.in_loop for later in run.plan.stages[index + 1 :])
        for name in ("train", "validation", "test") if cache_needed else ("test",):
            loaded.splits[name] = _encoded_again(loaded, loaded.splits[name], setting.scratch)


@torch.no_grad()
def _put_back(model: XVLA, stage: Stage, tensors: Mapping[str, Tensor]) -> None:
    for trainable in select_trainables(model, stage):
        if trainable.name not in tensors:
            raise XvlaError("the finished stage lacks a tensor", field=trainable.name, hint="start the run again")
        trainable.parameter.copy_(tensors[trainable.name])


def _encoded_again(loaded: Loaded, split: Split, scratch: Path) -> Split:
    """A split's features under the encoder as it is now."""
    features = encode_source(loaded.model, split.source, loaded.processor, scratch / f"{split.name}-again")
    return replace(split, source=replace(split.source, features=features))
