"""A study as a list of `xvla` commands: what each needs, and which must not run beside each other.

In: a `StudySpec` and the study's folder. Out: steps in an order in which they can run. Below the folder, `plugins/`
holds the robots with their recordings, `bases/` what was pretrained, and every base has a workspace of its own.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

from xvla_platform.errors import XvlaError
from xvla_platform.sim.folders import DEMONSTRATIONS, STILL_SCENES, rig_of
from xvla_platform.specs.recipe import load_recipe
from xvla_platform.study.spec import Base, Cells, Recording, Rung, StudySpec

LABEL = "{adaptation}"  # stands for the version that the first step in `needs` registered
PRETRAIN = "pretrain"  # the lane of pretraining


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of the study.

    Attributes:
        id: Also the name of its files. words: What follows `xvla`.
        needs: Ids of the steps that must be done before.
        lane: Steps of one lane run one after another: they write to the same place.
        about: What results tell of it: robot, base, rung, demonstrations, init, seed.
    """

    id: str
    words: tuple[str, ...]
    needs: tuple[str, ...]
    lane: str
    about: dict[str, Any]

    @property
    def together(self) -> bool:
        """Whether all workers share this step, as the processes of one launch."""
        return self.lane == PRETRAIN


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One way to get a policy for one robot."""

    base: str
    robot: str
    rung: str
    demonstrations: int
    init: str
    seed: int

    @property
    def id(self) -> str:
        """Also tells cells apart: what does not matter to a rung is not in its name."""
        return f"{self.base}.{self.robot}.{self.rung}-d{self.demonstrations}-{self.init}-s{self.seed}"


def steps_of(study: StudySpec, file: Path, folder: Path) -> list[Step]:
    """Every step, those that others need first.

    Args:
        file: The study's own file; its recipes and plans lie relative to it.
    """
    out = list(_recordings(study, folder))
    recorded = {step.id for step in out}
    for name, base in study.bases.items():
        if base.recipe is not None:
            out.append(_pretraining(name, base, file.parent / base.recipe, folder, recorded))
    cells = list(_cells(study))
    for name in dict.fromkeys(cell.base for cell in cells):
        out += _registrations(study, folder, name, recorded)
    closer = _closer_looks(cells)
    for cell in cells:
        out += _cell_steps(study, file, folder, cell, closer=cell in closer)
    for on, rung in dict.fromkeys((cell.base, cell.rung) for cell in cells):
        if study.forgetting is not None and rung in study.forgetting.rungs and study.rungs[rung].untouched:
            out += _untouched_robots(study, folder, on, rung)
    return out


def chosen(steps: Sequence[Step], pattern: str | None) -> list[Step]:
    """The steps whose id fits a shell pattern, with all that they need; without one all."""
    if pattern is None:
        return list(steps)
    by_id = {step.id: step for step in steps}
    wanted = [step.id for step in steps if fnmatchcase(step.id, pattern)]
    if not wanted:
        raise XvlaError("no step of that name", field="only", found=pattern, allowed=list(by_id))
    taken: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in taken:
            taken.add(name)
            wanted += by_id[name].needs
    return [step for step in steps if step.id in taken]


def _step(name: str, words: tuple[str, ...], needs: tuple[str, ...], lane: str, **about: Any) -> Step:
    return Step(id=name, words=words, needs=needs, lane=lane, about=about)


def _recordings(study: StudySpec, folder: Path) -> Iterator[Step]:
    for part in study.recordings:
        kind = DEMONSTRATIONS if part.still_scenes is None else STILL_SCENES
        words = ("record", str(folder / "plugins" / part.plugin), *_amount(part), "--task", part.task)
        words += ("--seed", str(part.seed), *(("--rig", str(part.rig)) if part.rig else ()), "--overwrite")
        name = f"record.{part.plugin}.{kind}" + (f".rig{part.rig}" if part.rig else "")
        yield _step(name, words, (), name, robot=part.plugin, rig=part.rig)


def _recorded_by(plugin: str, data: str | None) -> str:
    """The step that records a domain's dataset."""
    folder = Path(data or DEMONSTRATIONS)
    rig = rig_of(folder)
    kind = STILL_SCENES if folder.name == STILL_SCENES else DEMONSTRATIONS
    return f"record.{Path(plugin).name}.{kind}" + (f".rig{rig}" if rig else "")


def _pretraining(name: str, base: Base, recipe_file: Path, folder: Path, recorded: set[str]) -> Step:
    # Bases of one recipe have a run each, by its name.
    values = {"name": name, **base.set} if base.set else {}
    changes = [f"{field}={json.dumps(value, ensure_ascii=False)}" for field, value in values.items()]
    recipe, _ = load_recipe(recipe_file, changes)
    known = dict.fromkeys(_recorded_by(domain.plugin, domain.data) for domain in recipe.domains)
    words = ["pretrain", str(recipe_file), "--out", str(folder / "bases" / name)]
    words += ["--untrained"] if base.untrained else []
    words += [word for change in changes for word in ("--set", change)]
    needs = tuple(step for step in known if step in recorded)
    return _step(f"pretrain.{name}", (*words, "--workspace", str(folder)), needs, PRETRAIN, base=name)


def _amount(part: Recording) -> tuple[str, ...]:
    if part.still_scenes is not None:
        return ("--still-scenes", str(part.still_scenes))
    slips = ("--slips", f"{part.slips:g}") if part.slips else ()
    return ("--episodes", str(part.episodes), "--per-scene", str(part.per_scene), *slips)


def _registrations(study: StudySpec, folder: Path, base: str, recorded: set[str]) -> Iterator[Step]:
    """Each robot that is driven, on this base."""
    declared = study.bases[base]
    made = (f"pretrain.{base}",) if declared.recipe is not None else ()
    where = declared.folder if declared.folder is not None else str(folder / "bases" / base)
    seen = study.forgetting.robots if study.forgetting is not None else ()
    for robot in (*study.held_out, *seen):
        needs = (*made, *({_recorded_by(robot, None)} & recorded))
        accepted = (word for code in study.accept for word in ("--accept", code))
        words = ("add-embodiment", str(folder / "plugins" / robot), "--base", where, *accepted)
        yield _step(f"add.{base}.{robot}", (*words, *_place(folder, base)), needs, f"add.{base}", robot=robot)


def _cells(study: StudySpec) -> Iterator[Cell]:
    """Each cell once, robots outermost."""
    seen: set[str] = set()
    for robot in study.held_out:
        for block in study.cells:
            for cell in _block(block, robot, study):
                if cell.id not in seen:
                    seen.add(cell.id)
                    yield cell


def _block(block: Cells, robot: str, study: StudySpec) -> Iterator[Cell]:
    for base, rung, count, init, seed in product(
        block.bases, block.rungs, block.demonstrations, block.inits, block.seeds
    ):
        if study.rungs[rung].untouched:
            count, seed = 0, 0
        yield Cell(base=base, robot=robot, rung=rung, demonstrations=count, init=init, seed=seed)


def _cell_steps(study: StudySpec, file: Path, folder: Path, cell: Cell, *, closer: bool) -> Iterator[Step]:
    rung, about, place = study.rungs[cell.rung], vars(cell), _place(folder, cell.base)
    lane, added = f"{cell.base}.{cell.robot}", (f"add.{cell.base}.{cell.robot}",)

    def step(kind: str, words: tuple[str, ...], needs: tuple[str, ...], **more: Any) -> Step:
        return _step(f"{kind}.{cell.id}", (*words, *place), needs, lane, **about, **more)

    if not rung.untouched:
        yield step("adapt", _adapting(rung, file, cell), added)
    target = (f"{cell.robot}/base", "--init", cell.init) if rung.untouched else (LABEL,)
    needs = added if rung.untouched else (f"adapt.{cell.id}",)
    yield step("eval", ("eval", *target, *_acting(study, study.closed_loop.episodes)), needs)
    if not closer:
        return
    ablation, forgetting = study.ablation, study.forgetting
    if ablation is not None and cell.rung in ablation.rungs:
        words = ("eval", *target, *_acting(study, ablation.episodes), "--ablate", ablation.inputs)
        yield step("ablate", words, needs)
    if forgetting is not None and cell.rung in forgetting.rungs and not rung.untouched:
        for robot in forgetting.robots:
            words = ("eval", LABEL, "--robot", robot, *_acting(study, forgetting.episodes))
            required = (*needs, f"add.{cell.base}.{robot}")
            forgot = step("forget", words, required, driven=robot)
            # Evaluations that drive one robot number their folders in one place.
            yield replace(forgot, id=f"{forgot.id}.{robot}", lane=f"{cell.base}.driven.{robot}")


def _untouched_robots(study: StudySpec, folder: Path, base: str, rung: str) -> Iterator[Step]:
    """What the base does with its own robots before anything is adapted, which no held-out robot has a part in."""
    assert study.forgetting is not None
    for robot in study.forgetting.robots:
        words = ("eval", f"{robot}/base", *_acting(study, study.forgetting.episodes), *_place(folder, base))
        about = {"base": base, "robot": "", "rung": rung, "driven": robot}
        yield _step(f"forget.{base}.{rung}.{robot}", words, (f"add.{base}.{robot}",), f"{base}.driven.{robot}", **about)


def _closer_looks(cells: Sequence[Cell]) -> set[Cell]:
    """The cells that are also looked at for forgetting and ablation: of each base, robot and rung the one that learned
    from most, among those of the first start and seed that it has.
    """
    out: dict[tuple[str, str, str], Cell] = {}
    for cell in cells:
        key = (cell.base, cell.robot, cell.rung)
        first = out.setdefault(key, cell)
        if (cell.init, cell.seed) == (first.init, first.seed) and cell.demonstrations > first.demonstrations:
            out[key] = cell
    return set(out.values())


def _adapting(rung: Rung, file: Path, cell: Cell) -> tuple[str, ...]:
    plan = file.parent / str(rung.plan)
    way = ("--then", str(rung.then)) if rung.then is not None else ("--plan", str(plan))
    amount = ("--demonstrations", str(cell.demonstrations))
    start = ("--init", cell.init, "--seed", str(cell.seed))
    return ("adapt", "--embodiment", cell.robot, *way, *start, *amount)


def _acting(study: StudySpec, episodes: int) -> tuple[str, ...]:
    loop = study.closed_loop
    words: tuple[str, ...] = ("--closed-loop", "--tasks", ",".join(loop.tasks), "--episodes", str(episodes))
    words += ("--seed", str(loop.seed), "--films", str(loop.films), "--sampler", loop.sampler)
    limits = {"--execute-s": loop.execute_s, "--time-limit": loop.time_limit}
    return (*words, *(word for name, value in limits.items() if value is not None for word in (name, f"{value:g}")))


def _place(folder: Path, base: str) -> tuple[str, str]:
    return "--workspace", str(folder / "workspaces" / base)
