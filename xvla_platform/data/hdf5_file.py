"""HDF5 files opened without trust: what an episode's group holds, and one dataset's numbers or pictures.

A file may name other files (external links, external storage, virtual datasets); none of them is followed. Sizes are
checked before anything is allocated, as a file of a few bytes can declare a dataset of terabytes.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from xvla_platform.data.pictures import looks_encoded, picture_size
from xvla_platform.data.reader import FeatureInfo, FloatArray
from xvla_platform.errors import XvlaError

DEEPEST = 16
LARGEST_COLUMN = 1 << 27  # numbers
LONGEST_EPISODE = 1 << 24  # frames
LARGEST_PICTURE = 1 << 28  # bytes
SIGNATURE = b"\x89HDF\r\n\x1a\n"


@contextmanager
def reading(file: Path, what: str = "file") -> Iterator[None]:
    """Every way in which h5py says that a file is damaged, as one error that names it."""
    try:
        yield
    except XvlaError:
        raise
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        MemoryError,
        AttributeError,
    ) as error:
        reason = str(error).strip("'\"").splitlines()
        raise XvlaError(
            f"{what} is damaged or not readable as HDF5: {reason[0] if reason else type(error).__name__}",
            file=file,
            hint="record or download it again",
        ) from None


def open_file(file: Path) -> Any:
    """The open `h5py.File`."""
    import h5py

    if not file.is_file():
        raise XvlaError("data file is missing", file=file)
    with reading(file):
        return h5py.File(file, "r")


def datasets_below(group: Any, file: Path) -> dict[str, Any]:
    """Every dataset below `group`, by its path from there; links that leave the file are refused."""
    import h5py

    found: dict[str, Any] = {}
    seen: set[int] = set()

    def visit(part: Any, prefix: str, depth: int) -> None:
        if depth > DEEPEST:
            raise XvlaError("groups are nested too deeply", file=file, field=prefix)
        for name in part:
            path = f"{prefix}{name}"
            item = member(part, name, path, file)
            if isinstance(item, h5py.Dataset):
                found[path] = item
            elif isinstance(item, h5py.Group):
                address = h5py.h5o.get_info(item.id).addr
                if address not in seen:  # a group that holds itself would never end
                    seen.add(address)
                    visit(item, f"{path}/", depth + 1)

    with reading(file):
        visit(group, "", 0)
    return found


def member(group: Any, name: str, path: str, file: Path) -> Any:
    """`group[name]`, if it lies in this file; `path` is its full name in errors."""
    import h5py

    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise XvlaError("a link leads to another file", file=file, field=path, found=link.filename)
    try:
        item = group[name]
    except KeyError:
        raise XvlaError("a link leads nowhere", file=file, field=path) from None
    if item.file.filename != group.file.filename:
        raise XvlaError("a link leads to another file", file=file, field=path, found=item.file.filename)
    if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
        raise XvlaError("its numbers lie in other files", file=file, field=path)
    return item


def find_dataset(group: Any, key: str, file: Path) -> Any:
    """The dataset at path `key` below `group`; every step of the way lies in this file."""
    import h5py

    part = group
    with reading(file, f"'{key}'"):
        for name in [name for name in key.split("/") if name]:
            if name in (".", "..") or not isinstance(part, h5py.Group) or name not in part:
                raise XvlaError("has no such key", file=file, field=key)
            part = member(part, name, key, file)
    if not isinstance(part, h5py.Dataset):
        raise XvlaError("is a group, not a dataset", file=file, field=key)
    return part


def episode_length(dataset: Any, file: Path, key: str) -> int:
    """Frames of the episode that `dataset` has one row for each of."""
    shape = tuple(dataset.shape or ())
    if not shape or shape[0] < 1:
        raise XvlaError("has no frame", file=file, field=key)
    if shape[0] > LONGEST_EPISODE:
        raise XvlaError(
            "is too long for an episode", file=file, field=key, found=shape[0], allowed=f"{LONGEST_EPISODE} frames"
        )
    return int(shape[0])


def describe(dataset: Any, length: int, file: Path, key: str) -> FeatureInfo | None:
    """What a dataset of one row a frame is: numbers, or pictures, raw or encoded; None for anything else."""
    shape, kind = tuple(dataset.shape or ()), dataset.dtype.kind
    if not shape or shape[0] != length:
        return None
    if kind == "u" and dataset.dtype.itemsize == 1 and len(shape) == 4 and 3 in (shape[1], shape[3]):
        return FeatureInfo(dtype="image", shape=shape[1:])
    if kind in "OSV" or (kind == "u" and dataset.dtype.itemsize == 1 and len(shape) == 2):
        content = encoded_row(dataset, 0, file, key) if len(shape) <= 2 else b""
        if looks_encoded(content):
            height, width = picture_size(content, "frame 0", file, key)
            return FeatureInfo(dtype="image", shape=(height, width, 3), names=["height", "width", "channels"])
    if kind in "biuf":
        return FeatureInfo(dtype=str(dataset.dtype), shape=shape[1:])
    return None


def encoded_row(dataset: Any, index: int, file: Path, key: str) -> bytes:
    """One row as the bytes of a picture: variable-length, fixed-length or zero-padded; empty if it is none."""
    row_size = int(np.prod(dataset.shape[1:], dtype=np.int64)) * dataset.dtype.itemsize
    if row_size > LARGEST_PICTURE:
        raise XvlaError("rows are too large for pictures", file=file, field=key, found=list(dataset.shape))
    with reading(file, f"'{key}'"):
        row = dataset[index]
    if isinstance(row, np.void):
        return row.tobytes()
    if isinstance(row, bytes):  # np.bytes_ is one
        return bytes(row)
    if isinstance(row, np.ndarray) and row.dtype.kind in "iu" and row.dtype.itemsize == 1:
        return row.tobytes()
    return b""


def matrix(dataset: Any, length: int, file: Path, key: str) -> FloatArray:
    """A numeric dataset as float64 [length, D]."""
    shape = tuple(dataset.shape or ())
    if dataset.dtype.kind not in "biuf":
        raise XvlaError("is not a numeric column", file=file, field=key, found=str(dataset.dtype))
    if not shape or shape[0] != length:
        raise XvlaError(f"has {shape[0] if shape else 'no'} rows, its episode has {length}", file=file, field=key)
    if np.prod(shape, dtype=np.float64) > LARGEST_COLUMN:
        raise XvlaError("is too large for a column", file=file, field=key, found=list(shape))
    with reading(file, f"'{key}'"):
        return np.asarray(dataset[()], dtype=np.float64).reshape(length, -1)


def text_of(value: Any) -> str | None:
    """A string stored as an attribute or a dataset's value, alone or first of an array."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else None
    if isinstance(value, bytes | np.bytes_):
        return bytes(value).decode("utf-8", errors="replace").strip()
    return value.strip() if isinstance(value, str) else None


def json_attribute(attributes: Any, name: str, file: Path) -> Mapping[str, Any]:
    """An attribute that holds a JSON mapping; empty where there is none."""
    with reading(file, f"attribute '{name}'"):
        if name not in attributes:
            return {}
        text = text_of(attributes[name])
    try:
        raw = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise XvlaError(f"attribute is not valid JSON: {error}", file=file, field=name) from None
    if not isinstance(raw, dict):
        raise XvlaError("attribute is not a JSON mapping", file=file, field=name)
    return raw
