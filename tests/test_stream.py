"""Streaming without a cache: each sample once an epoch, one order whatever the workers, and going on after a stop."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from data_helpers import make_spec, write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from xvla_platform.data.binding import Binding
from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.samples import Samples
from xvla_platform.data.shards import Position, Shard, count_batches, epoch_order, local_order, take_batch, walk
from xvla_platform.data.stream import Batch, SampleStream
from xvla_platform.data.torch_stream import stream_loader
from xvla_platform.errors import XvlaError
from xvla_platform.specs.action_space import action_space

LENGTHS = (12, 9, 15, 7)
T = 4


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    reader = open_lerobot(write_dataset(tmp_path_factory.mktemp("data") / "set", LENGTHS))
    spec = make_spec()
    return Samples(reader, spec, Binding(spec, action_space("ee6d"), "rot6d_interleaved"), range(len(LENGTHS)), T)


def same(one: Batch, other: Batch) -> bool:
    return (
        one.position == other.position
        and one.instructions == other.instructions
        and all(np.array_equal(a, b) for a, b in zip(one.images, other.images, strict=True))
        and np.array_equal(one.proprio, other.proprio)
        and np.array_equal(one.chunks, other.chunks)
        and np.array_equal(one.indices, other.indices)
    )


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    size=st.integers(1, 9),
    shards=st.integers(1, 5),
    pool=st.none() | st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_every_sample_exactly_once_across_shards(
    lengths: list[int], size: int, shards: int, pool: int | None, seed: int
) -> None:
    episode_of = np.repeat(np.arange(len(lengths)) * 7, lengths)
    for epoch in (0, 3):
        if pool is None:
            order = epoch_order(len(episode_of), seed, epoch)
        else:
            order = local_order(episode_of, seed, epoch, pool=pool)
        taken = [
            take_batch(order, size, shard, number)
            for shard in (Shard(index=index, count=shards) for index in range(shards))
            for number in range(count_batches(len(order), size, shard))
        ]
        assert sorted(np.concatenate(taken).tolist()) == list(range(len(episode_of)))
        assert all(1 <= len(batch) <= size for batch in taken)


def test_orders_differ_by_epoch_and_seed_and_repeat() -> None:
    orders = [epoch_order(50, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] == epoch_order(50, 0, 0).tolist()


def test_a_pool_keeps_neighbours_in_few_episodes() -> None:
    episode_of = np.repeat(np.arange(40), 25)
    order = local_order(episode_of, 0, 0, pool=3)
    windows = [set(episode_of[order[start : start + 75]].tolist()) for start in range(0, 1000, 75)]
    assert all(len(window) <= 3 for window in windows)
    assert not np.array_equal(np.sort(order[:75]), order[:75])
    pools = [tuple(sorted(window)) for window in windows]
    again = local_order(episode_of, 0, 1, pool=3)
    assert pools != [tuple(sorted(set(episode_of[again[s : s + 75]].tolist()))) for s in range(0, 1000, 75)]


def test_positions_walk_through_epochs() -> None:
    places = [(place.epoch, place.batch) for place in islice(walk(Position(epoch=1, batch=2), 3, None), 5)]
    assert places == [(1, 2), (2, 0), (2, 1), (2, 2), (3, 0)]
    assert len(list(walk(Position(), 3, 2))) == 6
    with pytest.raises(XvlaError, match="no batch"):
        next(walk(Position(), 0, None))
    with pytest.raises(XvlaError, match="no such shard"):
        Shard(index=2, count=2)


@pytest.mark.parametrize("pool", [None, 2])
def test_a_batch_is_what_samples_answer(samples: Samples, pool: int | None) -> None:
    stream = SampleStream(samples=samples, batch_size=6, seed=3, epochs=1, pool=pool)
    seen = []
    for batch in stream:
        for view, other in zip(batch.images, samples.images(batch.indices), strict=True):
            assert np.array_equal(view, other)
        assert np.array_equal(batch.proprio, samples.proprio(batch.indices))
        assert np.array_equal(batch.chunks, samples.chunks(batch.indices))
        assert batch.instructions == [samples.instruction(int(index)) for index in batch.indices]
        seen += batch.indices.tolist()
    assert sorted(seen) == list(range(len(samples)))


def test_ranks_share_an_epoch(samples: Samples) -> None:
    parts = [
        [batch.indices for batch in SampleStream(
            samples=samples, batch_size=4, seed=1, epochs=1, shard=Shard(index=rank, count=3))]
        for rank in range(3)
    ]  # fmt: skip
    assert sorted(np.concatenate([batch for part in parts for batch in part]).tolist()) == list(range(len(samples)))
    whole = [batch for _, batch in SampleStream(samples=samples, batch_size=4, seed=1, epochs=1).plan()]
    for rank, part in enumerate(parts):
        assert [batch.tolist() for batch in part] == [batch.tolist() for batch in whole[rank::3]]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_nothing(samples: Samples, workers: int) -> None:
    stream = SampleStream(samples=samples, batch_size=5, seed=2, epochs=2)
    found = list(stream_loader(stream, workers=workers))
    assert len(found) == 2 * stream.batches_per_epoch
    assert all(same(one, other) for one, other in zip(found, stream, strict=True))


@pytest.mark.slow
def test_spawned_workers_open_their_own_files(samples: Samples) -> None:
    stream = SampleStream(samples=samples, batch_size=16, seed=2, epochs=1)
    expected = list(stream)  # files are open here by now
    found = list(stream_loader(stream, workers=1, multiprocessing_context="spawn"))
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("stop", [0, 3, 8, 9, 12])
def test_going_on_after_a_stop(samples: Samples, stop: int) -> None:
    stream = SampleStream(samples=samples, batch_size=5, seed=4, epochs=2, pool=2)
    whole = [(position, order.tolist()) for position, order in stream.plan()]
    rest = [(position, order.tolist()) for position, order in stream.resume(whole[stop][0]).plan()]
    assert rest == whole[stop + 1 :]
    assert all(same(one, other) for one, other in zip(
        islice(stream_loader(stream.resume(whole[stop][0]), workers=2), 2), islice(stream, stop + 1, stop + 3),
        strict=True))  # fmt: skip


def test_what_prepare_makes_of_frames(samples: Samples, tmp_path: Path) -> None:
    stream = SampleStream(samples=samples, batch_size=3, epochs=1, prepare=lambda view: view[:, ::2, ::2].mean())
    batch = next(iter(stream))
    assert batch.images == [view[:, ::2, ::2].mean() for view in samples.images(batch.indices)]
