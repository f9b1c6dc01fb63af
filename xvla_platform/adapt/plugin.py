"""The built-in adaptation plans, contributed through the same hook as anyone's."""

from collections.abc import Iterable

from xvla_platform.hooks import hookimpl
from xvla_platform.platform.hookspecs import Factory


@hookimpl
def register_plans() -> Iterable[Factory]:
    """The published recipe: a prompt-only stage, then LoRA, full tuning or nothing."""
    target = "xvla_platform.adapt.recipe:"
    return [
        Factory(name="prompt-none", target=target + "prompt_only", summary="Train the slot only."),
        Factory(
            name="prompt-lora", target=target + "then_lora", summary="The slot, then LoRA on the policy transformer."
        ),
        Factory(name="prompt-full", target=target + "then_full", summary="The slot, then all weights."),
    ]
