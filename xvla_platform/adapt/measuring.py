"""What an adaptation is measured by: predictions on the test episodes, baselines, and the validation error.

The test episodes give every reported number, once a rung. The validation episodes choose the checkpoint.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.adapt.features import encode_source
from xvla_platform.adapt.initialise import Initialisation
from xvla_platform.adapt.robot_data import Split
from xvla_platform.adapt.sources import Source, take
from xvla_platform.data.binding import Binding
from xvla_platform.evaluation.baselines import hold_still, mean_action, nearest_demonstration
from xvla_platform.evaluation.open_loop import field_errors, predict_chunks, relative_error
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.specs.plan import Stage

EVAL_SEED = 0  # noise of every reported number
VALIDATION_SAMPLES = 192


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The base, the robot's data and how they meet.

    Attributes:
        in_loop: Names of the stages that train the encoder.
    """

    model: XVLA
    processor: Processor
    binding: Binding
    splits: dict[str, Split]
    initial: Initialisation
    in_loop: frozenset[str]

    @property
    def target(self) -> NDArray[np.float32]:
        """Recorded test chunks [n, T, dim]."""
        return self.splits["test"].source.action.numpy()


def predict(loaded: Loaded, domain: int) -> NDArray[np.float32]:
    """Test chunks [n, T, dim] of the model as it stands."""
    source = loaded.splits["test"].source
    assert source.features is not None
    return predict_chunks(
        loaded.model, features=source.features, proprio=source.proprio, domain_id=domain, seed=EVAL_SEED
    )


def baselines(loaded: Loaded) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Errors of the baselines on the test episodes, and the reference that validation errors are divided by."""
    binding, train = loaded.binding, loaded.splits["train"].source
    test, validation = loaded.splits["test"].source, loaded.splits["validation"].source
    horizon = train.action.shape[1]
    results: dict[str, dict[str, float]] = {}
    still = hold_still(binding, test.proprio.numpy(), horizon)
    if still is not None:
        results["hold still"] = field_errors(binding, still, loaded.target)
    mean = mean_action(train.action.numpy(), len(test))
    results["mean action"] = field_errors(binding, mean, loaded.target)
    nearest = nearest_demonstration(
        train.proprio.numpy(),
        train.action.numpy(),
        _instructions(train),
        test.proprio.numpy(),
        _instructions(test),
    )
    results["nearest demonstration"] = field_errors(binding, nearest, loaded.target)
    constant = mean_action(train.action.numpy(), len(validation))
    return results, field_errors(binding, constant, validation.action.numpy())


def _instructions(source: Source) -> NDArray[Any]:
    """One comparable label per sample, equal where the token ids are."""
    labels = np.array([",".join(map(str, row)) for row in source.tokens.tolist()])
    return labels[source.instruction_of.numpy()]


def validator(
    loaded: Loaded, stage: Stage, domain: int, reference: Mapping[str, float], scratch: Path
) -> Callable[[], dict[str, float]]:
    """The validation error by robot: mean over fields of error / the mean action's error, on evenly spaced frames."""
    full = loaded.splits["validation"].source
    rows = np.unique(np.linspace(0, len(full) - 1, VALIDATION_SAMPLES).astype(int))
    part = take(full, rows)

    def error() -> dict[str, float]:
        features = part.features
        if stage.name in loaded.in_loop:
            features = encode_source(loaded.model, part, loaded.processor, scratch / "validation-now")
        assert features is not None
        predicted = predict_chunks(
            loaded.model, features=features, proprio=part.proprio, domain_id=domain, seed=EVAL_SEED
        )
        errors = field_errors(loaded.binding, predicted, part.action.numpy())
        return {part.name: relative_error(errors, reference)}

    return error
