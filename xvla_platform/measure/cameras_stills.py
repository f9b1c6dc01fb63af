"""What single frames show: dark, uniform, over-exposed, frozen and repeated images, and streams that are one.

In: footage. Out: per camera and fault, the share of an episode's frames concerned. An image is called frozen
only while the hand moves, and against what the same camera usually changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.reader import FloatArray, Images
from xvla_platform.measure.cameras_footage import Footage, Hand, Stream

DARK_MEAN, DARK_TOP = 12.0, 30.0  # grey levels: mean, and the brightest hundredth of the pixels
FLAT = 2.5  # grey levels of standard deviation over the whole image
GLARE, GLARE_SHARE = 250, 0.6  # grey level from which a pixel is saturated, and the share of such pixels
STILL = 0.05  # share of a camera's usual change below which two frames are one
NO_CHANGE = 0.02  # grey levels: the same image, whatever the codec
SAME_STREAM = 0.15  # difference between two cameras, as a share of the difference between moments of one
TINY = 16  # cells a side of the image that streams are compared by
BLURRED = 0.25  # share of a camera's usual sharpness


@dataclass(frozen=True, kw_only=True)
class StillFault:
    """One fault of one camera.

    Attributes:
        kind: `dark`, `uniform`, `glare`, `frozen`, `repeated` or `blurred`.
        episodes: Episode to the share of its frames concerned, 0 to 1.
        of: How many episodes were looked at.
        typical: The camera's usual value of what was measured.
        found: The value measured where the fault is.
    """

    kind: str
    episodes: dict[int, float]
    of: int
    typical: float
    found: float


def still_faults(footage: Footage, key: str) -> list[StillFault]:
    """Every fault of one camera that single frames show."""
    stream = footage.streams[key]
    if not stream.stills:
        return []
    faults = [*_exposure(stream), *_frozen(footage, stream)]
    frozen = {episode for fault in faults if fault.kind == "frozen" for episode in fault.episodes}
    faults += _repeated(footage, stream, frozen)
    plain = {episode for fault in faults if fault.kind in ("dark", "uniform") for episode in fault.episodes}
    faults += _blurred(stream, plain)
    return [fault for fault in faults if fault.episodes]


def same_streams(footage: Footage) -> Iterator[tuple[str, str, dict[int, float], int]]:
    """Pairs of cameras that show the same images, with the episodes in which they do and how many were compared.

    The number of each episode is the mean difference as a share of the difference between moments of one camera.
    """
    for first, second in combinations(footage.keys, 2):
        one, two = footage.streams[first], footage.streams[second]
        shared = [episode for episode in one.stills if episode in two.stills]
        same: dict[int, float] = {}
        for episode in shared:
            a, b = _tiny(one.stills[episode]), _tiny(two.stills[episode])
            if len(a) < 2:
                continue
            between = np.abs(a - b).mean()
            within = max(np.abs(np.diff(a, axis=0)).mean(), np.abs(np.diff(b, axis=0)).mean())
            flat = max(a.std(axis=(1, 2)).mean(), b.std(axis=(1, 2)).mean()) < FLAT  # both black: another fault
            if not flat and between < max(SAME_STREAM * within, NO_CHANGE):
                same[episode] = float(between / max(within, 1e-9))
        if same:
            yield first, second, same, len(shared)


def exchanged(footage: Footage, first: str, second: str) -> tuple[dict[int, float], int]:
    """Episodes in which two cameras' streams are exchanged against most episodes, and how many were compared.

    Each episode's mean images are compared with the other episodes' means, as they are and exchanged; the number
    is how much nearer they are exchanged (1: exactly, 0: no nearer).
    """
    one, two = footage.streams[first], footage.streams[second]
    shared = [episode for episode in one.stills if episode in two.stills]
    if len(shared) < 3:
        return {}, len(shared)
    a = np.stack([_mean_image(one.stills[episode]) for episode in shared])
    b = np.stack([_mean_image(two.stills[episode]) for episode in shared])
    turned = np.zeros(len(shared), dtype=bool)
    for _ in range(8):
        centre_a = np.median(np.where(turned[:, None], b, a), axis=0)
        centre_b = np.median(np.where(turned[:, None], a, b), axis=0)
        straight = np.linalg.norm(a - centre_a, axis=1) + np.linalg.norm(b - centre_b, axis=1)
        crossed = np.linalg.norm(a - centre_b, axis=1) + np.linalg.norm(b - centre_a, axis=1)
        again = crossed < straight
        if (again == turned).all():
            break
        turned = again
    if turned.sum() * 2 > len(turned):
        turned, straight, crossed = ~turned, crossed, straight
    gain = 1 - crossed / np.maximum(straight, 1e-9)
    clear = 1 - straight / np.maximum(crossed, 1e-9)
    normal = np.median(clear[~turned]) if (~turned).any() else 0.0
    usual = np.median(np.where(turned, crossed, straight)[~turned]) if (~turned).any() else 0.0
    found = turned & (gain > max(0.15, 0.4 * float(normal))) & (crossed < 2.0 * usual)
    return {episode: float(gain[row]) for row, episode in enumerate(shared) if found[row]}, len(shared)


def _exposure(stream: Stream) -> Iterator[StillFault]:
    shares: dict[str, dict[int, float]] = {"dark": {}, "uniform": {}, "glare": {}}
    values: dict[str, list[float]] = {"dark": [], "uniform": [], "glare": []}
    usual: list[float] = []
    for episode, stills in stream.stills.items():
        grey = (stills @ np.full(3, 1 / 3, dtype=np.float32)).reshape(len(stills), -1)
        dark = (grey.mean(1) < DARK_MEAN) & (np.quantile(grey, 0.99, axis=1) < DARK_TOP)
        flat = (stills.reshape(len(stills), -1, 3).std(axis=1).max(-1) < FLAT) & ~dark
        glare = (stills.reshape(len(stills), -1, 3).min(-1) >= GLARE).mean(1)
        usual += grey.mean(1)[~dark].tolist()
        for kind, mask, value in (
            ("dark", dark, grey.mean(1)),
            ("uniform", flat, grey.std(1)),
            ("glare", (glare > GLARE_SHARE) & ~flat, glare),
        ):
            if mask.any():
                shares[kind][episode] = float(mask.mean())
                values[kind] += value[mask].tolist()
    for kind, episodes in shares.items():
        if episodes:
            yield StillFault(
                kind=kind,
                episodes=episodes,
                of=len(stream.stills),
                typical=float(np.median(usual)) if usual else 0.0,
                found=float(np.median(values[kind])),
            )


def _frozen(footage: Footage, stream: Stream) -> Iterator[StillFault]:
    """Stills of one episode that do not differ although the hand moved between them."""
    changes: dict[int, FloatArray] = {}
    for episode, stills in stream.stills.items():
        moments = stream.moments[episode]
        moved = _moved(footage.hands[episode], moments)
        if not len(moved) or _is_flat(stills):
            continue
        change = np.abs(np.diff(stills.astype(np.float32), axis=0)).mean(axis=(1, 2, 3))
        changes[episode] = np.where(moved, change, np.nan)
    everything = np.concatenate([np.zeros(0), *changes.values()])
    everything = everything[np.isfinite(everything)]
    if not len(everything):
        return
    alive = everything[everything > NO_CHANGE]
    usual = float(np.median(alive)) if len(alive) else 0.0
    limit = max(NO_CHANGE, STILL * usual if usual > 0.5 else 0.0)
    episodes, found = {}, []
    for episode, change in changes.items():
        known = np.isfinite(change)
        still = known & (np.nan_to_num(change, nan=np.inf) <= limit)
        if still.sum() >= 2 or (still.any() and still[known].all()):
            episodes[episode] = float(still.sum() / max(known.sum(), 1))
            found += change[still].tolist()
    if episodes:
        yield StillFault(
            kind="frozen", episodes=episodes, of=len(changes), typical=usual, found=float(np.median(found))
        )


def _repeated(footage: Footage, stream: Stream, frozen: set[int]) -> Iterator[StillFault]:
    """Consecutive frames that are one image although the hand moves: a camera slower than the recorded rate."""
    episodes, usual = {}, []
    for episode, clip in stream.clips.items():
        if episode in frozen or clip.images.std(axis=(1, 2)).max() < FLAT:
            continue
        change = np.abs(np.diff(clip.images, axis=0)).mean(axis=(1, 2))
        steps = _path(footage.hands[episode])[clip.start : clip.start + len(change)]
        moving = steps > 0.3 * max(float(np.quantile(steps, 0.8)), 1e-12)
        if moving.sum() < 6:
            continue
        typical = float(np.quantile(change[moving], 0.9))
        usual.append(typical)
        if typical < 0.2:
            continue
        share = float((change[moving] <= max(NO_CHANGE / 4, 0.02 * typical)).mean())
        if share > 0.3:
            episodes[episode] = share
    if episodes and len(episodes) >= min(3, len(usual)):  # one or two may be an arm that is out of view for a while
        yield StillFault(kind="repeated", episodes=episodes, of=len(usual), typical=float(np.median(usual)), found=0.0)


def _blurred(stream: Stream, plain: set[int]) -> Iterator[StillFault]:
    sharp = {episode: _sharpness(stills) for episode, stills in stream.stills.items() if episode not in plain}
    if len(sharp) < 5:
        return
    usual = float(np.median(list(sharp.values())))
    low = {episode: 1.0 for episode, value in sharp.items() if value < BLURRED * usual}
    if low:
        found = float(np.median([sharp[episode] for episode in low]))
        yield StillFault(kind="blurred", episodes=low, of=len(sharp), typical=usual, found=found)


def _sharpness(stills: Images) -> float:
    """Energy of the finest detail against that of all detail."""
    grey = stills.astype(np.float32).mean(-1)
    fine = np.abs(np.diff(grey, 2, axis=1)).mean() + np.abs(np.diff(grey, 2, axis=2)).mean()
    return float(fine / max(grey.std(axis=(1, 2)).mean(), 1e-6))


def _is_flat(stills: Images) -> bool:
    return bool(stills.reshape(len(stills), -1).std(axis=1).max() < FLAT)


def _path(hands: tuple[Hand, ...]) -> FloatArray:
    """How far the numbers of all arms move at each step, [L - 1]."""
    steps: FloatArray = np.sum([np.linalg.norm(np.diff(hand.numbers, axis=0), axis=1) for hand in hands], axis=0)
    return steps


def _moved(hands: tuple[Hand, ...], moments: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Between which stills [n - 1] the hand went a tenth of what it goes in the whole episode, or more."""
    path = np.r_[0.0, np.cumsum(_path(hands))]
    gone = np.diff(path[np.minimum(moments, len(path) - 1)])
    moved: NDArray[np.bool_] = gone > 0.1 * path[-1] if path[-1] > 0 else np.zeros(len(gone), dtype=bool)
    return moved


def _tiny(stills: Images) -> FloatArray:
    """Grey [n, TINY, TINY], whatever the shape of the image."""
    return _cells(stills.astype(np.float32).mean(-1, keepdims=True))[..., 0]


def _mean_image(stills: Images) -> FloatArray:
    """The mean of an episode's stills as one vector, small and in colour."""
    return _cells(stills.astype(np.float32).mean(0, keepdims=True)).reshape(-1)


def _cells(images: NDArray[np.float32]) -> FloatArray:
    """The mean of each of TINY x TINY cells of images [n, h, w, c]."""
    rows = np.linspace(0, images.shape[1], TINY, endpoint=False).astype(int)
    columns = np.linspace(0, images.shape[2], TINY, endpoint=False).astype(int)
    sums = np.add.reduceat(np.add.reduceat(images, rows, axis=1), columns, axis=2)
    heights = np.maximum(np.diff(np.r_[rows, images.shape[1]]), 1)  # a row of its own where there are fewer
    widths = np.maximum(np.diff(np.r_[columns, images.shape[2]]), 1)
    cells: FloatArray = sums.astype(np.float64) / (heights[:, None] * widths)[None, :, :, None]
    return cells
