"""The plugin's language command for a dataset that records none."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from xvla_platform.data.reader import DatasetReader, FloatArray, Images
from xvla_platform.errors import XvlaError


def with_instruction(reader: DatasetReader, instruction: str | None) -> DatasetReader:
    """`reader` with `instruction` as the command of every episode; a dataset with commands of its own is refused."""
    if instruction is None:
        return reader
    own = sorted({episode.instruction for episode in reader.episodes if episode.instruction})
    if own:
        raise XvlaError(
            "the dataset has instructions of its own",
            file=reader.root,
            field="dataset.instruction",
            found=f"'{own[0]}'" + (f" and {len(own) - 1} more" if len(own) > 1 else ""),
            hint="remove dataset.instruction",
        )
    return _Instructed(reader, instruction)


class _Instructed:
    """A reader whose episodes carry a declared command; everything else is the reader's own."""

    def __init__(self, reader: DatasetReader, instruction: str) -> None:
        self._reader = reader
        self.root = reader.root
        self.info = reader.info
        self.episodes = [replace(episode, instruction=instruction) for episode in reader.episodes]

    def columns(self, episode: int, keys: Sequence[str]) -> dict[str, FloatArray]:
        return self._reader.columns(episode, keys)

    def timestamps(self, episode: int) -> FloatArray:
        return self._reader.timestamps(episode)

    def frames(self, episode: int, key: str, indices: Sequence[int] | NDArray[Any]) -> Images:
        return self._reader.frames(episode, key, indices)

    def fingerprint(self) -> str:
        return self._reader.fingerprint()
