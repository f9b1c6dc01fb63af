"""Samplers measured on a robot's own held-out frames: how long a chunk takes, and how far it is from the exact one.

In: a policy and the samples of whole episodes. Out: one `Compared` a sampler, the exact one first. Calls follow each
other as at deployment: an episode in order, half a chunk apart, each sampler asked in turn with the same noise, so
that what a machine does beside reaches all of them alike.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.samples import Samples
from xvla_platform.modelling.sampling import EXACT, Sampler
from xvla_platform.policy.policy import Observation, Policy

LARGEST_CALLS = 200
AGAIN = 5  # answers to an unchanged observation, where features are kept
CONSTANT = 1e-6  # a field whose numbers spread less than this has no spread to be measured by


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One sampler against the exact one.

    Attributes:
        ms, ms_p95: Milliseconds of `Policy.act`, median and 95th percentile.
        cpu_ms: Median processor time of it, which other work on the machine disturbs less.
        ms_unchanged: Median for an observation equal to the one before, where the sampler keeps features.
        ratio: How many times faster than exact, by the medians.
        deviation: By action field, (mean, 95th percentile) over frames of the distance to the exact chunk, in
            `Binding.error_units`.
        share: By action field, root mean square of the difference / standard deviation of the training actions.
        errors: Mean error against the recorded chunks by action field.
    """

    sampler: Sampler
    ms: float
    ms_p95: float
    cpu_ms: float
    ms_unchanged: float | None
    ratio: float
    deviation: Mapping[str, tuple[float, float]]
    share: Mapping[str, float]
    errors: Mapping[str, float]

    @property
    def worst_share(self) -> float:
        """The largest share over the fields."""
        return max(self.share.values())


def compare(
    policy: Policy,
    samples: Samples,
    train_chunks: NDArray[np.float32],
    samplers: Sequence[Sampler],
    *,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> list[Compared]:
    """Measure every sampler, and the exact one first whether or not it is among them.

    Args:
        samples: Held-out episodes. train_chunks: [M, T, dim] in model units, which give the standard deviations.
        progress: Called with the number of observations answered since the last call.
    """
    order = [EXACT, *(sampler for sampler in samplers if sampler != EXACT)]
    rows = call_rows(samples, policy)
    chunks: dict[Sampler, list[NDArray[np.float32]]] = {sampler: [] for sampler in order}
    spent: dict[Sampler, list[float]] = {sampler: [] for sampler in order}
    cpu: dict[Sampler, list[float]] = {sampler: [] for sampler in order}
    unchanged: dict[Sampler, float] = {}
    before, observation = -1, None
    for place, row in enumerate(rows):
        observation = observation_of(samples, int(row))
        if place == 0:
            for sampler in order:  # weights are converted, kernels chosen and graphs captured outside the clock
                policy.act(observation, seed=seed, sampler=sampler)
        if samples.episode_of[row] != before:
            policy.reset()
            before = int(samples.episode_of[row])
        for sampler in order:
            started, worked = time.perf_counter(), time.process_time()
            chunk = policy.act(observation, seed=seed + place, sampler=sampler)
            spent[sampler].append((time.perf_counter() - started) * 1000)
            cpu[sampler].append((time.process_time() - worked) * 1000)
            chunks[sampler].append(chunk.model)
        if progress is not None:
            progress(1)
    assert observation is not None
    for sampler in order:
        if sampler.reuse:
            unchanged[sampler] = _unchanged_ms(policy, observation, sampler, seed)
    target = samples.chunks(rows)
    exact = np.stack(chunks[EXACT])
    return [
        Compared(
            sampler=sampler,
            ms=median(spent[sampler]),
            ms_p95=float(np.percentile(spent[sampler], 95)),
            cpu_ms=median(cpu[sampler]),
            ms_unchanged=unchanged.get(sampler),
            ratio=median(spent[EXACT]) / median(spent[sampler]),
            **_distances(policy, np.stack(chunks[sampler]), exact, target, train_chunks),
        )
        for sampler in order
    ]


def call_rows(samples: Samples, policy: Policy) -> NDArray[np.int64]:
    """Rows at which a robot would ask: each episode from its start, half a chunk apart, up to `LARGEST_CALLS`."""
    spec = policy.record.spec
    stride = max(1, round(spec.horizon_s * spec.control_hz / 2))
    rows: list[int] = []
    for episode in dict.fromkeys(samples.episode_of.tolist()):
        rows += np.flatnonzero(samples.episode_of == episode)[::stride].tolist()
    return np.array(rows[:LARGEST_CALLS], dtype=np.int64)


def observation_of(samples: Samples, row: int) -> Observation:
    """One sample as the robot would send it."""
    views = samples.images([row], as_recorded=True)
    cameras = [camera.name for camera in samples.spec.ordered_cameras]
    return Observation(
        images={name: view[0] for name, view in zip(cameras, views, strict=True)},
        state=samples.raw_state([row])[0],
        instruction=samples.instruction(row),
    )


def _unchanged_ms(policy: Policy, observation: Observation, sampler: Sampler, seed: int) -> float:
    policy.act(observation, seed=seed, sampler=sampler)
    spent = []
    for _ in range(AGAIN):
        started = time.perf_counter()
        policy.act(observation, seed=seed, sampler=sampler)
        spent.append((time.perf_counter() - started) * 1000)
    return median(spent)


def _distances(
    policy: Policy,
    found: NDArray[np.float32],
    exact: NDArray[np.float32],
    target: NDArray[np.float32],
    train: NDArray[np.float32],
) -> dict[str, Any]:
    binding = policy.binding
    apart = binding.errors(found, exact)
    return {
        "deviation": {name: (float(v.mean()), float(np.percentile(v, 95))) for name, v in apart.items()},
        "share": spread_share(policy, found, exact, train),
        "errors": {name: float(v.mean()) for name, v in binding.errors(found, target).items()},
    }


def spread_share(
    policy: Policy, found: NDArray[np.float32], exact: NDArray[np.float32], train: NDArray[np.float32]
) -> dict[str, float]:
    """By action field: RMS distance of chunks [N, T, dim], over the standard deviation of the training actions."""
    shares = {}
    for placed in policy.binding.action_placements:
        numbers = train[..., placed.model].astype(np.float64)
        spread = float(np.sqrt(numbers.reshape(-1, numbers.shape[-1]).var(0).sum()))
        difference = found[..., placed.model].astype(np.float64) - exact[..., placed.model]
        if spread > CONSTANT:
            shares[placed.field.name] = float(np.sqrt(np.square(difference).sum(-1).mean())) / spread
    return shares
