"""What an adaptation is measured by: predictions on the test episodes, baselines, and the validation error.

The test episodes give every reported number, once a rung. The validation episodes choose the checkpoint.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.adapt.features import encode_source
from xvla_platform.adapt.load import Loaded, LoadedRobot
from xvla_platform.adapt.sources import Source, take
from xvla_platform.evaluation.baselines import hold_still, mean_action, nearest_demonstration
from xvla_platform.evaluation.open_loop import field_errors, predict_chunks, relative_error
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.specs.plan import Stage

EVAL_SEED = 0  # noise of every reported number
VALIDATION_SAMPLES = 192


def predict(model: XVLA, robot: LoadedRobot) -> NDArray[np.float32]:
    """Test chunks [n, T, dim] of the model as it stands."""
    source = robot.splits["test"].source
    assert source.features is not None
    return predict_chunks(
        model, features=source.features, proprio=source.proprio, domain_id=robot.domain_id, seed=EVAL_SEED
    )


def baselines(robot: LoadedRobot) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Errors of the baselines on the test episodes, and the reference that validation errors are divided by."""
    binding, train = robot.binding, robot.train
    test, validation = robot.splits["test"].source, robot.splits["validation"].source
    horizon = train.action.shape[1]
    results: dict[str, dict[str, float]] = {}
    still = hold_still(binding, test.proprio.numpy(), horizon)
    if still is not None:
        results["hold still"] = field_errors(binding, still, robot.target)
    mean = mean_action(train.action.numpy(), len(test))
    results["mean action"] = field_errors(binding, mean, robot.target)
    nearest = nearest_demonstration(
        train.proprio.numpy(),
        train.action.numpy(),
        _instructions(train),
        test.proprio.numpy(),
        _instructions(test),
    )
    results["nearest demonstration"] = field_errors(binding, nearest, robot.target)
    constant = mean_action(train.action.numpy(), len(validation))
    return results, field_errors(binding, constant, validation.action.numpy())


def _instructions(source: Source) -> NDArray[Any]:
    """One comparable label per sample, equal where the token ids are."""
    labels = np.array([",".join(map(str, row)) for row in source.tokens.tolist()])
    return labels[source.instruction_of.numpy()]


def validator(
    loaded: Loaded, stage: Stage, references: Mapping[str, Mapping[str, float]], scratch: Path
) -> Callable[[], dict[str, float]]:
    """The validation error by robot: mean over fields of error / the mean action's error, on evenly spaced frames."""
    each = {
        robot.name: _validator(loaded, robot, stage, references[robot.name], scratch / robot.name)
        for robot in loaded.robots
    }
    return lambda: {name: error() for name, error in each.items()}


def _validator(
    loaded: Loaded, robot: LoadedRobot, stage: Stage, reference: Mapping[str, float], scratch: Path
) -> Callable[[], float]:
    full = robot.splits["validation"].source
    rows = np.unique(np.linspace(0, len(full) - 1, VALIDATION_SAMPLES).astype(int))
    part = take(full, rows)

    def error() -> float:
        features = part.features
        if stage.name in loaded.in_loop:
            features = encode_source(loaded.model, part, robot.processor, scratch / "validation-now")
        assert features is not None
        predicted = predict_chunks(
            loaded.model, features=features, proprio=part.proprio, domain_id=robot.domain_id, seed=EVAL_SEED
        )
        return relative_error(field_errors(robot.binding, predicted, part.action.numpy()), reference)

    return error
