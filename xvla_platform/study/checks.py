"""What a study's file names, held against what there is before its first step: one hours later would say it too late.

Names inside the file are `spec.py`'s; here are those of plugins, plans, pretrained robots, inputs and recordings.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from xvla_platform.closed_loop.conditions import parse
from xvla_platform.data.samples import training_episodes
from xvla_platform.errors import XvlaError
from xvla_platform.platform.bases import resolve_base
from xvla_platform.platform.embodiments import open_data
from xvla_platform.platform.plugins import LoadedPlugin, load_plugin
from xvla_platform.specs.base import read_yaml, validate_model
from xvla_platform.specs.plan import AdaptationPlan
from xvla_platform.specs.recipe import load_recipe
from xvla_platform.study.spec import Base, StudySpec


def check_study(study: StudySpec, file: Path) -> None:
    """Refuse what no step could do; `file` is the study's own, which its other files lie relative to."""
    for name, rung in study.rungs.items():
        if rung.plan is not None:
            plan = file.parent / rung.plan
            if not plan.is_file():
                raise XvlaError("no such plan", file=file, field=f"rungs.{name}.plan", found=str(rung.plan))
            validate_model(AdaptationPlan, read_yaml(plan), plan)
    if study.ablation is not None:
        try:
            parse(study.ablation.inputs)
        except XvlaError as error:
            raise XvlaError(
                error.message, file=file, field="ablation.inputs", found=error.found, allowed=error.allowed
            ) from None
    plugins: dict[str, LoadedPlugin] = {}
    for robot, field in _robots(study):
        if robot not in plugins:
            plugins[robot] = _plugin(study, file, robot, field)
    _check_forgetting(study, file)
    for robot in study.held_out:
        _check_demonstrations(study, file, plugins[robot], robot)


def _robots(study: StudySpec) -> Iterator[tuple[str, str]]:
    yield from ((part.plugin, f"recordings[{i}].plugin") for i, part in enumerate(study.recordings))
    yield from ((robot, f"held_out[{i}]") for i, robot in enumerate(study.held_out))
    if study.forgetting is not None:
        yield from ((robot, f"forgetting.robots[{i}]") for i, robot in enumerate(study.forgetting.robots))


def _plugin(study: StudySpec, file: Path, robot: str, field: str) -> LoadedPlugin:
    folder = (file.parent / study.plugins).resolve() / robot
    if not (folder / "plugin.yaml").is_file():
        raise XvlaError("no such plugin", file=file, field=field, found=str(folder))
    return load_plugin(folder)


def _check_forgetting(study: StudySpec, file: Path) -> None:
    """Every base that is asked what it forgot has learned the robots that it is asked about."""
    forgetting = study.forgetting
    if forgetting is None:
        return
    asked = {base for cells in study.cells if {*cells.rungs} & {*forgetting.rungs} for base in cells.bases}
    for name in sorted(asked):
        learned = _learned(name, study.bases[name], file)
        strange = [] if learned is None else [robot for robot in forgetting.robots if robot not in learned]
        if strange:
            raise XvlaError(
                f"the base {name} was not trained on this robot",
                file=file,
                field="forgetting.robots",
                found=strange[0],
                allowed=sorted(learned or ()),
            )


def _learned(name: str, base: Base, file: Path) -> set[str] | None:
    """Names of the robots that a base is trained on; None where that is known only once it has been fetched."""
    if base.recipe is not None:
        changes = [f"{field}={json.dumps(value, ensure_ascii=False)}" for field, value in base.set.items()]
        recipe, _ = load_recipe(file.parent / base.recipe, changes)
        return set() if base.untrained else {domain.name for domain in recipe.domains}
    assert base.folder is not None
    return set(resolve_base(base.folder).used_domains.values()) if Path(base.folder).is_dir() else None


def _check_demonstrations(study: StudySpec, file: Path, plugin: LoadedPlugin, robot: str) -> None:
    """No cell learns from more demonstrations than there are, those held out apart."""
    wanted = {
        f"cells[{i}].demonstrations": max(cells.demonstrations)
        for i, cells in enumerate(study.cells)
        if not all(study.rungs[rung].untouched for rung in cells.rungs)
    }
    counts = [part.episodes for part in study.recordings if part.plugin == robot and part.episodes and not part.rig]
    if counts:
        recorded = counts[0]
    elif plugin.spec.dataset.repo is None:
        recorded = len(open_data(plugin.spec, plugin.folder).episodes)
    else:
        return  # known once it has been fetched
    there = len(training_episodes(recorded, plugin.spec.dataset.held_out))
    for field, count in wanted.items():
        if count > there:
            raise XvlaError(
                f"{robot} has not so many demonstrations to learn from",
                file=file,
                field=field,
                found=count,
                allowed=f"at most {there} of {recorded} recorded, as the others are held out",
            )
