"""Which weights a stage leaves: those of the lowest validation error, each robot's own where robots share nothing.

In: the validation error of every robot, again and again. Out: the weights that were best. While a run trains slots
alone, each robot keeps the rows of its own best measurement, as in a run of its own; as soon as robots share trained
weights, the mean of their errors decides for all of them together. A stage that keeps its last weights measures them
all the same, and what was measured last replaces what was before.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from xvla_platform.adapt.trainables import Trainable


def new_state() -> dict[str, Any]:
    """What a checkpoint keeps of this: error of the kept weights and their step, by robot."""
    return {"best_error": {}, "best_step": {}, "elapsed_s": 0.0}


def keep_weights(
    errors: Mapping[str, float],
    done: int,
    *,
    which: Literal["best", "last"],
    trainables: Sequence[Trainable],
    owners: Mapping[str, str],
    state: dict[str, Any],
    kept: dict[str, Tensor],
) -> None:
    """Copy into `kept` what was never better than at step `done` (or all of it), and note it in `state`.

    Args:
        errors: Validation error by robot. owners: Robot by the name of its own parameters.
    """
    apart = len(errors) > 1 and all(t.name in owners for t in trainables)
    if which == "last":
        better = set(errors)
    elif apart:
        better = {robot for robot, error in errors.items() if _better([error], [state["best_error"].get(robot)])}
    else:
        before = [state["best_error"].get(robot) for robot in errors]
        better = set(errors) if _better(list(errors.values()), before) else set()
    state["best_error"] = {robot: errors[robot] if robot in better else state["best_error"][robot] for robot in errors}
    state["best_step"] = {robot: done if robot in better else state["best_step"][robot] for robot in errors}
    for trainable in trainables:
        if owners[trainable.name] in better if apart else better:
            kept[trainable.name] = trainable.parameter.detach().clone()


def _better(errors: Sequence[float], before: Sequence[float | None]) -> bool:
    """Whether the sum of errors fell, or is the first; an error that is no number is above all others."""
    known = [error for error in before if error is not None]
    return len(known) < len(errors) or _sum(errors) < _sum(known)


def _sum(errors: Sequence[float]) -> float:
    total = sum(errors)
    return math.inf if math.isnan(total) else total
