"""How a camera's image moves when the hand moves, by least squares straight from pixels.

Every changing pixel obeys It = -(Ix u + Iy v). The image motion (u, v) is modelled as shift, expansion and turn,
each linear in the hand's motion w: u = a·w + (e·w) x + (c·w) y, v = b·w + (e·w) y - (c·w) x, with x to the right
and y down from the image's centre. A clip is reduced once to small sums of products; every question after
that (which lag, which axes, which episode) is a solution of a small linear system.

What the coefficients mean. A fixed camera that sees the hand has a and b along its own right and down axes, so
a x b is its viewing direction, and what moves along that direction shrinks (e·(a x b) < 0). A camera on the hand
has -a and -b along them, so a x b is the viewing direction as well, but moving along it makes the image grow
(e·(a x b) > 0). A mirror turns the sign of a x b.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from xvla_platform.data.reader import FloatArray
from xvla_platform.measure.cameras_footage import Clip, Footage, Stream

CHANGED = 3.0  # grey levels between frames from which a pixel counts as moving
BORDER = 2  # px, where gradients are one-sided
RIDGE = 1e-3
LAGS = tuple(range(-12, 13))  # alike both ways: a delay beyond the range would be taken for a mirror
RESAMPLES = 40


@dataclass(frozen=True, kw_only=True)
class Reduced:
    """One clip as sums over its moving pixels, per step from a frame to the next.

    Attributes:
        start: Frame index of the first step.
        gram: [m, 4, 4] products of the four image features (shift right, shift down, expansion, turn).
        product: [m, 4] of the features with the grey change.
        change: [m] sum of the squared grey change.
        energy: [m] mean absolute grey change over all pixels.
        spread: [m] RMS distance of the change from its centre, as a share of the longer side; NaN without change.
    """

    start: int
    gram: FloatArray
    product: FloatArray
    change: FloatArray
    energy: FloatArray
    spread: FloatArray


def reduce_clip(clip: Clip) -> Reduced:
    """The sums of one clip."""
    images = gaussian_filter(clip.images, (0, 1.0, 1.0))
    height, width = images.shape[1:]
    half = max(height, width) / 2
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = (x - (width - 1) / 2) / half, (y - (height - 1) / 2) / half
    change = np.diff(images, axis=0)
    middle = (images[1:] + images[:-1]) / 2
    down, right = np.gradient(middle, axis=(1, 2))
    moving = np.abs(change) > CHANGED
    inside = np.zeros((height, width), dtype=bool)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    moving &= inside
    right, down = right * half * moving, down * half * moving
    steps = len(change)
    features = -np.stack([right, down, x * right + y * down, y * right - x * down], axis=-1).reshape(steps, -1, 4)
    flat = (change * moving).reshape(steps, -1)
    weight = np.abs(change)
    total = np.maximum(weight.sum((1, 2)), 1e-9)
    centre_x, centre_y = (weight * x).sum((1, 2)) / total, (weight * y).sum((1, 2)) / total
    square = (weight * ((x - centre_x[:, None, None]) ** 2 + (y - centre_y[:, None, None]) ** 2)).sum((1, 2)) / total
    energy = np.abs(np.diff(clip.images, axis=0)).mean((1, 2)).astype(np.float64)
    return Reduced(
        start=clip.start,
        gram=(np.swapaxes(features, 1, 2) @ features).astype(np.float64),
        product=(np.swapaxes(features, 1, 2) @ flat[:, :, None])[:, :, 0].astype(np.float64),
        change=(flat.astype(np.float64) ** 2).sum(1),
        energy=energy,
        spread=np.where(energy > 0.05, np.sqrt(square) / 2, np.nan).astype(np.float64),
    )


@dataclass(frozen=True, kw_only=True)
class System:
    """Normal equations per episode at each lag: A [E, K, 4n, 4n], b [E, K, 4n], and the squared change [E]."""

    episodes: tuple[int, ...]
    lags: tuple[int, ...]
    size: int
    matrix: FloatArray
    vector: FloatArray
    change: FloatArray

    def solve(self, chosen: FloatArray | None = None, lag: int = 0) -> FloatArray:
        """Coefficients [4, n] (a, b, e, c) over the episodes, each counted `chosen` [E] times."""
        chosen = np.ones(len(self.episodes)) if chosen is None else chosen
        place = self.lags.index(lag)
        matrix = np.einsum("e,eij->ij", chosen, self.matrix[:, place])
        vector = np.einsum("e,ei->i", chosen, self.vector[:, place])
        scale = np.sqrt(np.maximum(np.diag(matrix), 1e-12))
        scaled = matrix / np.outer(scale, scale) + RIDGE * np.eye(len(matrix))
        solution: FloatArray = (np.linalg.solve(scaled, vector / scale) / scale).reshape(4, self.size)
        return solution

    def explained(self, coefficients: FloatArray, lag: int = 0) -> FloatArray:
        """Share of each episode's change [E] that the coefficients explain at a lag; below 0 where they mislead."""
        place, flat = self.lags.index(lag), coefficients.reshape(-1)
        gain = 2 * self.vector[:, place] @ flat - np.einsum("i,eij,j->e", flat, self.matrix[:, place], flat)
        share: FloatArray = gain / np.maximum(self.change, 1e-9)
        return share

    def pooled(self, coefficients: FloatArray, chosen: FloatArray | None = None, lag: int = 0) -> float:
        """Share of all change that the coefficients explain."""
        weight = self.change if chosen is None else self.change * chosen
        return float((self.explained(coefficients, lag) * weight).sum() / max(weight.sum(), 1e-9))


def build_system(
    reduced: dict[int, Reduced], footage: Footage, arm: int, axes: str, lags: tuple[int, ...] = (0,)
) -> System | None:
    """The normal equations of one camera and one arm; None where the recording lacks what `axes` needs.

    A lag of k frames means that the image shows where the hand was k frames before the numbers of its row.
    """
    motions: dict[int, FloatArray] = {}
    for episode in reduced:
        hands = footage.hands[episode]
        steps = hands[arm].steps(axes) if arm < len(hands) else None
        if steps is not None and len(steps):
            motions[episode] = steps
    motions = {episode: steps for episode, steps in motions.items() if reduced[episode].change.sum() > 0}
    if not motions:
        return None
    everything = np.concatenate(list(motions.values()))
    scale = np.sqrt((everything**2).mean())
    if not scale > 0:
        return None
    size = everything.shape[1]
    own = np.sqrt((everything**2).mean(0)) if axes == "numbers" else np.full(size, scale)
    own = np.where(own > 0, own, 1.0)
    matrices = np.zeros((len(motions), len(lags), 4 * size, 4 * size))
    vectors = np.zeros((len(motions), len(lags), 4 * size))
    for row, (episode, steps) in enumerate(motions.items()):
        clip = reduced[episode]
        for place, lag in enumerate(lags):
            wanted = clip.start + np.arange(len(clip.change)) - lag
            known = (wanted >= 0) & (wanted < len(steps))
            motion = np.where(known[:, None], steps[np.clip(wanted, 0, len(steps) - 1)] / own, 0.0)
            outer = np.einsum("ma,mb->mab", motion, motion).reshape(len(motion), -1)
            products = clip.gram.reshape(len(motion), 16).T @ outer  # [16, n * n]
            matrices[row, place] = products.reshape(4, 4, size, size).transpose(0, 2, 1, 3).reshape(4 * size, 4 * size)
            vectors[row, place] = (clip.product.T @ motion).reshape(-1)
    return System(
        episodes=tuple(motions),
        lags=lags,
        size=size,
        matrix=matrices,
        vector=vectors,
        change=np.array([reduced[episode].change.sum() for episode in motions]),
    )


def reduce_stream(stream: Stream) -> dict[int, Reduced]:
    """Episode to its reduced clip, for every clip of at least three frames."""
    return {episode: reduce_clip(clip) for episode, clip in stream.clips.items() if len(clip.images) > 2}


def arms(footage: Footage) -> int:
    """How many arms the hands have, at most."""
    return max((len(hands) for hands in footage.hands.values()), default=0)


def resamples(system: System, seed: int = 0) -> FloatArray:
    """How often each episode is drawn in each bootstrap resample, [RESAMPLES, E]."""
    count = len(system.episodes)
    draws = np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))
    times: FloatArray = np.stack([np.bincount(draw, minlength=count) for draw in draws]).astype(np.float64)
    return times


def view_direction(coefficients: FloatArray) -> FloatArray:
    """a x b [3] divided by |a||b|, from coefficients whose first three motions are a translation."""
    right, down = coefficients[0, :3], coefficients[1, :3]
    length = float(np.linalg.norm(right) * np.linalg.norm(down))
    direction: FloatArray = np.cross(right, down) / max(length, 1e-12)
    return direction


def growth(coefficients: FloatArray) -> float:
    """Cosine between e and a x b: above 0 the image grows along the view (on the hand), below 0 it shrinks."""
    view, expansion = view_direction(coefficients), coefficients[2, :3]
    length = float(np.linalg.norm(view) * np.linalg.norm(expansion))
    return float(view @ expansion / max(length, 1e-12))
