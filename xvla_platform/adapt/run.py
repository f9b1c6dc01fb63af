"""The folder of one run: what was planned, what was measured, where it stands.

`runs/<embodiment>/<NNN>/` (of several: `runs/<one>+<other>/<NNN>/`) holds `run.json`, `stats.json` with the statistics
of every robot's dataset, `metrics.jsonl`, TensorBoard events, `checkpoints/` and, for every finished stage, the weights
it left. A run that was interrupted is continued from here.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import atomic_folder, os_errors, read_json, sha256_file, write_json, write_text
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.base import validate_model
from xvla_platform.specs.plan import AdaptationPlan, Stage
from xvla_platform.specs.records import EmbodimentRecord, SweepCell

log = logging.getLogger(__name__)
STATE = "run.json"
STATS = "stats.json"
METRICS = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """A finished stage: the validation error of what it left and its step, by robot, and what did not move."""

    name: str
    best_error: Mapping[str, float]
    best_step: Mapping[str, int]
    frozen: str
    frozen_sha256: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """An opened run folder; `sweep` is the cell of a sweep that this run computes, if it is one."""

    folder: Path
    records: tuple[EmbodimentRecord, ...]
    plan: AdaptationPlan
    sweep: SweepCell | None = None

    @property
    def state(self) -> dict[str, Any]:
        """What `update` keeps: the status, and what is about to appear in the registry."""
        return dict(read_json(self.folder / STATE)["state"])

    @property
    def statistics(self) -> dict[str, Any]:
        """The statistics of every robot's dataset as they were when the run started, by robot."""
        return dict(read_json(self.folder / STATS))

    def update(self, **changes: Any) -> None:
        """Merge into the kept state, atomically."""
        data = read_json(self.folder / STATE)
        data["state"] |= changes
        write_json(self.folder / STATE, data)

    @property
    def scratch(self) -> Path:
        """For what does not fit into memory; can be rebuilt, so a finished run leaves none."""
        return self.folder / "scratch"

    def clean(self) -> None:
        """Remove what only a resumed run would need: scratch files, checkpoints, weights of the stages."""
        for name in ("scratch", "checkpoints"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for path in self.folder.glob("stage-*.safetensors"):
            path.unlink(missing_ok=True)

    def save_stage(self, index: int, tensors: Mapping[str, Tensor], result: StageResult) -> None:
        """Keep the weights that a finished stage left; only with them it counts as finished."""
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self._keep_stage(index, result, lambda path: save_file(kept, path))

    def adopt_stage(self, index: int, weights: Path, result: StageResult) -> None:
        """Take over what the same stage of another run left."""
        self._keep_stage(index, result, lambda path: shutil.copyfile(weights, path))

    def _keep_stage(self, index: int, result: StageResult, write: Callable[[Path], object]) -> None:
        state, path = self.state, self.stage_file(index)
        with os_errors(path):
            temporary = path.with_suffix(".part")
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        self.update(
            stages=state.get("stages", {}) | {str(index): asdict(result)},
            weights=state.get("weights", {}) | {str(index): sha256_file(temporary)},
        )
        temporary.replace(path)

    def stage_file(self, index: int) -> Path:
        """Where the weights that a stage left are kept until the run has finished."""
        return self.folder / f"stage-{index}.safetensors"

    def has_stage(self, index: int) -> bool:
        """Whether a stage has finished and what it left is whole; a damaged one is said, and has to be run again."""
        path = self.stage_file(index)
        if not path.is_file():
            return False
        whole = sha256_file(path) == self.state.get("weights", {}).get(str(index))
        if not whole:
            log.warning("%s is damaged; its stage is run again", path)
        return whole

    @property
    def finished_stages(self) -> list[StageResult]:
        """What the finished stages left, in order."""
        kept = self.state.get("stages", {})
        return [StageResult(**kept[index]) for index in sorted(kept, key=int)]

    def load_stage(self, index: int) -> dict[str, Tensor]:
        """The weights that a finished stage left."""
        path = self.stage_file(index)
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise XvlaError(f"the finished stage cannot be read: {error}", file=path) from None


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """All measurements of a run so far, one dict a step; a half-written last line is ignored."""
    path = folder / METRICS
    out = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            out.append(json.loads(line))
        except ValueError:
            continue
    return out


def runs_of(workspace: Workspace, names: Iterable[str]) -> Path:
    """The folder with the runs of these robots together."""
    return workspace.runs / "+".join(sorted(names))


def start_run(
    root: Path,
    records: Sequence[EmbodimentRecord],
    plan: AdaptationPlan,
    statistics: Mapping[str, Any],
    sweep: SweepCell | None = None,
) -> Run:
    """A new run folder under `root`, which `runs_of` names; statistics by robot."""
    number = max((_number(path) for path in root.glob("*")), default=0) + 1
    folder = root / f"{number:03d}"
    data = {
        "schema_version": 2,
        "records": [record.model_dump(mode="json") for record in records],
        "plan": plan.model_dump(mode="json"),
        "sweep": None if sweep is None else sweep.model_dump(mode="json"),
        "state": {"status": "running"},
    }
    with atomic_folder(folder) as building:
        write_json(building / STATS, statistics)
        write_json(building / STATE, data)
    return Run(folder=folder, records=tuple(records), plan=plan, sweep=sweep)


def newest_unfinished(root: Path) -> Run:
    """The run to resume; none is an error."""
    run = find_unfinished(root)
    if run is None:
        raise XvlaError("no interrupted run to resume", file=root, hint="start one without --resume")
    return run


def find_unfinished(
    root: Path, plan: AdaptationPlan | None = None, records: Sequence[EmbodimentRecord] = ()
) -> Run | None:
    """The newest run that has not finished, with `plan` that of this plan and these records alone.

    Runs of a sweep belong to the sweep.
    """
    for folder in sorted(root.glob("*"), key=_number, reverse=True):
        if not (folder / STATE).is_file():
            continue
        data = read_json(folder / STATE)
        if data["state"]["status"] == "running" and data.get("sweep") is None:
            run = load_run(folder)
            if plan is None or (run.plan == plan and list(run.records) == list(records)):
                return run
    return None


def load_run(folder: Path) -> Run:
    """A run folder that `start_run` made."""
    file = folder / STATE
    data = read_json(file)
    if data["schema_version"] != 2:
        raise XvlaError("is a run of an older version", file=file, hint="start again without --resume")
    return Run(
        folder=folder,
        records=tuple(validate_model(EmbodimentRecord, record, file) for record in data["records"]),
        plan=validate_model(AdaptationPlan, data["plan"], file),
        sweep=None if data["sweep"] is None else validate_model(SweepCell, data["sweep"], file),
    )


def _number(path: Path) -> int:
    match = re.fullmatch(r"(\d+)", path.name)
    return int(match[1]) if match else 0


class RunLog:
    """Writes every step to `metrics.jsonl` and TensorBoard; lines beyond the resumed step are dropped."""

    def __init__(self, folder: Path, stages: Sequence[str]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS
        self._lines = read_lines(folder)
        self._stages = list(stages)
        self._file: Any = None
        self._board = SummaryWriter(str(folder / "tensorboard"))

    def stage_started(self, stage: Stage, index: int, start: int, trained: Mapping[str, int]) -> None:
        """Drop what a killed process wrote after its last checkpoint, then append."""
        before = set(self._stages[:index])
        kept = [
            line
            for line in self._lines
            if line["stage"] in before or (line["stage"] == stage.name and line["step"] <= start)
        ]
        if self._file is not None:
            self._file.close()
        else:
            write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))  # a kill loses no line
        self._file = self._path.open("a", encoding="utf-8")

    def step_finished(self, stage: Stage, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line."""
        line = {"stage": stage.name, "step": step, **metrics}
        with os_errors(self._path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        self._lines.append(line)
        for name, value in metrics.items():
            self._board.add_scalar(f"{stage.name}/{name}", value, step)

    def close(self) -> None:
        """Flush everything."""
        if self._file is not None:
            self._file.close()
        self._board.close()
