"""Which plan a run follows, and where each of its choices came from.

Order: `--plan` (a file, or the name of a contributed plan), else the base's own `adaptation.yaml`, else the built-in
recipe; single flags on top. Every choice is returned with its source, to be printed before compute is spent.
"""

from pathlib import Path
from typing import Any

from xvla_platform.adapt.initialise import as_prompt
from xvla_platform.errors import XvlaError
from xvla_platform.platform.plugins import build_manager, contributions
from xvla_platform.specs.base import read_yaml, validate_model
from xvla_platform.specs.plan import AdaptationPlan, Then

BASE_PLANS = "adaptation.yaml"
FILES = (".yaml", ".yml")


def choose_plan(
    base_folder: Path,
    *,
    then: Then,
    plan: Path | None = None,
    plugin: Path | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    start: str | None = None,
    demonstrations: int | None = None,
) -> tuple[AdaptationPlan, str]:
    """The plan and a line that says where it came from.

    Args:
        then: What follows the prompt-only stage.
        plan: A file written by the user, or the name of a plan that a plugin contributes.
        plugin: Folder of the robot's plugin, whose own code may contribute one.
        steps: Steps of every stage; a longer warm-up is shortened with it.
        start: How the slot starts, as `as_prompt` reads it.
        demonstrations: Episodes of the training split to learn from.
    """
    data, source = _origin(base_folder, then, plan, plugin)
    changed = []
    for stage in data["stages"]:
        if steps is not None:
            stage["steps"] = steps
            stage["warmup_steps"] = min(int(stage.get("warmup_steps", 100)), steps // 4)
            stage["eval_every"] = min(int(stage.get("eval_every", 200)), steps)
        if batch_size is not None:
            stage["batch_size"] = batch_size
    flags = {"steps": steps, "batch-size": batch_size, "seed": seed, "init": start, "demonstrations": demonstrations}
    changed += [f"--{flag} {value}" for flag, value in flags.items() if value is not None]
    if seed is not None:
        data["seed"] = seed
    if demonstrations is not None:
        data["demonstrations"] = demonstrations
    if start is not None:
        data["start"] = as_prompt(start, "--init").model_dump(mode="json")
    source += f", with {', '.join(changed)}" if changed else ""
    return validate_model(AdaptationPlan, data, plan or "plan"), source


def _origin(base_folder: Path, then: Then, plan: Path | None, plugin: Path | None) -> tuple[dict[str, Any], str]:
    if plan is not None and (plan.suffix in FILES or plan.is_file()):
        return validate_model(AdaptationPlan, read_yaml(plan), plan).model_dump(mode="json"), f"{plan}"
    plans = contributions(build_manager(plugin), "register_plans")
    if plan is not None:
        if str(plan) not in plans:
            raise XvlaError(
                "neither a file nor the name of a plan", field="--plan", found=str(plan), allowed=sorted(plans)
            )
        return plans[str(plan)].load()().model_dump(mode="json"), f"plan {plan}"
    own = base_folder / BASE_PLANS
    if own.is_file():
        stages = read_yaml(own)
        if not isinstance(stages, dict) or then not in {"none", *stages} or "prompt" not in stages:
            raise XvlaError("holds no stage for this plan", file=own, found=then)
        chosen = [stages["prompt"], *([stages[then]] if then != "none" else [])]
        found = validate_model(AdaptationPlan, {"name": f"prompt-{then}", "stages": chosen}, own)
        return found.model_dump(mode="json"), f"the base's {BASE_PLANS}"
    return plans[f"prompt-{then}"].load()().model_dump(mode="json"), "the built-in recipe"
