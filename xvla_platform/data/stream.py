"""Training samples straight from the dataset, batch by batch, without a cache: for data larger than memory.

In: `Samples`. Out: batches of images, proprio, target chunks and instructions, in an order that depends on the seed
alone. Workers only share the work: their number changes neither the batches nor their order.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from xvla_platform.data.binding import ModelArray
from xvla_platform.data.reader import Images
from xvla_platform.data.samples import Samples
from xvla_platform.data.shards import Order, Position, Shard, count_batches, epoch_order, local_order, take_batch, walk


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples.

    Attributes:
        images: Per ordered camera, main view first, RGB uint8 [B, H, W, 3]; or what the stream's `prepare` made of it.
        proprio: Model proprio, float32 [B, dim].
        chunks: Target chunks, float32 [B, T, dim].
        instructions: B sentences.
        indices: [B] places of the samples in `Samples`.
        position: Where the batch stands; `position.next(...)` is where a later run goes on.
    """

    images: list[Any]
    proprio: ModelArray
    chunks: ModelArray
    instructions: list[str]
    indices: Order
    position: Position


@dataclass(frozen=True, kw_only=True)
class SampleStream:
    """An order over samples, iterated as batches.

    Attributes:
        shard: The part of each epoch that this rank reads.
        start: The first batch, of which `resume` makes any other.
        epochs: How many epochs to read, counted from `start`'s; without it the stream does not end.
        pool: Episodes whose samples are mixed; without it all of them. Small pools read fewer files at a time.
        prepare: Turns a camera's frames [B, H, W, 3] into what the model wants; it runs in the worker.
    """

    samples: Samples = field(repr=False)
    batch_size: int
    seed: int = 0
    shard: Shard = field(default_factory=Shard)
    start: Position = field(default_factory=Position)
    epochs: int | None = None
    pool: int | None = None
    prepare: Callable[[Images], Any] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Batches that this shard reads in one epoch."""
        return count_batches(len(self.samples), self.batch_size, self.shard)

    def plan(self) -> Iterator[tuple[Position, Order]]:
        """Where each batch stands and which samples it holds, without reading any."""
        epoch, order = -1, np.zeros(0, dtype=np.int64)
        for position in walk(self.start, self.batches_per_epoch, self.epochs):
            if position.epoch != epoch:
                epoch, order = position.epoch, self._order(position.epoch)
            yield position, take_batch(order, self.batch_size, self.shard, position.batch)

    def read(self, worker: int = 0, workers: int = 1) -> Iterator[Batch]:
        """The batches of one of several workers: every `workers`-th of the plan, so taken in turn they are the plan."""
        for position, indices in islice(self.plan(), worker, None, workers):
            yield self._batch(position, indices)

    def __iter__(self) -> Iterator[Batch]:
        return self.read()

    def resume(self, after: Position) -> "SampleStream":
        """The same stream from the batch after `after` on, ending where this one ends."""
        following = after.next(self.batches_per_epoch)
        epochs = None if self.epochs is None else self.start.epoch + self.epochs - following.epoch
        return replace(self, start=following, epochs=epochs)

    def _order(self, epoch: int) -> Order:
        if self.pool is None:
            return epoch_order(len(self.samples), self.seed, epoch)
        return local_order(self.samples.episode_of, self.seed, epoch, pool=self.pool)

    def _batch(self, position: Position, indices: Order) -> Batch:
        images: list[Any] = self.samples.images(indices)
        return Batch(
            images=[self.prepare(view) for view in images] if self.prepare is not None else images,
            proprio=self.samples.proprio(indices),
            chunks=self.samples.chunks(indices),
            instructions=[self.samples.instruction(int(index)) for index in indices],
            indices=indices,
            position=position,
        )
