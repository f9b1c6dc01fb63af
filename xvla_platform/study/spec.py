"""`study.yaml`: which bases, robots, numbers of demonstrations and ways to adapt are compared, and by what."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from xvla_platform.specs.base import SCHEMA_VERSION, Seed, StrictModel, load_model
from xvla_platform.specs.plan import Then

# Bases, rungs and plugins are parts of file names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Recording(StrictModel):
    """One `xvla record`: demonstrations of a simulated robot, or motionless scenes.

    Attributes:
        plugin: Folder of the robot's plugin, relative to the repository of plugins (`StudySpec.plugins`).
        task: Task of the simulator, or `all`.
        episodes: Demonstrations, where `still_scenes` is not given. per_scene: Instructions played in one scene.
        slips: Share of scenes that begin as after a slip.
        rig: Other camera poses, drawn from this number; 0 is the robot's own.
        seed: Of the first scene.
    """

    plugin: Name
    task: str = "all"
    episodes: int | None = Field(default=None, ge=1)
    still_scenes: int | None = Field(default=None, ge=1)
    per_scene: int = Field(default=3, ge=1)
    slips: float = Field(default=0.0, ge=0.0, le=1.0)
    rig: int = Field(default=0, ge=0)
    seed: Seed = 0

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.episodes is None) == (self.still_scenes is None):
            raise ValueError(f"recording of {self.plugin}: give either episodes or still_scenes")
        fields = type(self).model_fields
        idle = [name for name in ("per_scene", "slips") if getattr(self, name) != fields[name].default]
        if self.still_scenes is not None and idle:
            raise ValueError(f"recording of {self.plugin}: still scenes have no {' and no '.join(idle)}")
        return self


class Base(StrictModel):
    """A base by name: pretrained here from a recipe (relative to the study's file), or one that exists.

    Attributes:
        untrained: The recipe's base before its first step, for adapting from scratch.
        set: Changes to the recipe's values by field, as `model.strategy: action_heads`.
    """

    recipe: Path | None = None
    folder: str | None = None
    untrained: bool = False
    set: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.recipe is None) == (self.folder is None):
            raise ValueError("a base has either a recipe or a folder")
        if (self.untrained or self.set) and self.recipe is None:
            raise ValueError("a base that is untrained, or sets values, has a recipe")
        try:
            json.dumps(self.set, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError("`set` holds a value that is no text, finite number, list or mapping") from None
        return self


class Rung(StrictModel):
    """A way to adapt: the base's own stages, or a plan (relative to the study's file).

    Attributes:
        untouched: Nothing is learned: the base drives the robot from the rows of its nearest robot.
    """

    then: Then | None = None
    plan: Path | None = None
    untouched: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum((self.then is not None, self.plan is not None, self.untouched)) != 1:
            raise ValueError("a rung is one of: then, plan, untouched")
        return self


class Cells(StrictModel):
    """Cells of the study: the product of these lists, for every held-out robot. Equal cells are run once."""

    bases: tuple[str, ...] = Field(min_length=1)
    rungs: tuple[str, ...] = Field(min_length=1)
    demonstrations: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(50,), min_length=1)
    inits: tuple[str, ...] = Field(default=("nearest",), min_length=1)
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)


class ClosedLoop(StrictModel):
    """How success is counted: the options of `xvla eval --closed-loop` by their names."""

    tasks: tuple[str, ...] = Field(min_length=1)
    episodes: int = Field(ge=1)
    seed: Seed = 100_000
    execute_s: float | None = Field(default=None, gt=0)
    time_limit: float | None = Field(default=None, gt=0)
    sampler: str = "exact"
    films: int = Field(default=1, ge=0)


class Forgetting(StrictModel):
    """Pretraining robots that are driven again by an adaptation's weights, from their own rows."""

    robots: tuple[Name, ...] = Field(min_length=1)
    rungs: tuple[str, ...] = Field(min_length=1)
    episodes: int = Field(ge=1)


class Ablation(StrictModel):
    """Rungs whose inputs are changed one at a time, in closed loop."""

    rungs: tuple[str, ...] = Field(min_length=1)
    inputs: str = "prompt,vision,language"
    episodes: int = Field(ge=1)


class StudySpec(StrictModel):
    """One study.

    Attributes:
        plugins: Folder of the robots' plugins, relative to the study's file.
        held_out: Plugins that no base was pretrained on.
        accept: Findings of `xvla check` that the robots may have.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    description: str
    plugins: Path
    recordings: tuple[Recording, ...] = ()
    bases: dict[Name, Base] = Field(min_length=1)
    held_out: tuple[Name, ...] = Field(min_length=1)
    accept: tuple[str, ...] = ()
    rungs: dict[Name, Rung] = Field(min_length=1)
    cells: tuple[Cells, ...] = Field(min_length=1)
    closed_loop: ClosedLoop
    forgetting: Forgetting | None = None
    ablation: Ablation | None = None

    @model_validator(mode="after")
    def _names(self) -> Self:
        for cells in self.cells:
            _known("bases", cells.bases, self.bases)
            _known("rungs", cells.rungs, self.rungs)
        used = {rung for cells in self.cells for rung in cells.rungs}
        for part in (self.forgetting, self.ablation):
            if part is not None:
                _known("rungs", part.rungs, self.rungs)
                idle = [rung for rung in part.rungs if rung not in used]
                if idle:
                    raise ValueError(f"rungs: no cell has {idle[0]!r}, which forgetting or ablation asks for")
        parts = [(part.plugin, part.still_scenes is None, part.rig) for part in self.recordings]
        if len(set(parts)) < len(parts):
            raise ValueError("recordings: two of one robot, kind and rig would lie in one folder")
        return self


def _known(field: str, names: tuple[str, ...], allowed: dict[str, Base] | dict[str, Rung]) -> None:
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ValueError(f"{field}: unknown {unknown[0]!r}; allowed: {', '.join(allowed)}")


def load_study(file: Path) -> StudySpec:
    """Read and check a study."""
    return load_model(StudySpec, file)
