"""What one run of `xvla adapt` stands on, opened: the base, one or several robots, the run's folder, the device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from xvla_platform.adapt.feature_plan import DEFAULT_BUDGET_GB, Choice
from xvla_platform.adapt.loop import Observer
from xvla_platform.adapt.robot_data import ProgressFactory
from xvla_platform.adapt.run import Run
from xvla_platform.data.reader import DatasetReader
from xvla_platform.platform.bases import ResolvedBase
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.embodiment import PromptSpec
from xvla_platform.specs.plan import AdaptationPlan
from xvla_platform.specs.records import EmbodimentRecord


@dataclass(frozen=True, kw_only=True)
class Robot:
    """One robot of a run, with its dataset and the statistics that the run keeps to."""

    record: EmbodimentRecord
    reader: DatasetReader
    statistics: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.record.spec.name

    @property
    def domain_id(self) -> int:
        return self.record.slot.domain_id


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything an adaptation stands on.

    Attributes:
        robots: The robots that are adapted in this run, by name.
        features, feature_budget: Whether to cache features, and the bytes that all stores may take together.
        note: Receives one line per inherited or measured choice.
        started: Called when all is loaded and the first stage is about to begin.
        stage_finished: Called with a stage's index when the run folder holds what it left.
    """

    workspace: Workspace
    base: ResolvedBase
    robots: Sequence[Robot]
    run: Run
    accelerator: Accelerator
    observer: Observer
    progress: ProgressFactory | None = None
    features: Choice = "auto"
    feature_budget: int = int(DEFAULT_BUDGET_GB * 1e9)
    note: Callable[[str], None] = field(default=lambda line: None)
    started: Callable[[], None] = field(default=lambda: None)
    stage_finished: Callable[[int], None] = field(default=lambda index: None)

    @property
    def scratch(self) -> Path:
        """Where this process keeps what does not fit into memory."""
        if self.accelerator.num_processes == 1:
            return self.run.scratch
        return self.run.scratch / f"rank-{self.accelerator.process_index}"


def start_of(plan: AdaptationPlan, record: EmbodimentRecord) -> PromptSpec:
    """How a robot's slot starts: as the plan says, else as its plugin does."""
    return plan.start or record.spec.prompt
