"""One run from plan to registry, for one robot or several.

load base → read demonstrations → encode each frame once → place and initialise the slots → per stage: freeze,
train, keep the best by validation error, prove that nothing else moved, measure on the test episodes → write one
artifact a robot → reload it → same chunk for the same seed, or fail → register.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.adapt.artifact import Finished, register
from xvla_platform.adapt.launch import on_first
from xvla_platform.adapt.load import Loaded, LoadedRobot, load
from xvla_platform.adapt.measuring import EVAL_SEED, baselines, predict
from xvla_platform.adapt.run import read_lines
from xvla_platform.adapt.setting import Robot, Setting
from xvla_platform.adapt.snapshot import load_newest
from xvla_platform.adapt.stages import do_stage
from xvla_platform.evaluation.open_loop import field_errors
from xvla_platform.platform.artifact import MANIFEST_NAME
from xvla_platform.platform.files import sha256_file
from xvla_platform.platform.registry import Adaptation, list_adaptations

UNADAPTED = "base, not adapted"
RUNGS = {"prompt": "prompt only", "lora": "prompt, then LoRA", "full": "prompt, then full tuning"}
Chunks = dict[str, NDArray[np.float32]]


def adapt(setting: Setting, *, resume: bool = False) -> list[Adaptation]:
    """Run the plan of `setting.run` to a registered adaptation of every robot."""
    accelerator = setting.accelerator
    placed = on_first(accelerator, lambda: _already_placed(setting)) if resume else {}
    if len(placed) == len(setting.robots):
        return on_first(accelerator, lambda: _end(setting, placed))
    loaded = load(setting)
    found = {robot.name: baselines(robot) for robot in loaded.robots}
    results = {name: dict(table) for name, (table, _) in found.items()}
    references = {name: reference for name, (_, reference) in found.items()}
    unadapted = _measure(setting, loaded, UNADAPTED, results)
    accelerator.wait_for_everyone()  # before anyone writes a checkpoint
    snapshot = load_newest(setting.run.folder / "checkpoints") if resume else None
    accelerator.wait_for_everyone()
    adapted = unadapted
    setting.started()
    for index, stage in enumerate(setting.run.plan.stages):
        do_stage(setting, loaded, index, snapshot, references)
        adapted = _measure(setting, loaded, RUNGS.get(stage.name, stage.name), results)

    def finish() -> list[Adaptation]:
        for robot in loaded.robots:
            if robot.name not in placed:
                done = _finished(setting, loaded, robot, results[robot.name], unadapted, adapted)
                placed[robot.name] = register(setting.workspace, done, _remember(setting, robot.name))
        return _end(setting, placed)

    return on_first(accelerator, finish)


def _measure(setting: Setting, loaded: Loaded, name: str, results: Mapping[str, dict[str, dict[str, float]]]) -> Chunks:
    """Test chunks of every robot with the model as it stands; their errors are added to the tables under `name`."""
    chunks: Chunks = {}
    for robot in loaded.robots:
        main = setting.accelerator.is_main_process
        chunks[robot.name] = predict(loaded.model, robot) if main else robot.target
        results[robot.name][name] = field_errors(robot.binding, chunks[robot.name], robot.target)
    return chunks


def _finished(
    setting: Setting,
    loaded: Loaded,
    robot: LoadedRobot,
    results: Mapping[str, Mapping[str, float]],
    unadapted: Chunks,
    adapted: Chunks,
) -> Finished:
    return Finished(
        record=robot.robot.record,
        base=setting.base,
        plan=setting.run.plan,
        model=loaded.model,
        processor=robot.processor,
        binding=robot.binding,
        statistics=robot.robot.statistics,
        test=robot.splits["test"],
        results=results,
        unadapted=unadapted[robot.name],
        adapted=adapted[robot.name],
        initial=robot.initial,
        lines=robot_lines(read_lines(setting.run.folder), robot.name),
        stages=setting.run.finished_stages,
        eval_seed=EVAL_SEED,
        trained_with=tuple(other.name for other in loaded.robots if other is not robot),
        sweep=setting.run.sweep,
    )


def robot_lines(lines: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """A run's measurements as those of one of its robots."""
    own = {f"{what}/{name}": what for what in ("loss", "grad_norm", "validation_error")}
    return [{**line, **{what: line[key] for key, what in own.items() if key in line}} for line in lines]


def _remember(setting: Setting, name: str) -> Callable[[int, Path], None]:
    def remember(number: int, folder: Path) -> None:
        # Killed after the rename and before the status, the run must know its own version again.
        entry = {"version": number, "manifest": sha256_file(folder / MANIFEST_NAME)}
        setting.run.update(placing=dict(setting.run.state.get("placing", {})) | {name: entry})

    return remember


def _end(setting: Setting, placed: Mapping[str, Adaptation]) -> list[Adaptation]:
    done = [placed[robot.name] for robot in setting.robots]
    setting.run.clean()  # first: nobody comes back to clean up after a run that has finished
    setting.run.update(status="finished", adaptations=[adaptation.label for adaptation in done])
    return done


def _already_placed(setting: Setting) -> dict[str, Adaptation]:
    """The versions that this run placed just before it was killed, by robot."""
    placing = setting.run.state.get("placing", {})
    return {
        robot.name: adaptation
        for robot in setting.robots
        if robot.name in placing
        for adaptation in _versions(setting, robot)
        if adaptation.version == placing[robot.name]["version"]
        and sha256_file(adaptation.folder / MANIFEST_NAME) == placing[robot.name]["manifest"]
    }


def _versions(setting: Setting, robot: Robot) -> list[Adaptation]:
    return list_adaptations(setting.workspace, robot.name)
