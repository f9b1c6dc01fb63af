"""One stage of a run: slots open, the rest frozen, trained or put back, and the proof that nothing else moved."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from xvla_platform.adapt.features import encode_source
from xvla_platform.adapt.frozen import assert_unmoved, frozen_digest
from xvla_platform.adapt.launch import on_first
from xvla_platform.adapt.load import Loaded, LoadedRobot, robot_scratch
from xvla_platform.adapt.loop import Job, run_stage
from xvla_platform.adapt.measuring import validator
from xvla_platform.adapt.robot_data import Split
from xvla_platform.adapt.run import StageResult
from xvla_platform.adapt.setting import Setting
from xvla_platform.adapt.snapshot import Snapshot
from xvla_platform.adapt.trainables import select_trainables
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.slot import close_slot, open_slot
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.policy.adapter import inject_lora
from xvla_platform.specs.plan import Stage


def do_stage(
    setting: Setting,
    loaded: Loaded,
    index: int,
    snapshot: Snapshot | None,
    references: Mapping[str, Mapping[str, float]],
) -> None:
    """Train one stage, or put back what it left when it had already finished before an interruption.

    Args:
        references: By robot, the errors that validation errors are divided by.
    """
    model, run, stage = loaded.model, setting.run, setting.run.plan.stages[index]
    if stage.lora is not None:
        inject_lora(model, stage.lora, seed=run.plan.seed)
    slots = [open_slot(model, robot.domain_id) for robot in loaded.robots]
    if on_first(setting.accelerator, lambda: run.has_stage(index)):
        _put_back(model, stage, run.load_stage(index))
    else:
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        owners = {
            names[id(row)]: robot.name
            for robot, slot in zip(loaded.robots, slots, strict=True)
            for row in slot.rows.values()
        }
        _train(setting, loaded, index, snapshot, references, owners if len(slots) > 1 else {})
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for slot in reversed(slots):
        close_slot(model, slot)
    if stage.name in loaded.in_loop:
        cache_needed = any(later.name not in loaded.in_loop for later in run.plan.stages[index + 1 :])
        for robot in loaded.robots:
            for name in ("train", "validation", "test") if cache_needed else ("test",):
                robot.splits[name] = _encoded_again(setting, loaded.model, robot, robot.splits[name])


def _train(
    setting: Setting,
    loaded: Loaded,
    index: int,
    snapshot: Snapshot | None,
    references: Mapping[str, Mapping[str, float]],
    owners: Mapping[str, str],
) -> None:
    """Run the loop, prove that the rest did not move, and keep the result in the run's folder."""
    model, run, stage = loaded.model, setting.run, setting.run.plan.stages[index]
    in_loop = stage.name in loaded.in_loop
    everything_moves = bool({"transformer_core", "vlm"} & set(stage.lr))
    domains = [robot.domain_id for robot in loaded.robots]
    before = frozen_digest(model, *domains, tables_only=everything_moves)
    sources = [replace(robot.train, features=None) if in_loop else robot.train for robot in loaded.robots]
    job = Job(
        model=model,
        stage=stage,
        index=index,
        seed=run.plan.seed,
        sources=sources,
        weights=[1.0] * len(sources),
        processor=loaded.robots[0].processor,  # only prepares images, which robots of one base have in common
        accelerator=setting.accelerator,
        folder=run.folder,
        observer=setting.observer,
        validate=validator(loaded, stage, references, setting.scratch),
        owners=owners,
        save_every=stage.eval_every if in_loop or everything_moves else min(50, stage.eval_every),
    )
    outcome = run_stage(job, snapshot if snapshot is not None and snapshot.stage == index else None)
    after = frozen_digest(model, *domains, tables_only=everything_moves)
    assert_unmoved(before, after, stage.name)
    what = "the other robots' rows" if everything_moves else "all weights but the trained ones"
    setting.note(f"frozen    {what} are bit-identical after stage {stage.name}: sha256 {after[:12]}")
    if setting.accelerator.is_main_process:
        result = StageResult(
            name=stage.name,
            best_error=outcome.best_error,
            best_step=outcome.best_step,
            frozen=what,
            frozen_sha256=after,
        )
        run.save_stage(index, {t.name: t.parameter for t in select_trainables(model, stage)}, result)
        setting.stage_finished(index)
    setting.accelerator.wait_for_everyone()  # a resumed rank must find what the first one kept


@torch.no_grad()
def _put_back(model: XVLA, stage: Stage, tensors: Mapping[str, Tensor]) -> None:
    for trainable in select_trainables(model, stage):
        if trainable.name not in tensors:
            raise XvlaError("the finished stage lacks a tensor", field=trainable.name, hint="start the run again")
        trainable.parameter.copy_(tensors[trainable.name])


def _encoded_again(setting: Setting, model: XVLA, robot: LoadedRobot, split: Split) -> Split:
    """A split's features under the encoder as it is now; jittered stages encode in the loop from here on."""
    scratch: Path = robot_scratch(setting, robot.robot) / f"{split.name}-again"
    features = encode_source(model, split.source, robot.processor, scratch)
    return replace(split, source=replace(split.source, features=features, variants={}))
