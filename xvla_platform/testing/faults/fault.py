"""What a planted fault is: a mistake that people make, in several strengths, put into a clean recording or declaration.

In: an open dataset, the declaration that fits it, the name of a strength and a seed. Out: the dataset and the
declaration with exactly that mistake. Nothing is written to disk; the recording is seen through a reader that
changes what it answers, so that no video is encoded again.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xvla_platform.data.reader import DatasetReader
from xvla_platform.errors import XvlaError
from xvla_platform.specs.embodiment import EmbodimentSpec

Planted = tuple[DatasetReader, EmbodimentSpec]
Maker = Callable[..., Planted]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of mistake.

    Attributes:
        name: Unique, in snake case.
        about: What happened, in one sentence.
        codes: Findings any of which names the mistake rightly.
        strengths: Name of each strength to the arguments that `make` takes for it.
        make: `(reader, spec, seed, **arguments)` to the faulty reader and declaration.
        also: Findings that this mistake brings with it and that are right too.
    """

    name: str
    about: str
    codes: tuple[str, ...]
    strengths: Mapping[str, Mapping[str, Any]]
    make: Maker = field(repr=False)
    also: tuple[str, ...] = ()

    def plant(self, reader: DatasetReader, spec: EmbodimentSpec, strength: str, seed: int) -> Planted:
        """The recording and its declaration with this mistake; equal seeds give equal numbers.

        Raises:
            CannotBePlantedError: This robot has nothing that could be wrong in this way.
        """
        if strength not in self.strengths:
            raise XvlaError(f"fault {self.name} has no such strength", found=strength, allowed=self.strengths)
        return self.make(reader, spec, zlib.crc32(f"{self.name} {seed}".encode()), **self.strengths[strength])


class CannotBePlantedError(XvlaError):
    """The robot has nothing that could be wrong in this way."""


def generator(seed: int, episode: int) -> np.random.Generator:
    """Random numbers of one episode, the same however often and in whatever order it is read."""
    return np.random.default_rng([seed, episode])


def chosen(reader: DatasetReader, share: float, seed: int) -> frozenset[int]:
    """A random share of the episodes, at least one."""
    count = max(1, round(share * len(reader.episodes)))
    order = np.random.default_rng(seed).permutation(len(reader.episodes))
    return frozenset(int(episode) for episode in order[:count])
