"""From a model-ready observation to an action chunk, as a policy computes it with one of its samplers."""

from collections.abc import Callable

from numpy.typing import NDArray
from torch import Tensor

from xvla_platform.modelling.sampling import find_sampler
from xvla_platform.modelling.xvla import XVLA
from xvla_platform.policy.mode import Mode

NOISE_SEED = 1  # the peer's noise is drawn from the same seed, so that chunks can be compared


def chunk_maker(model: XVLA, sampler: str, domain_id: int, inputs: dict[str, Tensor]) -> Callable[[], NDArray]:
    """A function that looks at the one observation of `inputs` and answers with its chunk [1, T, A]."""
    mode = Mode(model, find_sampler(sampler), domain_id)
    views = [view.cpu().numpy() for view in inputs["pixel_values"][0]]

    def make() -> NDArray:
        from torch import from_numpy

        features = mode.encode(views, from_numpy, inputs["input_ids"])
        return mode.chunks(features, inputs["proprio"], seed=NOISE_SEED)

    return make
