"""Episodes whose images differ from the rest of their own camera: mirrored or shifted in time in some of them.

In: a camera's `Seen`. Out: the episodes, each with how much better the other reading explains it. The image
motion learnt from most episodes predicts each single one as it is, mirrored, and at other lags.
"""

import numpy as np

from xvla_platform.data.reader import FloatArray
from xvla_platform.measure.cameras import Seen
from xvla_platform.measure.cameras_flow import LAGS

MIN_EPISODES = 6
MIRROR_GAIN = 0.22  # share of an episode's change by which the mirrored reading must explain more
SHIFT_GAIN = 0.1  # the same for another lag
ROUNDS = 6


def mirrored_episodes(seen: Seen) -> tuple[dict[int, float], int]:
    """Episodes mirrored or turned against most others, each with its gain in explained share; how many were seen."""
    system = seen.any
    if not seen.known or system is None or len(system.episodes) < MIN_EPISODES:
        return {}, 0
    lag = max(system.lags, key=lambda one: system.pooled(system.solve(lag=one), lag=one))
    place = system.lags.index(lag)
    turned = np.zeros(len(system.episodes), dtype=int)  # which of the signs
    signs = [_signs(kind, system.size) for kind in ("none", "horizontal", "vertical", "both")]
    shares = np.zeros((4, len(turned)))
    for _ in range(ROUNDS):
        weights = np.stack([signs[kind] for kind in turned])
        matrix = np.einsum("eij,ei,ej->ij", system.matrix[:, place], weights, weights)
        vector = np.einsum("ei,ei->i", system.vector[:, place], weights)
        coefficients = _solve(matrix, vector)
        shares = np.stack([system.explained((coefficients * sign).reshape(4, system.size), lag) for sign in signs])
        again = shares.argmax(0)
        if (again == turned).all():
            break
        turned = again
    common = int(np.bincount(turned, minlength=4).argmax())
    gain = shares.max(0) - shares[common]
    other = (turned != common) & (gain > MIRROR_GAIN)
    return {system.episodes[row]: float(gain[row]) for row in np.flatnonzero(other)}, len(turned)


def shifted_episodes(seen: Seen) -> tuple[dict[int, int], int]:
    """Episodes whose images are two frames or more late (below 0: early), unlike most others', with the frames."""
    system = seen.any
    if not seen.known or system is None or len(system.episodes) < MIN_EPISODES:
        return {}, 0
    lag = max(system.lags, key=lambda one: system.pooled(system.solve(lag=one), lag=one))
    coefficients = system.solve(lag=lag)
    curves = np.stack([system.explained(coefficients, one) for one in LAGS])
    best = curves.argmax(0)
    usual = int(np.median(np.array(LAGS)[best]))
    coefficients = system.solve(_near(best, usual), usual)
    curves = np.stack([system.explained(coefficients, one) for one in LAGS])
    best = curves.argmax(0)
    gain = curves.max(0) - curves[LAGS.index(usual)]
    off = np.array(LAGS)[best] - usual
    inside = (best > 0) & (best < len(LAGS) - 1)  # a maximum at the end of the range is no maximum
    mirrored, _ = mirrored_episodes(seen)
    plain = np.array([episode not in mirrored for episode in system.episodes])
    fits = curves.max(0) > 0.4 * float(np.median(curves.max(0)))
    found = (np.abs(off) >= 2) & inside & plain & fits & (gain > SHIFT_GAIN) & (gain > 0.35 * curves.max(0))
    if not found.any():
        return {}, len(best)
    common = int(np.median(off[found]))  # late by the same in all of them, or by chance
    found &= np.abs(off - common) <= 1
    found &= np.abs(usual + off) >= 2  # the others are the late ones, and the camera as a whole is named
    return {system.episodes[row]: int(usual + off[row]) for row in np.flatnonzero(found)}, len(best)


def _near(best: FloatArray, usual: int) -> FloatArray:
    near: FloatArray = (np.abs(np.array(LAGS)[best] - usual) <= 1).astype(np.float64)
    return near if near.any() else np.ones(len(near))


def _signs(kind: str, size: int) -> FloatArray:
    """How a mirror changes the sign of the coefficients (a, b, e, c), each repeated for its `size` motions."""
    rows = {"none": (1, 1, 1, 1), "horizontal": (-1, 1, 1, -1), "vertical": (1, -1, 1, -1), "both": (-1, -1, 1, 1)}[
        kind
    ]
    return np.repeat(np.array(rows, dtype=np.float64), size)


def _solve(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    scale = np.sqrt(np.maximum(np.diag(matrix), 1e-12))
    scaled = matrix / np.outer(scale, scale) + 1e-3 * np.eye(len(matrix))
    solution: FloatArray = np.linalg.solve(scaled, vector / scale) / scale
    return solution
