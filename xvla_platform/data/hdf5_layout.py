"""Where the episodes of HDF5 recordings lie: the layouts of ALOHA/ACT and of robomimic/LIBERO.

ALOHA: one file an episode, with `/action` and `/observations`. robomimic: one file of many demonstrations,
`/data/demo_<i>/actions` and `obs`, with `env_args` and (LIBERO) `problem_info` as JSON attributes of `/data`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xvla_platform.data.hdf5_file import (
    SIGNATURE,
    episode_length,
    find_dataset,
    json_attribute,
    member,
    open_file,
    reading,
    text_of,
)
from xvla_platform.data.reader import require_inside
from xvla_platform.errors import XvlaError

ENDINGS = (".hdf5", ".h5")
ACTIONS = ("action", "actions")
LANGUAGE = ("language_instruction", "language_raw", "instruction")


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One episode: its file, the path of its group there (empty for the whole file), length, language and rate."""

    file: Path
    group: str
    length: int
    instruction: str
    fps: float | None


def hdf5_files(place: Path) -> list[Path]:
    """The file itself, or the folder's HDF5 files in natural order (`episode_2` before `episode_10`)."""
    if place.is_file():
        return [place]
    files = [path for path in place.rglob("*") if path.suffix in ENDINGS and path.is_file()]
    return sorted(files, key=lambda path: natural(path.relative_to(place).as_posix()))


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key that reads digits as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() and len(part) < 19 else (1, 0, part) for part in parts]


def is_hdf5(file: Path) -> bool:
    """Whether the file starts as HDF5 files do."""
    try:
        with file.open("rb") as stream:
            return stream.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


def find_episodes(place: Path) -> list[Recorded]:
    """Every episode of the file, or of the folder's files."""
    files = hdf5_files(place)
    if not files:
        raise XvlaError("holds no HDF5 file", file=place, allowed=ENDINGS)
    root = place if place.is_dir() else place.parent
    return [recorded for file in files for recorded in _episodes(require_inside(root, file))]


def _episodes(file: Path) -> Iterator[Recorded]:
    content = open_file(file)
    try:
        with reading(file):
            names = list(content)
        if "data" in names and not set(names) & set(ACTIONS):
            yield from _robomimic(content, file)
        else:
            yield Recorded(file=file, group="", length=_length(content, file, ""),
                           instruction=instruction_of(content, file), fps=None)  # fmt: skip
    finally:
        content.close()


def _robomimic(content: Any, file: Path) -> Iterator[Recorded]:
    import h5py

    with reading(file):
        data = member(content, "data", "data", file)
        names = sorted(data, key=natural) if isinstance(data, h5py.Group) else []
    if not names:
        raise XvlaError("holds no demonstration", file=file, field="data")
    fps = _rate(json_attribute(data.attrs, "env_args", file), file)
    task = _sentence(json_attribute(data.attrs, "problem_info", file).get("language_instruction"))
    for name in names:
        path = f"data/{name}"
        with reading(file, f"'{path}'"):
            demo = member(data, name, path, file)
        if not isinstance(demo, h5py.Group):
            raise XvlaError("is not a demonstration", file=file, field=path)
        own = _sentence(json_attribute(demo.attrs, "ep_meta", file).get("lang")) or instruction_of(demo, file)
        yield Recorded(file=file, group=path, length=_length(demo, file, path), instruction=own or task, fps=fps)


def _length(group: Any, file: Path, path: str) -> int:
    for name in ACTIONS:
        if name in group:
            return episode_length(find_dataset(group, name, file), file, f"{path}/{name}".strip("/"))
    raise XvlaError("holds no actions, so it is no episode", file=file, field=path or None, allowed=ACTIONS)


def instruction_of(group: Any, file: Path) -> str:
    """The language command stored beside the numbers, as a dataset or an attribute; empty where there is none."""
    with reading(file):
        for name in LANGUAGE:
            if name in group.attrs:
                return text_of(group.attrs[name]) or ""
            if name in group:
                return read_text(find_dataset(group, name, file), file, name)
    return ""


def read_text(dataset: Any, file: Path, key: str) -> str:
    """The (first) string of a dataset."""
    if dataset.dtype.kind not in "OSU" or dataset.size is None:
        raise XvlaError("is not text", file=file, field=key, found=str(dataset.dtype))
    with reading(file, f"'{key}'"):
        if dataset.size == 0:
            return ""
        return text_of(dataset[()] if dataset.shape == () else dataset[(0,) * len(dataset.shape)]) or ""


def _rate(env_args: Any, file: Path) -> float | None:
    arguments = env_args.get("env_kwargs")
    stated = arguments.get("control_freq") if isinstance(arguments, dict) else None
    if stated is None:
        return None
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 < stated < 10_000:
        raise XvlaError(
            "frame rate must be positive", file=file, field="env_args.env_kwargs.control_freq", found=stated
        )
    return float(stated)


def _sentence(value: Any) -> str:
    """LIBERO stores the sentence as text, in quotes, or as a list of pieces."""
    pieces = value if isinstance(value, list) else [value]
    return "".join(str(piece) for piece in pieces if piece is not None).strip().strip('"').strip()
