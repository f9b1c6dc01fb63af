"""The order of an epoch and its parts: which samples make a batch, and which rank reads it.

An order is a function of (seed, epoch) alone. Every rank computes the same one and takes every n-th batch of it, so
each sample is read exactly once an epoch whatever the number of ranks, and a position is two integers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xvla_platform.errors import XvlaError

Order = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One of `count` disjoint parts of an epoch."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise XvlaError("no such shard", found=self.index, allowed=f"0..{self.count - 1}")


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place in a shard's endless sequence of batches: the epoch, and the batches of it that come before."""

    epoch: int = 0
    batch: int = 0

    def next(self, per_epoch: int) -> "Position":
        """The place after this one, where an epoch has `per_epoch` batches."""
        after = replace(self, batch=self.batch + 1)
        return after if after.batch < per_epoch else Position(epoch=self.epoch + 1)


def epoch_order(size: int, seed: int, epoch: int) -> Order:
    """A permutation of 0..size-1 [N], the same for the same (seed, epoch) on every machine."""
    return np.random.default_rng([seed, epoch]).permutation(size)


def local_order(episode_of: NDArray[np.int64], seed: int, epoch: int, *, pool: int) -> Order:
    """A permutation [N] in which neighbours share few episodes, so that few files are open at a time.

    Episodes are shuffled and taken `pool` at a time; the samples of each pool are shuffled together. A pool of all
    episodes is as random as `epoch_order`.

    Args:
        episode_of: [N] episode of each sample.
        pool: Episodes that are mixed, 1 or more.
    """
    if pool < 1:
        raise XvlaError("episodes are mixed in pools of at least one", found=pool)
    rng = np.random.default_rng([seed, epoch])
    _, number_of = np.unique(episode_of, return_inverse=True)
    pool_of = rng.permutation(int(number_of.max(initial=-1)) + 1) // pool
    shuffled = rng.permutation(len(episode_of))
    return shuffled[np.argsort(pool_of[number_of[shuffled]], kind="stable")]


def count_batches(samples: int, size: int, shard: Shard) -> int:
    """Batches of one epoch that the shard gets."""
    if size < 1:
        raise XvlaError("a batch holds at least one sample", found=size)
    return len(range(shard.index, -(-samples // size), shard.count))


def take_batch(order: Order, size: int, shard: Shard, number: int) -> Order:
    """Batch `number` of the shard in an epoch of this `order`: [size], or less for the epoch's last batch.

    Whole batches are dealt to the shards, not samples, so that a batch keeps the neighbourhood of the order, and the
    batches of an epoch are the same for any number of shards.
    """
    start = (shard.index + number * shard.count) * size
    return order[start : start + size]


def walk(start: Position, per_epoch: int, epochs: int | None) -> Iterator[Position]:
    """Every place from `start` on, to the end of `epochs` epochs counted from `start`'s, or without end."""
    if per_epoch < 1:
        raise XvlaError("this shard has no batch", hint="use fewer ranks, or smaller batches")
    place = start if start.batch < per_epoch else Position(epoch=start.epoch + 1)
    while epochs is None or place.epoch < start.epoch + epochs:
        yield place
        place = place.next(per_epoch)
