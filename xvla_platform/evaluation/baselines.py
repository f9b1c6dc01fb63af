"""What a policy must beat: standing still, the mean action, and replaying the nearest demonstration.

Each returns model chunks [N, T, dim], measured exactly as the policy's.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.binding import Binding


def hold_still(binding: Binding, proprio: NDArray[Any], num_actions: int) -> NDArray[np.float32] | None:
    """The current state as every target; None where proprio does not hold every action field.

    Args:
        proprio: [N, dim] model units.
    """
    held = binding.hold(proprio)
    return None if held is None else np.repeat(held[:, None], num_actions, axis=1)


def mean_action(train_chunks: NDArray[Any], count: int) -> NDArray[np.float32]:
    """The mean training chunk [T, dim] for each of `count` frames."""
    return np.broadcast_to(train_chunks.mean(0), (count, *train_chunks.shape[1:])).astype(np.float32)


def nearest_demonstration(
    train_proprio: NDArray[Any],
    train_chunks: NDArray[Any],
    train_instructions: NDArray[Any],
    proprio: NDArray[Any],
    instructions: NDArray[Any],
) -> NDArray[np.float32]:
    """The chunk that followed the most similar training state, among those of the same instruction.

    Args:
        train_proprio: [M, dim]; distances are taken in units of each dim's standard deviation.
        train_instructions, instructions: One label per frame; an unseen one is matched against all frames.
    """
    spread = train_proprio.std(0)
    scale = np.where(spread > 1e-6, spread, np.inf)
    known, queries = train_proprio / scale, proprio / scale
    out = np.zeros((len(proprio), *train_chunks.shape[1:]), dtype=np.float32)
    for i, (query, instruction) in enumerate(zip(queries, instructions, strict=True)):
        same = np.flatnonzero(train_instructions == instruction)
        pool = same if len(same) else np.arange(len(known))
        out[i] = train_chunks[pool[np.square(known[pool] - query).sum(-1).argmin()]]
    return out
