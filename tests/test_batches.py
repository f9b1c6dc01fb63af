"""Batches: drawn by weight whatever the processes, put together from several robots, from arrays that fit the disk."""

import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from loop_helpers import make_source, processor_fixture  # noqa: F401

from xvla_platform.adapt.arrays import allocate
from xvla_platform.adapt.sources import Draw, assemble, draw
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.processor import Processor


@pytest.mark.parametrize("world", [2, 3])
def test_the_batch_does_not_depend_on_the_processes(world: int) -> None:
    """The ranks' shares together are the single process's batch, and the steps differ from each other."""
    sizes, shares = [100, 7, 40], [1.0, 0.0, 3.0]
    whole = draw(sizes, shares, batch_size=24, key=(3, 1, 9))
    ranks = [draw(sizes, shares, batch_size=24, key=(3, 1, 9), rank=rank, world=world) for rank in range(world)]

    def pairs(parts: Sequence[Draw]) -> list[tuple[int, int]]:
        return sorted((int(s), int(r)) for part in parts for s, r in zip(part.source, part.row, strict=True))

    assert pairs(ranks) == pairs([whole])
    assert len({len(rank.row) for rank in ranks}) == 1
    assert pairs([whole]) != pairs([draw(sizes, shares, batch_size=24, key=(3, 1, 10))])
    assert pairs([whole]) != pairs([draw(sizes, shares, batch_size=24, key=(3, 2, 9))])
    assert pairs([whole]) != pairs([draw(sizes, shares, batch_size=24, key=(4, 1, 9))])
    assert 1 not in whole.source
    assert all(row < sizes[source] for source, row in zip(whole.source, whole.row, strict=True))


def test_a_mixture_is_drawn_by_its_weights() -> None:
    """One to three, whatever the sizes of the datasets."""
    drawn = draw([1000, 10], [1, 3], batch_size=8000, key=(0, 0, 0))
    assert float((drawn.source == 1).mean()) == pytest.approx(0.75, abs=0.02)
    assert set(drawn.row[drawn.source == 1].tolist()) == set(range(10))


def test_a_batch_of_several_robots(processor: Processor) -> None:
    """Each sample keeps its own robot, words and numbers; one robot alone is one domain id."""
    first = make_source(processor, cached=True, domain=1)
    second = replace(make_source(processor, cached=True, domain=2, seed=1), frames=None)
    drawn = Draw(source=np.array([1, 0, 1]), row=np.array([4, 2, 9]))
    batch = assemble([first, second], drawn, processor)
    assert batch["domain_id"].tolist() == [1, 2, 2]
    assert torch.equal(batch["action"], torch.stack([first.action[2], second.action[4], second.action[9]]))
    assert second.features is not None
    assert torch.equal(batch["features"][0][1:], second.features[0][[4, 9]])
    alone = assemble([first], Draw(source=np.array([0, 0]), row=np.array([1, 2])), processor)
    assert alone["domain_id"].tolist() == [1]
    seen = assemble([replace(first, features=None)], Draw(source=np.array([0]), row=np.array([1])), processor)
    assert torch.equal(seen["input_ids"][0], first.tokens[1])
    assert torch.equal(seen["pixel_values"][0], processor.images(first.frames[1]))
    one_view = replace(first, features=None, frames=first.frames[:, :1])
    masked = assemble([one_view], Draw(source=np.array([0]), row=np.array([1])), processor)
    assert masked["image_mask"].tolist() == [[True, False]]
    assert not masked["pixel_values"][0, 1].any()


def test_a_full_disk_is_seen_before_an_array_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse map would end the process by a signal when its pages find no place."""
    path = tmp_path / "scratch" / "frames.npy"
    allocate((4, 8), np.uint8, path, budget=0)[:] = 1
    assert path.stat().st_blocks * 512 >= path.stat().st_size

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(XvlaError, match="disk full while writing"):
        allocate((4, 8), np.uint8, path, budget=0)
    assert not path.exists()
