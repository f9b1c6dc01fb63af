"""Features on disk: encoded once, found again by every later run of the same base on the same frames.

A store is a folder named by the digest of all that its content depends on. Frames are encoded in fixed blocks, so a
row has the same bits whoever computed it and whenever. A block counts once its hash stands in `blocks.bin`: a killed
writer loses at most the blocks in its hands, and a damaged block is encoded again. Whoever reads a store holds it, so
that making room for another run does not take it away.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from xvla_platform.adapt.arrays import MEMORY_BUDGET
from xvla_platform.platform.files import os_errors, write_json

BLOCK = 32  # frames; the batch of the encoder, and the unit that is checked
HASH_BYTES = 16
TABLE = "blocks.bin"
META = "store.json"
PARTS = ("vlm", "aux")
DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(np.uint16)}


@dataclass(frozen=True, kw_only=True)
class StoreKey:
    """All that stored features depend on.

    Attributes:
        base: Fingerprint of the base's weights.
        data: Fingerprint of the dataset.
        transform: Everything between a recorded frame and the encoder's input, as plain values: image size, filter,
            normalisation, cameras with their flips, views, tokens of each instruction, jitter.
        rows: sha256 over the (episode, frame) of every row.
        count: Rows.
        dtype: How numbers are kept: `float32`, or `bfloat16` where the encoder computes in it.
        kernels: What rounds them: versions of the libraries, kind of device and its instructions.
    """

    base: str
    data: str
    transform: Mapping[str, Any]
    rows: str
    count: int
    dtype: str
    kernels: str

    @property
    def digest(self) -> str:
        """Name of the store's folder."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:24]

    @property
    def text(self) -> str:
        """The key as sorted JSON."""
        return json.dumps(vars(self), sort_keys=True, default=str)


class FeatureStore:
    """One store's files: per part an array [count, *shape] of raw numbers, and one hash a block."""

    def __init__(self, folder: Path, key: StoreKey) -> None:
        self.folder = folder
        self.key = key
        self.blocks = -(-key.count // BLOCK)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._seen: set[int] = set()  # blocks whose bytes this process has checked
        self._use: IO[bytes] | None = None

    @property
    def lock(self) -> FileLock:
        """Held by whoever fills the store."""
        return FileLock(self.folder.with_suffix(".lock"))

    def hold(self) -> None:
        """Keep the store from being removed while this object lives; a killed process holds nothing."""
        if self._use is None:
            with os_errors(self.folder):
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                self._use = use_of(self.folder)
                fcntl.flock(self._use, fcntl.LOCK_SH)  # waits only for a removal that has begun

    def rows(self, block: int) -> range:
        """Rows of a block."""
        return range(block * BLOCK, min((block + 1) * BLOCK, self.key.count))

    def missing(self) -> list[int]:
        """Blocks that are absent, or whose bytes do not match their hash; a block is read once a process."""
        meta = self._meta()
        if meta is None:
            return list(range(self.blocks))
        self._shapes = {name: tuple(shape) for name, shape in meta["shapes"].items()}
        table = self._table()
        empty = bytes(HASH_BYTES)
        for block in range(self.blocks):
            if block not in self._seen and table[block] != empty and self._hash_of(block) == table[block]:
                self._seen.add(block)
        return [block for block in range(self.blocks) if block not in self._seen]

    def create(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """The files at their full size, with their place on the disk taken."""
        self._seen.clear()
        with os_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._shapes = dict(shapes)
            sizes = {f"{name}.bin": self.key.count * self._row_bytes(name) for name in shapes}
            try:
                for name, size in {**sizes, TABLE: self.blocks * HASH_BYTES}.items():
                    # A new file: a run that has the damaged one mapped would die of its being cut.
                    (self.folder / name).unlink(missing_ok=True)
                    with (self.folder / name).open("wb") as file:
                        os.posix_fallocate(file.fileno(), 0, max(1, size))
                write_json(
                    self.folder / META,
                    {
                        "schema_version": 1,
                        "key": json.loads(self.key.text),
                        "shapes": {name: list(shape) for name, shape in shapes.items()},
                    },
                )
            except BaseException:
                shutil.rmtree(self.folder, ignore_errors=True)  # what there was room for serves nobody
                raise

    def write(self, block: int, parts: tuple[Tensor, Tensor]) -> None:
        """A block's features, then, once they are on the disk, its hash."""
        rows = self.rows(block)
        digest = hashlib.blake2b(digest_size=HASH_BYTES)
        with os_errors(self.folder):
            for name, part in zip(PARTS, parts, strict=True):
                data = _to_bytes(part, self.key.dtype)
                digest.update(data)
                _write_at(self.folder / f"{name}.bin", rows.start * self._row_bytes(name), data)
            _write_at(self.folder / TABLE, block * HASH_BYTES, digest.digest())

    def load(self, budget: int = MEMORY_BUDGET) -> tuple[Tensor, Tensor]:
        """(vlm_features, aux_visual_inputs) [count, ...]: in memory up to `budget` bytes each, else mapped."""
        os.utime(self.folder / META)  # what was used last is removed last
        vlm, aux = (self._part(name, budget) for name in PARTS)
        return vlm, aux

    def size(self) -> int:
        """Bytes on the disk."""
        return sum(path.stat().st_size for path in self.folder.glob("*.bin"))

    def _part(self, name: str, budget: int) -> Tensor:
        dtype, shape = DTYPES[self.key.dtype], (self.key.count, *self._shapes[name])
        path = self.folder / f"{name}.bin"
        size = self.key.count * self._row_bytes(name)
        array: Any = np.memmap(path, dtype=dtype, mode="c", shape=shape)
        if size <= budget:
            array = np.array(array)
        tensor = torch.from_numpy(array)
        return tensor.view(torch.bfloat16) if self.key.dtype == "bfloat16" else tensor

    def _row_bytes(self, name: str) -> int:
        return int(np.prod(self._shapes[name])) * DTYPES[self.key.dtype].itemsize

    def _meta(self) -> dict[str, Any] | None:
        try:
            meta: dict[str, Any] = json.loads((self.folder / META).read_text(encoding="utf-8"))
            sizes = {name: int(np.prod(shape)) for name, shape in meta["shapes"].items()}
            item = DTYPES[self.key.dtype].itemsize
            whole = all(
                (self.folder / f"{name}.bin").stat().st_size >= self.key.count * size * item
                for name, size in sizes.items()
            )
            same = meta["key"] == json.loads(self.key.text) and set(sizes) == set(PARTS)
            return meta if whole and same else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _table(self) -> list[bytes]:
        data = (self.folder / TABLE).read_bytes().ljust(self.blocks * HASH_BYTES, b"\0")
        return [data[i * HASH_BYTES : (i + 1) * HASH_BYTES] for i in range(self.blocks)]

    def _hash_of(self, block: int) -> bytes:
        rows, digest = self.rows(block), hashlib.blake2b(digest_size=HASH_BYTES)
        for name in PARTS:
            size = self._row_bytes(name)
            with (self.folder / f"{name}.bin").open("rb") as file:
                file.seek(rows.start * size)
                digest.update(file.read(len(rows) * size))
        return digest.digest()


def use_of(folder: Path) -> IO[bytes]:
    """The file beside a store whose lock its readers share."""
    return folder.with_suffix(".use").open("ab")


def _to_bytes(part: Tensor, dtype: str) -> bytes:
    part = part.detach().cpu().contiguous()
    if dtype == "bfloat16":
        return part.to(torch.bfloat16).view(torch.uint16).numpy().tobytes()
    return part.float().numpy().tobytes()


def _write_at(path: Path, offset: int, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
