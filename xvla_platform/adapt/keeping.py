"""Which weights a stage leaves: those of the lowest validation error, each robot's own where robots share nothing.

In: the validation error of every robot, again and again. Out: the weights that were best. While a run trains slots
alone, each robot keeps the rows of its own best measurement, as in a run of its own; as soon as robots share trained
weights, the mean of their errors decides for all of them together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from xvla_platform.adapt.trainables import Trainable

TOGETHER = "together"


def new_state() -> dict[str, Any]:
    """What a checkpoint keeps of this: lowest error and its step, by robot or `together`."""
    return {"best_error": {}, "best_step": {}, "elapsed_s": 0.0}


def keep_best(
    errors: Mapping[str, float],
    done: int,
    *,
    trainables: Sequence[Trainable],
    owners: Mapping[str, str],
    state: dict[str, Any],
    best: dict[str, Tensor],
) -> None:
    """Copy into `best` what was never better than at step `done`, and note it in `state`.

    Args:
        errors: Validation error by robot. owners: Robot by the name of its own parameters.
    """
    apart = len(errors) > 1 and all(t.name in owners for t in trainables)
    judged = errors if apart or len(errors) == 1 else {TOGETHER: sum(errors.values()) / len(errors)}
    for robot, error in judged.items():
        if robot in state["best_error"] and error >= state["best_error"][robot]:
            continue
        state["best_error"] = {**state["best_error"], robot: error}
        state["best_step"] = {**state["best_step"], robot: done}
        for trainable in trainables:
            if not apart or owners[trainable.name] == robot:
                best[trainable.name] = trainable.parameter.detach().clone()
