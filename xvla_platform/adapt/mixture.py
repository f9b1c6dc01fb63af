"""Which samples pretraining draws: robots by the mixture, then tasks, episodes and moments as the recipe balances them.

In: a robot's samples and its part of the recipe. Out: a `Stock`, which says which rows may be drawn and how often, and
batches that depend on (seed, phase, step) alone. The last scenes of every dataset are held out and never drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xvla_platform.adapt.grounding import NOTHING, ROLES
from xvla_platform.adapt.sources import Draw, Source
from xvla_platform.data.samples import Samples
from xvla_platform.errors import XvlaError
from xvla_platform.specs.base import load_model
from xvla_platform.specs.recipe import Balance, Domain, Mixtures

PUBLISHED = Path(__file__).with_name("mixtures.yaml")
UV = "grounding.uv"  # of what is named first
PLACES = (UV, "grounding.place_uv")
SAME_PICTURE = 0.5  # differences within a scene, which a video codec makes, over those between scenes; 0.02 is usual
LOOKED_AT = 20
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Stock:
    """One robot's samples and how they are drawn.

    Attributes:
        scene_of: [N] scene of each row.
        first: [E] row of each episode's first frame.
        still: Every episode is one frame, so that rows of one scene show one picture.
        sets: [n, k] rows that are drawn together: single rows, or all of a still scene.
        until: [n] cumulative chance of each set.
        held: [H] rows that are never drawn.
        uv: [N, 2, 2] where what is named first and second is in the main view, in 0..1 from its top left; NaN where
            unknown or outside. None where the dataset does not know it.
        classes: [N, 2] what is named, as numbers that all robots share.
    """

    source: Source
    scene_of: Rows
    first: Rows
    still: bool
    sets: Rows
    until: NDArray[np.float64]
    held: Rows
    uv: Tensor | None
    classes: Tensor


def mixture_weights(mixture: dict[str, float] | str, names: Sequence[str], file: Path | str) -> list[float]:
    """The weight of each domain; a published mixture needs every domain that it names, and no other."""
    if not isinstance(mixture, str):
        return [mixture.get(name, 0.0) for name in names]
    published = load_model(Mixtures, PUBLISHED).mixtures
    if mixture not in published:
        raise XvlaError("unknown mixture", file=file, field="phases.mixture", found=mixture, allowed=sorted(published))
    weights = published[mixture]
    if set(weights) - set(names):
        raise XvlaError(
            f"the mixture {mixture} needs domains that the recipe does not have",
            file=file,
            field="phases.mixture",
            found=", ".join(sorted(set(weights) - set(names))),
            hint="write the weights of the domains that there are: "
            + ", ".join(f"{k}: {v}" for k, v in weights.items()),
        )
    return [weights.get(name, 0.0) for name in names]


def split_scenes(episodes: int, per_scene: int, share: float) -> int:
    """How many of the episodes are trained on: all but the last `share` of the scenes, rounded down."""
    scenes = -(-episodes // per_scene)
    return min(episodes, (scenes - int(scenes * share)) * per_scene)


def chances(
    balance: Balance, episode_of: Rows, frame_of: Rows, task_of: Rows, lengths: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How often each row is drawn, summing to 1.

    Args:
        episode_of, frame_of, task_of: [N] of each row. lengths: [E] frames of every episode.
    """
    chance = np.ones(len(episode_of))
    parts = np.asarray(balance.positions, dtype=np.float64)
    place = (frame_of * len(parts)) // np.maximum(lengths[episode_of], 1)
    chance *= parts[np.minimum(place, len(parts) - 1)]
    if balance.episodes:
        chance /= np.maximum(np.bincount(episode_of, chance), 1e-300)[episode_of]
    if balance.tasks:
        chance /= np.maximum(np.bincount(task_of, chance), 1e-300)[task_of]
    if not chance.sum():
        raise XvlaError("no sample has a chance to be drawn", field="domains.balance.positions", found=list(parts))
    return chance / chance.sum()


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How a phase draws its batches: robots by weight, then each robot's sets of rows by their chances."""

    stocks: Sequence[Stock]
    weights: Sequence[float]

    def __call__(
        self, *, batch_size: int, key: tuple[int, ...], rank: int = 0, world: int = 1
    ) -> tuple[Draw, dict[str, Tensor]]:
        """This process's share of the batch that `key` = (seed, phase, step) names, and what grounding reads of it.

        The batch is drawn whole and then dealt out, so it does not depend on the number of processes.
        """
        generator = np.random.default_rng(key)
        weights = np.asarray(self.weights, dtype=np.float64)
        source = generator.choice(len(self.stocks), size=batch_size, p=weights / weights.sum())
        row = np.zeros(batch_size, dtype=np.int64)
        for i, stock in enumerate(self.stocks):
            mine = np.flatnonzero(source == i)
            together = stock.sets.shape[1]
            chosen = np.searchsorted(stock.until, generator.random(-(-len(mine) // together)), side="right")
            row[mine] = stock.sets[np.minimum(chosen, len(stock.sets) - 1)].reshape(-1)[: len(mine)]
        whole = marks(self.stocks, Draw(source=source, row=row))
        known = int(whole["uv"].isfinite().all(2).sum())
        drawn = Draw(source=source[rank::world], row=row[rank::world])
        dealt = marks(self.stocks, drawn)
        share = dealt["uv"].isfinite().all(2).float() * (batch_size / max(1, known))
        return drawn, {**dealt, "share": share}


def marks(stocks: Sequence[Stock], drawn: Draw) -> dict[str, Tensor]:
    """`uv`, `classes` and `picture` of a draw, in the order of an assembled batch, which groups samples by source."""
    uv, classes, picture = [], [], []
    for i, stock in enumerate(stocks):
        rows = drawn.row[drawn.source == i]
        uv.append(torch.full((len(rows), ROLES, 2), torch.nan) if stock.uv is None else stock.uv[rows])
        classes.append(stock.classes[rows])
        picture.append(torch.from_numpy(_pictures(stock, rows) + (i << 40)))
    return {"uv": torch.cat(uv), "classes": torch.cat(classes), "picture": torch.cat(picture)}


def _pictures(stock: Stock, rows: Rows) -> Rows:
    """A number for each row that rows with the same images share."""
    return stock.scene_of[rows] if stock.sets.shape[1] > 1 else rows


def build_stock(
    source: Source, samples: Samples, domain: Domain, things: Mapping[str, tuple[int, int]], share: float
) -> Stock:
    """How a robot's samples are drawn.

    Args:
        things: What every instruction that the mixture's robots are ever given names, as `things_named` has it.
    """
    episodes = samples.reader.episodes
    if len(episodes) % domain.per_scene:
        raise XvlaError(
            "the episodes are not whole scenes",
            file=samples.reader.root,
            field="domains.per_scene",
            found=f"{len(episodes)} episodes, {domain.per_scene} a scene",
        )
    lengths = np.array([episode.length for episode in episodes])
    number = {instruction: i for i, instruction in enumerate(things)}
    task = np.array([number[episode.instruction] for episode in episodes])[samples.episode_of]
    trained = split_scenes(len(episodes), domain.per_scene, share)
    still = bool(lengths.max() == 1)
    rows = np.flatnonzero(samples.episode_of < trained)
    if not len(rows):
        raise XvlaError("nothing is left to train on", file=samples.reader.root, field="held_out", found=share)
    chance = chances(domain.balance, samples.episode_of[rows], samples.frame_of[rows], task[rows], lengths)
    together = domain.per_scene if still else 1
    _, first = np.unique(samples.episode_of, return_index=True)
    uv = _named_places(samples)
    classes = torch.tensor(list(things.values()))[task]
    if uv is not None:
        _check_named(uv, classes, samples)
    stock = Stock(
        source=source,
        scene_of=samples.episode_of // domain.per_scene,
        first=first,
        still=still,
        sets=rows.reshape(-1, together),
        until=np.cumsum(chance.reshape(-1, together).sum(1)),
        held=np.flatnonzero(samples.episode_of >= trained),
        uv=uv,
        classes=classes.clamp(min=0),  # a thing that is not named has no place either
    )
    if together > 1:
        _check_pictures(stock, samples)
    return stock


def _check_named(uv: Tensor, classes: Tensor, samples: Samples) -> None:
    """Refuse a second place of nothing that the instruction names: it would be taught as another thing's."""
    lost = torch.nonzero(~uv[:, 1].isnan().any(-1) & (classes[:, 1] == NOTHING))
    if len(lost):
        raise XvlaError(
            f"the recording knows {PLACES[1]}, and its instruction names one object alone",
            file=samples.reader.root,
            field="objects",
            found=samples.reader.episodes[int(samples.episode_of[int(lost[0])])].instruction,
            hint="name the second thing in the recipe's objects too",
        )


def _named_places(samples: Samples) -> Tensor | None:
    """The columns `PLACES` of every row [N, 2, 2], NaN outside the main view; None where the dataset has not the first.

    Only still scenes know them, and not of every kind of thing.
    """
    known = [name for name in PLACES if name in samples.reader.info.features]
    if UV not in known:
        return None
    found = np.full((len(samples), ROLES, 2), np.nan, dtype=np.float32)
    for episode in np.unique(samples.episode_of).tolist():
        rows = np.flatnonzero(samples.episode_of == episode)
        columns = samples.reader.columns(episode, known)
        for role, name in enumerate(known):
            found[rows, role] = columns[name][samples.frame_of[rows]]
    inside: NDArray[np.bool_] = np.all((found >= 0) & (found <= 1), axis=2)
    if not inside[:, 0].any():
        raise XvlaError(
            "no named object lies in the main view",
            file=samples.reader.root,
            field=UV,
            found=f"{np.nanmin(found[:, 0]):.3g}..{np.nanmax(found[:, 0]):.3g}",
            allowed="0..1 from the image's top left",
        )
    found[~inside] = np.nan
    flip = samples.spec.ordered_cameras[0].flip
    if flip in ("horizontal", "both"):
        found[..., 0] = 1 - found[..., 0]
    if flip in ("vertical", "both"):
        found[..., 1] = 1 - found[..., 1]
    return torch.from_numpy(found)


def _check_pictures(stock: Stock, samples: Samples) -> None:
    """Rows that are encoded as one picture must show one: they differ far less than two scenes do."""
    assert stock.source.frames is not None
    chosen = stock.sets[:: max(1, len(stock.sets) // LOOKED_AT)]
    images = [stock.source.frames[rows].astype(np.float32) for rows in chosen]
    within = np.mean([np.abs(scene[1:] - scene[:1]).mean((1, 2, 3, 4)).max() for scene in images])
    between = np.mean([np.abs(one[0] - other[0]).mean() for one, other in pairwise(images)] or [np.inf])
    if within > SAME_PICTURE * between:
        raise XvlaError(
            "the still pictures of one scene differ",
            file=samples.reader.root,
            field="domains.per_scene",
            found=f"{chosen.shape[1]}, which differ by {within:.1f} of 255, and scenes by {between:.1f}",
            hint="write how many episodes were recorded of each scene, one after another",
        )
