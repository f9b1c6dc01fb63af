"""Which plan a run follows, and where each of its choices came from.

Order: `--plan FILE`, else the base's own `adaptation.yaml`, else the built-in recipe; single flags on top. Every
choice is returned with its source, so that it can be printed before compute is spent.
"""

from pathlib import Path
from typing import Any

from xvla_platform.adapt.initialise import as_prompt
from xvla_platform.errors import XvlaError
from xvla_platform.platform.plugins import build_manager, contributions
from xvla_platform.specs.base import read_yaml, validate_model
from xvla_platform.specs.plan import AdaptationPlan, Then

BASE_PLANS = "adaptation.yaml"


def choose_plan(
    base_folder: Path,
    *,
    then: Then,
    file: Path | None = None,
    named: str | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    start: str | None = None,
    demonstrations: int | None = None,
) -> tuple[AdaptationPlan, str]:
    """The plan and a line that says where it came from.

    Args:
        then: What follows the prompt-only stage.
        file: A plan written by the user. named: A plan contributed by a plugin.
        steps: Steps of every stage; a longer warm-up is shortened with it.
        start: How the slot starts, as `as_prompt` reads it.
        demonstrations: Episodes of the training split to learn from.
    """
    data, source = _origin(base_folder, then, file, named)
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
    plan = validate_model(AdaptationPlan, data, file or "plan")
    return plan, source + (f", with {', '.join(changed)}" if changed else "")


def _origin(base_folder: Path, then: Then, file: Path | None, named: str | None) -> tuple[dict[str, Any], str]:
    if file is not None:
        data = read_yaml(file)
        return validate_model(AdaptationPlan, data, file).model_dump(mode="json"), f"{file}"
    plans = contributions(build_manager(), "register_plans")
    if named is not None:
        if named not in plans:
            raise XvlaError("no plan of that name", field="--plan", found=named, allowed=sorted(plans))
        return plans[named].load()().model_dump(mode="json"), f"plan {named}"
    own = base_folder / BASE_PLANS
    if own.is_file():
        stages = read_yaml(own)
        if not isinstance(stages, dict) or then not in {"none", *stages} or "prompt" not in stages:
            raise XvlaError("holds no stage for this plan", file=own, found=then)
        chosen = [stages["prompt"], *([stages[then]] if then != "none" else [])]
        plan = validate_model(AdaptationPlan, {"name": f"prompt-{then}", "stages": chosen}, own)
        return plan.model_dump(mode="json"), f"the base's {BASE_PLANS}"
    return plans[f"prompt-{then}"].load()().model_dump(mode="json"), "the built-in recipe"
