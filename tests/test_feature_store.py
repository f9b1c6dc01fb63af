"""Features on disk: encoded once, exact, safe under kills, damage and concurrent runs."""

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from xvla_platform.adapt.feature_filling import Ranks, fill
from xvla_platform.adapt.feature_room import fits, make_room
from xvla_platform.adapt.feature_store import BLOCK, FeatureStore, StoreKey
from xvla_platform.errors import XvlaError

COUNT = 5 * BLOCK + 7


def key(**changes: object) -> StoreKey:
    values = {"base": "b", "data": "d", "transform": {"size": [32, 32]}, "rows": "r", "count": COUNT}
    return StoreKey(**{**values, "dtype": "float32", "kernels": "torch", **changes})  # type: ignore[arg-type]


def features(rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Numbers that say which row they belong to."""
    index = torch.tensor(list(rows), dtype=torch.float32)[:, None, None]
    return index + torch.linspace(0, 1, 15).view(1, 3, 5), -index.expand(-1, 2, 4)


class Encoder:
    """The features above, with a count of the rows that were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        self.asked += rows
        return features(rows)


def whole() -> tuple[Tensor, Tensor]:
    return features(range(COUNT))


def open_store(root: Path, **changes: object) -> FeatureStore:
    wanted = key(**changes)
    return FeatureStore(root / wanted.digest, wanted)


def test_a_second_run_encodes_nothing_and_reads_the_same_bits(tmp_path: Path) -> None:
    first, second = Encoder(), Encoder()
    assert fill(open_store(tmp_path), first) == COUNT
    assert sorted(first.asked) == list(range(COUNT))
    store = open_store(tmp_path)
    assert fill(store, second) == 0
    assert second.asked == []
    for kept, expected in zip(store.load(), whole(), strict=True):
        assert torch.equal(kept, expected)


def test_memory_maps_hold_what_memory_holds(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store, features)
    for mapped, held in zip(store.load(budget=0), store.load(), strict=True):
        assert torch.equal(mapped, held)
        mapped.zero_()  # a private map: nobody writes into the store
    for kept, expected in zip(open_then_load(tmp_path), whole(), strict=True):
        assert torch.equal(kept, expected)


def open_then_load(root: Path) -> tuple[Tensor, Tensor]:
    store = open_store(root)
    assert store.missing() == []
    return store.load()


def test_bfloat16_is_kept_as_it_is(tmp_path: Path) -> None:
    store = open_store(tmp_path, dtype="bfloat16")
    fill(store, lambda rows: tuple(part.to(torch.bfloat16) for part in features(rows)))  # type: ignore[arg-type,return-value]
    for kept, expected in zip(store.load(), whole(), strict=True):
        assert kept.dtype == torch.bfloat16
        assert torch.equal(kept, expected.to(torch.bfloat16))


@pytest.mark.parametrize("name", ["vlm.bin", "aux.bin", "blocks.bin"])
def test_a_flipped_byte_costs_one_block(tmp_path: Path, name: str) -> None:
    store = open_store(tmp_path)
    fill(store, features)
    path = store.folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    encoder = Encoder()
    assert fill(open_store(tmp_path), encoder) == BLOCK
    assert len(encoder.asked) == BLOCK
    for kept, expected in zip(open_then_load(tmp_path), whole(), strict=True):
        assert torch.equal(kept, expected)


@pytest.mark.parametrize("name", ["vlm.bin", "store.json", "blocks.bin"])
def test_a_truncated_file_is_made_again(tmp_path: Path, name: str) -> None:
    store = open_store(tmp_path)
    fill(store, features)
    path = store.folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    fill(open_store(tmp_path), features)
    for kept, expected in zip(open_then_load(tmp_path), whole(), strict=True):
        assert torch.equal(kept, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"base": "c"},
        {"data": "e"},
        {"transform": {"size": [64, 64]}},
        {"rows": "s"},
        {"kernels": "other"},
        {"dtype": "bfloat16"},
    ],
)
def test_whatever_features_depend_on_gets_a_store_of_its_own(change: dict[str, object]) -> None:
    assert key(**change).digest != key().digest


def _slow_fill(root: Path) -> None:
    def slowly(rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        time.sleep(0.1)
        return features(rows)

    fill(open_store(root), slowly)


def test_a_killed_writer_loses_only_the_block_in_its_hands(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writer = context.Process(target=_slow_fill, args=(tmp_path,))
    writer.start()
    table = open_store(tmp_path).folder / "blocks.bin"
    while not table.is_file() or not any(table.read_bytes()[16:48]):
        time.sleep(0.01)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    encoder = Encoder()
    fill(open_store(tmp_path), encoder)
    assert 0 < len(encoder.asked) < COUNT
    for kept, expected in zip(open_then_load(tmp_path), whole(), strict=True):
        assert torch.equal(kept, expected)


def test_two_runs_at_once_encode_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    other = context.Process(target=_slow_fill, args=(tmp_path,))
    other.start()
    lock = open_store(tmp_path).folder.with_suffix(".lock")
    while not lock.exists():
        time.sleep(0.01)
    time.sleep(0.05)
    told, encoder = [], Encoder()
    fill(open_store(tmp_path), encoder, waiting=lambda: told.append(1))
    other.join()
    assert other.exitcode == 0
    assert encoder.asked == []
    assert told == [1]


def _rank(root: Path, rank: int, barrier: object) -> None:
    fill(open_store(root), features, ranks=Ranks(rank=rank, world=3, wait=barrier.wait))  # type: ignore[attr-defined]


def test_ranks_fill_one_store_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3, timeout=30)
    ranks = [context.Process(target=_rank, args=(tmp_path, rank, barrier)) for rank in range(3)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
        assert process.exitcode == 0
    for kept, expected in zip(open_then_load(tmp_path), whole(), strict=True):
        assert torch.equal(kept, expected)


def _fill_on_a_full_disk(root: Path, said: object) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        fill(open_store(root), features)
    except XvlaError as error:
        said.put(str(error))  # type: ignore[attr-defined]


def test_a_full_disk_is_one_line_and_found_before_anything_is_encoded_in_vain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    process = context.Process(target=_fill_on_a_full_disk, args=(tmp_path, said))
    process.start()
    assert "disk full" in said.get(timeout=30)
    process.join()
    assert list(tmp_path.glob("*/*")) == []  # what there was room for is given back
    fill(open_store(tmp_path), features)
    for kept, expected in zip(open_then_load(tmp_path), whole(), strict=True):
        assert torch.equal(kept, expected)


def test_room_is_made_by_removing_what_was_used_longest_ago(tmp_path: Path) -> None:
    stores = [open_store(tmp_path, base=name) for name in ("old", "older", "new")]
    for store in stores:
        fill(store, features)
    for store, age in zip(stores, (200, 300, 0), strict=True):
        moment = time.time() - age
        os.utime(store.folder / "store.json", (moment, moment))
    size = stores[0].size()
    removed = make_room(tmp_path, needed=size, budget=3 * size)
    assert removed == [stores[1].folder]
    assert stores[0].missing() == []
    with stores[0].lock:  # in use: left alone
        assert make_room(tmp_path, needed=2 * size, budget=3 * size) == [stores[2].folder]


def _hold(root: Path, said: object) -> None:
    store = open_store(root)
    store.hold()
    said.put("held")  # type: ignore[attr-defined]
    time.sleep(60)


def test_a_store_that_a_run_holds_is_not_removed(tmp_path: Path) -> None:
    """From the moment a run has looked into it, as it may not have loaded the encoder; a killed run holds nothing."""
    fill(open_store(tmp_path), features)
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    run = context.Process(target=_hold, args=(tmp_path, said))
    run.start()
    assert said.get(timeout=30) == "held"
    assert make_room(tmp_path, needed=1, budget=0) == []
    assert open_store(tmp_path).missing() == []
    assert run.pid is not None
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    assert make_room(tmp_path, needed=1, budget=0) == [open_store(tmp_path).folder]
    assert open_store(tmp_path).missing() == list(range(6))


def test_who_reads_a_map_is_not_harmed_when_a_damaged_store_is_made_again(tmp_path: Path) -> None:
    """The other run's pages stay what they are; cutting the file under them would end it by a signal."""
    store = open_store(tmp_path)
    fill(store, features)
    mapped = store.load(budget=0)
    (store.folder / "store.json").write_text("{")
    fill(open_store(tmp_path), lambda rows: tuple(part + 1 for part in features(rows)))  # type: ignore[arg-type,return-value]
    for part, expected in zip(mapped, whole(), strict=True):
        assert torch.equal(part, expected)


def test_the_disk_is_asked_before_it_is_filled(tmp_path: Path) -> None:
    assert fits(tmp_path / "not" / "there", 1)
    assert not fits(tmp_path, 1 << 60)


def test_rows_beyond_a_block_keep_their_place(tmp_path: Path) -> None:
    store = open_store(tmp_path, count=BLOCK + 1)
    fill(store, features)
    assert np.array_equal(store.load()[0][BLOCK].numpy(), features([BLOCK])[0][0].numpy())
