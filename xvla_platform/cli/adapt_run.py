"""The part of `xvla adapt` that spends compute: bars, run log and hooks around the engine."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from xvla_platform.cli.output import say


def run_adaptation(
    place: Any,
    run: Any,
    accelerator: Any,
    *,
    resume: bool,
    features: Any,
    budget_gb: float,
    stage_finished: Callable[[int], None] = lambda index: None,
) -> Any:
    """Run to the registered adaptations; of several processes the first one draws, logs and tells the hooks."""
    from xvla_platform.adapt.engine import adapt
    from xvla_platform.adapt.holding import held
    from xvla_platform.adapt.loop import Observers
    from xvla_platform.adapt.prepare import open_base, open_demonstrations
    from xvla_platform.adapt.run import RunLog
    from xvla_platform.adapt.setting import Robot, Setting
    from xvla_platform.cli.progress import Bars
    from xvla_platform.platform.plugins import build_manager
    from xvla_platform.platform.records import plugin_folder

    main = accelerator.is_main_process
    managers = [
        build_manager(folder if folder.is_dir() else None)
        for folder in (plugin_folder(place, record) for record in run.records)
    ]
    log = RunLog(run.folder, [stage.name for stage in run.plan.stages]) if main else None
    hooks = [HookObserver(manager, run.folder) for manager in managers]

    def started() -> None:
        for manager, record in zip(managers, run.records, strict=True):
            manager.hook.adaptation_started(record=record, run_folder=run.folder)

    try:
        with held(run.folder) if main else nullcontext(), Bars(enabled=main) as bars:
            setting = Setting(
                workspace=place,
                base=open_base(run.records[0], place),
                robots=[
                    Robot(
                        record=record,
                        reader=open_demonstrations(place, record),
                        statistics=run.statistics[record.spec.name],
                    )
                    for record in run.records
                ],
                run=run,
                accelerator=accelerator,
                observer=bars if log is None else Observers(bars, log, *hooks),
                progress=bars.task if main else None,
                features=features,
                feature_budget=int(budget_gb * 1e9),
                note=(lambda line: say(f"          {line}")) if main else (lambda line: None),
                started=started if main else (lambda: None),
                stage_finished=stage_finished,
            )
            adaptations = adapt(setting, resume=resume)
    finally:
        if log is not None:
            log.close()
    if main:
        for manager, adaptation in zip(managers, adaptations, strict=True):
            manager.hook.adaptation_finished(manifest=adaptation.manifest, folder=adaptation.folder)
    return adaptations


class HookObserver:
    """Passes the loop's events on to plugins."""

    def __init__(self, manager: Any, run_folder: Path) -> None:
        self._hook = manager.hook
        self._folder = run_folder

    def stage_started(self, stage: Any, index: int, start: int, trained: Any) -> None:
        """To `stage_started` of every plugin."""
        self._hook.stage_started(stage=stage, run_folder=self._folder)

    def step_finished(self, stage: Any, step: int, metrics: Any) -> None:
        """To `step_finished` of every plugin."""
        self._hook.step_finished(stage=stage, step=step, metrics=dict(metrics))
