"""The promises of an adaptation plan that a plugin contributes."""

from xvla_platform.platform.hookspecs import Factory
from xvla_platform.specs.base import validate_model
from xvla_platform.specs.plan import AdaptationPlan
from xvla_platform.testing.conformance import promised, require


def assert_plan_conformant(factory: Factory) -> AdaptationPlan:
    """Build the plan behind a `Factory` and hold its promises; the plan is given back."""
    name = f"plan {factory.name}"
    with promised("KIT401", name):
        plan = factory.load()()
        require("KIT401", isinstance(plan, AdaptationPlan), f"a {type(plan).__name__}", name)
        read = validate_model(AdaptationPlan, plan.model_dump(mode="json"), name)
        require("KIT401", read == plan, "another plan after being written and read", name)
    with promised("KIT402", name):
        require("KIT402", factory.load()() == plan, "another one when asked again", name)
    first = plan.stages[0]
    require("KIT403", "soft_prompts" in first.lr, f"stage {first.name} trains {', '.join(first.lr)}", name)
    return plan
