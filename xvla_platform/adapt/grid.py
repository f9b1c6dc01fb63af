"""The cells of a sweep: every combination of a grid's values as a plan, all of them checked before anything runs.

In: names and values, and how the plan is chosen otherwise. Out: cells. A value that means nothing in a cell (a rank
where nothing follows the prompt-only stage) is left out there, and cells that are equal then are one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

from xvla_platform.adapt.plans import choose_plan
from xvla_platform.errors import XvlaError
from xvla_platform.specs.base import validate_model
from xvla_platform.specs.plan import AdaptationPlan, Group, LoraSpec, Stage
from xvla_platform.specs.sweep import Value

OF_THE_PLAN = {
    "then": "then",
    "init": "start",
    "seed": "seed",
    "steps": "steps",
    "batch_size": "batch_size",
    "demonstrations": "demonstrations",
}
OF_LORA = ("rank", "alpha", "targets")  # of whichever stage adds LoRA
POLICY = str(LoraSpec.model_fields["targets"].default)
TARGETS = {
    "policy": POLICY,
    "everywhere": rf"({POLICY}|vlm\..*\.(qkv|proj|q_proj|k_proj|v_proj|out_proj|fc1|fc2))",
}
STAGE_FIELDS = sorted(set(Stage.model_fields) - {"name", "lr", "lora"})


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination: the values that tell it from the others, and its plan."""

    values: dict[str, Value]
    plan: AdaptationPlan

    @property
    def label(self) -> str:
        """`rank=4 init=mixture`."""
        return " ".join(f"{name}={value}" for name, value in self.values.items())


def parse_grid(texts: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """`rank=4,8` and the like as names and values."""
    grid: dict[str, tuple[Value, ...]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name or not all(values.split(",")):
            raise XvlaError("is not NAME=VALUE,VALUE", field="--grid", found=text, hint="as in --grid rank=4,8,16")
        if name in grid:
            raise XvlaError("is given twice", field="--grid", found=name)
        grid[name] = tuple(_value(value) for value in values.split(","))
    return grid


def plan_cells(base_folder: Path, grid: Mapping[str, Sequence[Value]], choices: Mapping[str, Any]) -> list[Cell]:
    """Every cell of a grid.

    Args:
        choices: What `choose_plan` takes, for all that the grid does not name.
    """
    for name, values in grid.items():
        if len(set(map(str, values))) < len(values):
            raise XvlaError("a value is given twice", field=name, found=", ".join(map(str, values)))
        if name in OF_THE_PLAN and choices.get(OF_THE_PLAN[name]) is not None and name != "then":
            raise XvlaError("is in the grid and an option as well", field=name, hint="leave one of them out")
    if "then" in grid and choices.get("plan") is not None:
        raise XvlaError("--plan names every stage itself", field="then", hint="leave --plan or `then` out")
    cells: dict[str, Cell] = {}
    meant: set[str] = set()
    stages: set[str] = set()
    for combination in product(*grid.values()):
        asked = dict(zip(grid, combination, strict=True))
        own = {OF_THE_PLAN[name]: value for name, value in asked.items() if name in OF_THE_PLAN}
        plan, _ = choose_plan(base_folder, **{**choices, **_checked(own)})
        stages |= {stage.name for stage in plan.stages}
        data = plan.model_dump(mode="json")
        used = {name: value for name, value in asked.items() if name in OF_THE_PLAN or _put(data, name, value)}
        meant |= used.keys()
        label = " ".join(f"{name}={value}" for name, value in used.items())
        cell = Cell(values=used, plan=validate_model(AdaptationPlan, data, f"sweep cell {label}"))
        cells.setdefault(label, cell)
    for name in grid:
        if name not in meant:
            raise XvlaError("no stage of the sweep has this setting", field=name, allowed=_names(stages))
    return list(cells.values())


def _put(data: dict[str, Any], name: str, value: Value) -> bool:
    """Set one stage's setting in a plan; whether the plan has it. A name that no plan could have is refused."""
    path = name.split(".")
    stages = {stage["name"]: stage for stage in data["stages"]}
    if len(path) == 1:
        if name not in OF_LORA:
            raise XvlaError("is no setting of an adaptation", field=name, allowed=_names(stages))
        if name == "targets":
            if value not in TARGETS:
                raise XvlaError("is no set of LoRA targets", field=name, found=value, allowed=list(TARGETS))
            value = TARGETS[str(value)]
        with_lora = [stage["lora"] for stage in data["stages"] if stage["lora"] is not None]
        for lora in with_lora:
            lora[name] = value
        return bool(with_lora)
    known = {"lr": get_args(Group), "lora": list(LoraSpec.model_fields)}
    if path[1:] not in [[each] for each in STAGE_FIELDS] + [[a, b] for a, inner in known.items() for b in inner]:
        raise XvlaError("is no setting of a stage", field=name, allowed=_names(stages))
    stage = stages.get(path[0])
    target = stage if stage is None or len(path) == 2 else stage[path[1]]
    if target is None or (path[1] == "lr" and path[-1] not in target):
        return False
    target[path[-1]] = value
    return True


def _checked(own: Mapping[str, Value]) -> dict[str, Any]:
    """Values of the plan's own settings, of the type each has."""
    for name, value in own.items():
        if name == "then" and value not in ("lora", "full", "none"):
            raise XvlaError(
                "is nothing that follows the prompt stage", field="then", found=value, allowed="lora, full, none"
            )
        least = {"seed": 0, "steps": 1, "batch_size": 1, "demonstrations": 1}.get(name)
        if least is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise XvlaError("must be a whole number", field=name, found=value, allowed=f"at least {least}")
    return {name: str(value) if name == "start" else value for name, value in own.items()}


def _names(stages: Any) -> list[str]:
    """Every name that a grid may hold, for a message."""
    own = [f"{stage}.{field}" for stage in sorted(stages) for field in (*STAGE_FIELDS, "lr.GROUP", "lora.SETTING")]
    return [*OF_THE_PLAN, *OF_LORA, *own]


def _value(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            value: float = kind(text)
        except ValueError:
            continue
        if not math.isfinite(value):
            raise XvlaError("is no finite number", field="--grid", found=text)
        return value
    return text
