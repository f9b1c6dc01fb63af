"""Filling a feature store: what is missing is encoded, by one run at a time and all of its processes together.

`FileLock` keeps other runs of this machine from filling the same store twice; they wait, then find it whole.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from xvla_platform.adapt.feature_store import PARTS, FeatureStore
from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import os_errors

Encode = Callable[[Sequence[int]], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes that fill a store together; `wait` returns when all have reached it."""

    rank: int = 0
    world: int = 1
    wait: Callable[[], None] = lambda: None


def fill(
    store: FeatureStore,
    encode: Encode,
    *,
    ranks: Ranks | None = None,
    progress: Callable[[int], None] | None = None,
    waiting: Callable[[], None] | None = None,
) -> int:
    """Encode what the store lacks, all ranks together; returns how many rows were encoded.

    Args:
        encode: Rows -> (vlm_features, aux_visual_inputs) on the CPU, called with whole blocks only.
        progress: Called with the number of rows that are there, found or encoded, since the last call.
        waiting: Called once if another run is filling this store.
    """
    ranks = ranks or Ranks()
    with _held(store, ranks, waiting):
        todo = store.missing()
        ranks.wait()  # all have looked before the first one creates anything
        if progress is not None:
            progress(store.key.count - sum(len(store.rows(block)) for block in todo))
        if len(todo) == store.blocks and ranks.rank == 0:
            first = encode(store.rows(0))
            store.create({name: tuple(part.shape[1:]) for name, part in zip(PARTS, first, strict=True)})
            store.write(0, first)
            if progress is not None:
                progress(len(store.rows(0)))
        created = len(todo) == store.blocks
        ranks.wait()
        if created and ranks.rank != 0:
            store.missing()  # reads the shapes that the first rank found
        mine = [block for block in todo if not (created and block == 0)][ranks.rank :: ranks.world]
        for block in mine:
            store.write(block, encode(store.rows(block)))
            if progress is not None:
                progress(len(store.rows(block)))
        ranks.wait()
        left = store.missing()
    if left:
        raise XvlaError(
            f"{len(left)} of {store.blocks} blocks of features do not read back as they were written",
            file=store.folder,
            hint="the disk or the file system is damaged; remove this folder and repeat",
        )
    return sum(len(store.rows(block)) for block in todo)


@contextmanager
def _held(store: FeatureStore, ranks: Ranks, waiting: Callable[[], None] | None) -> Iterator[None]:
    """The store's lock, taken by rank 0 for all ranks."""
    if ranks.rank != 0:
        ranks.wait()
        yield
        return
    with os_errors(store.folder):
        store.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = store.lock
        told = False
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except TimeoutError:
                if waiting is not None and not told:
                    waiting()
                told = True
                time.sleep(0.2)
    try:
        ranks.wait()
        yield
    finally:
        lock.release()
