"""Stages that several runs have in common, computed once: of the cells of a sweep, or of one robot's runs.

What a stage leaves is decided by the seed, the slot's start, the demonstrations and the stages up to it. A run that
begins with the same ones finds the stage finished in its own folder, as if it had been interrupted after it.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xvla_platform.adapt.feature_plan import jittered_variants
from xvla_platform.adapt.run import METRICS, Run, StageResult, read_lines
from xvla_platform.platform.files import atomic_folder, os_errors, read_json, write_json
from xvla_platform.specs.plan import AdaptationPlan
from xvla_platform.specs.records import EmbodimentRecord

WEIGHTS = "stage.safetensors"
RESULT = "result.json"
FOLDER = "stages"
SMALL = {"soft_prompts", "action_heads"}  # what is trained where a stage leaves a slot's rows and no more


@dataclass(frozen=True, kw_only=True)
class StageStore:
    """Finished stages by what decides them.

    Attributes:
        machine: What else does: all that rounds numbers (device, processes), and for a robot's own store its data.
        small_only: Keep only prompt-only stages: rows of half a megabyte, where other stages leave gigabytes.
    """

    folder: Path
    machine: str
    small_only: bool = False

    def known(self, plan: AdaptationPlan) -> list[str]:
        """Names of a plan's first stages that are kept."""
        out: list[str] = []
        for index, stage in enumerate(plan.stages):
            if not (self._kept(plan, index) / RESULT).is_file():
                break
            out.append(stage.name)
        return out

    def lend(self, run: Run) -> int:
        """Put every stage that is kept into a run that has not begun it; returns how many stages the run has then."""
        count = 0
        for index, _ in enumerate(run.plan.stages):
            kept = self._kept(run.plan, index)
            if not run.has_stage(index):
                if not (kept / RESULT).is_file() or (run.folder / "checkpoints").is_dir():
                    break
                self._copy(kept, run, index)
            count += 1
        return count

    def keep(self, run: Run, index: int) -> None:
        """Take what a stage of a run left."""
        final = self._kept(run.plan, index)
        large = any(set(stage.lr) - SMALL for stage in run.plan.stages[: index + 1])
        if final.is_dir() or (self.small_only and large):
            return
        stage = run.plan.stages[index].name
        with atomic_folder(final) as build:
            with os_errors(build):
                shutil.copyfile(run.stage_file(index), build / WEIGHTS)
            lines = [json.dumps(line) for line in read_lines(run.folder) if line["stage"] == stage]
            write_json(build / RESULT, {"result": asdict(run.finished_stages[index]), "lines": lines})

    def _kept(self, plan: AdaptationPlan, index: int) -> Path:
        return self.folder / stage_key(plan, index, self.machine)

    def _copy(self, kept: Path, run: Run, index: int) -> None:
        found: dict[str, Any] = read_json(kept / RESULT)
        name = found["result"]["name"]
        lines = [json.dumps(line) for line in read_lines(run.folder) if line["stage"] != name]
        with os_errors(run.folder):
            text = "".join(line + "\n" for line in [*lines, *found["lines"]])
            (run.folder / METRICS).write_text(text, encoding="utf-8")
        run.adopt_stage(index, kept / WEIGHTS, StageResult(**found["result"]))


def robots_store(
    root: Path, records: Sequence[EmbodimentRecord], statistics: Mapping[str, Any], machine: str
) -> StageStore:
    """The prompt-only stages of all runs of these robots, under `root`, which `runs_of` names.

    Robots, data, base, software and machine must be the same; a record holds the fingerprints of data and base.
    """
    decides = {
        "records": [record.model_dump(mode="json") for record in records],
        "statistics": statistics,
        "versions": [version(name) for name in ("xvla-platform", "torch")],
        "machine": machine,
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return StageStore(folder=root / FOLDER, machine=digest, small_only=True)


def stage_key(plan: AdaptationPlan, index: int, machine: str) -> str:
    """Digest of all that decides what stage `index` of a plan leaves."""
    stages = plan.stages[: index + 1]
    variants = jittered_variants(plan.stages)
    decides = {
        "seed": plan.seed,
        "demonstrations": plan.demonstrations,
        "start": None if plan.start is None else plan.start.model_dump(mode="json"),
        "stages": [stage.model_dump(mode="json") for stage in stages],
        "variants": [variants.get(stage.color_jitter, 0) for stage in stages],
        "machine": machine,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]
