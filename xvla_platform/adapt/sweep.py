"""A sweep on disk: its cells, the run of each, and what came out.

`runs/<robot>/sweep-<NNN>/` holds `sweep.json` (the cells with their plans, and which run computes which), the stages
that cells have in common while it runs, and the plot of the errors. Killed anywhere, it goes on where it was: finished
cells are versions in the registry, and the interrupted one is an ordinary run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xvla_platform.adapt.grid import Cell
from xvla_platform.adapt.run import Run, load_run, runs_of, start_run
from xvla_platform.errors import XvlaError
from xvla_platform.evaluation.open_loop import relative_error
from xvla_platform.modelling.flops import Flops
from xvla_platform.platform.files import os_errors, read_json, write_json
from xvla_platform.platform.registry import find
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.base import validate_model
from xvla_platform.specs.plan import AdaptationPlan
from xvla_platform.specs.records import EmbodimentRecord, SweepCell

STATE = "sweep.json"
MEAN = "mean action"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """An opened sweep folder."""

    folder: Path
    name: str
    cells: tuple[Cell, ...]
    features: str
    record: dict[str, Any]

    @property
    def runs(self) -> dict[str, str]:
        """Name of the run folder of every cell that was begun, by the cell's label."""
        return dict(read_json(self.folder / STATE)["runs"])

    def run_of(self, cell: Cell) -> Run | None:
        """The run of a cell that was begun."""
        name = self.runs.get(cell.label)
        return None if name is None else load_run(self.folder.parent / name)

    def begin(self, cell: Cell, record: EmbodimentRecord, statistics: Mapping[str, Any]) -> Run:
        """A new run for a cell."""
        lineage = SweepCell(sweep=self.name, values=dict(cell.values))
        run = start_run(self.folder.parent, [record], cell.plan, {record.spec.name: statistics}, lineage)
        self.update(runs=self.runs | {cell.label: run.folder.name})
        return run

    def update(self, **changes: Any) -> None:
        """Merge into `sweep.json`, atomically."""
        write_json(self.folder / STATE, read_json(self.folder / STATE) | changes)


def start_sweep(
    workspace: Workspace, record: EmbodimentRecord, name: str | None, cells: Sequence[Cell], features: str
) -> Sweep:
    """A new sweep folder."""
    root = runs_of(workspace, [record.spec.name])
    number = max((int(path.name.removeprefix("sweep-")) for path in _folders(root)), default=0) + 1
    folder = root / f"sweep-{number:03d}"
    with os_errors(folder):
        folder.mkdir(parents=True)
    data = {
        "schema_version": 1,
        "name": name or folder.name,
        "status": "running",
        "features": features,
        "record": record.model_dump(mode="json"),
        "cells": [{"values": cell.values, "plan": cell.plan.model_dump(mode="json")} for cell in cells],
        "runs": {},
    }
    write_json(folder / STATE, data)
    return open_sweep(folder)


def unfinished_sweep(workspace: Workspace, record: EmbodimentRecord) -> Sweep:
    """The newest sweep of a robot that has not finished; none is an error, and so is one of another declaration, data
    or base: its cells could not be compared.
    """
    root = runs_of(workspace, [record.spec.name])
    for folder in reversed(_folders(root)):
        if (folder / STATE).is_file() and read_json(folder / STATE)["status"] == "running":
            found = open_sweep(folder)
            if found.record != record.model_dump(mode="json"):
                raise XvlaError(
                    f"was begun before '{record.spec.name}' was registered as it is now",
                    file=folder,
                    field="--resume",
                    hint="start the sweep anew without --resume",
                )
            return found
    raise XvlaError("no interrupted sweep to resume", file=root, hint="start one without --resume")


def open_sweep(folder: Path) -> Sweep:
    """A sweep folder that `start_sweep` made."""
    file = folder / STATE
    data = read_json(file)
    cells = tuple(
        Cell(values=cell["values"], plan=validate_model(AdaptationPlan, cell["plan"], file)) for cell in data["cells"]
    )
    return Sweep(folder=folder, name=data["name"], cells=cells, features=data["features"], record=data["record"])


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """A finished cell: its version, and its errors relative to the mean action's (1 is no better)."""

    cell: Cell
    adaptation: str
    validation_error: float
    test_error: float
    errors: dict[str, float]
    units: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "values": self.cell.values,
            "adaptation": self.adaptation,
            "validation_error": self.validation_error,
            "test_error": self.test_error,
            "test_errors": self.errors,
        }


def result_of(workspace: Workspace, cell: Cell, label: str) -> CellResult:
    """What a registered version of a sweep was measured at."""
    metrics = read_json(find(workspace, label).folder / "metrics.json")
    table = {row["policy"]: row["errors"] for row in metrics["table"]}
    own = metrics["table"][-1]["errors"]
    return CellResult(
        cell=cell,
        adaptation=label,
        validation_error=metrics["stages"][-1]["validation_error"],
        test_error=relative_error(own, table[MEAN]),
        errors=own,
        units=metrics["units"],
    )


def new_work(
    cells: Sequence[Cell], flops: Flops, in_loop: Sequence[frozenset[str]], keys: Sequence[Sequence[str]]
) -> list[int]:
    """Arithmetic of every cell in order, with what an earlier one has computed already left out.

    Args:
        in_loop: For each cell, the stages that train the encoder. keys: For each cell, what decides its stages.
    """
    seen: set[str] = set()
    out = []
    for cell, loop, own in zip(cells, in_loop, keys, strict=True):
        total = 0
        for stage, key in zip(cell.plan.stages, own, strict=True):
            if key not in seen:
                inside = stage.name in loop
                trains = bool({"transformer_core", "lora"} & set(stage.lr))
                sample = flops.step(trains_encoder=inside, trains_policy=trains, encodes=inside)
                total += stage.steps * stage.batch_size * sample
            seen.add(key)
        out.append(total)
    return out


def _folders(root: Path) -> list[Path]:
    found = [path for path in root.glob("sweep-*") if path.name.removeprefix("sweep-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("sweep-")))
