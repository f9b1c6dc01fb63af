"""The promises of a dataset reader, held against a real dataset of its format.

In: the factory that a plugin registers, and a place of its format. Out: nothing, or a `NotConformantError`.
"""

import pickle
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xvla_platform.data.reader import DatasetReader, ReaderFactory, open_dataset
from xvla_platform.testing.conformance import promised, require, require_refusal

MOST_EPISODES = 8
MOST_FRAMES = 24


def assert_reader_conformant(factory: ReaderFactory, place: Path) -> None:
    """Hold every promise of `xvla_platform.data.reader.DatasetReader` against the dataset at `place`.

    Looks at up to eight episodes and 24 frames of each camera in each, so a small dataset is tested whole.
    """
    place = Path(place)
    before = _state(place)
    with promised("KIT201", place):
        require("KIT201", factory.detects(place), "`detects` says no to the place", place)
        with tempfile.TemporaryDirectory() as empty:
            require("KIT201", not factory.detects(Path(empty)), "`detects` says yes to an empty folder", place)
        reader = open_dataset([factory], factory.name, place)
    require_refusal("KIT201", "a place that does not exist", lambda: open_dataset([factory], factory.name, place / "x"))
    assert_reader_answers(reader, place)
    with promised("KIT210", place):
        again = factory.open(place).fingerprint()
        require("KIT210", again == reader.fingerprint(), "another one after opening again", place)
    with promised("KIT211", place):
        copy = pickle.loads(pickle.dumps(reader))
        _same_answers("KIT211", reader, copy, place)
    require("KIT213", _state(place) == before, "a file was changed, made or removed", place)


def assert_reader_answers(reader: DatasetReader, place: Path | None = None) -> None:
    """The promises about what an open reader answers; `place` is named in the failure."""
    place = place or reader.root
    with promised("KIT202", place):
        lengths = [episode.length for episode in reader.episodes]
        told = (reader.info.episodes, reader.info.frames)
        require(
            "KIT202", told == (len(lengths), sum(lengths)), f"{told} told, {len(lengths), sum(lengths)} there", place
        )
        require("KIT202", reader.info.fps is None or reader.info.fps > 0, f"rate {reader.info.fps}", place)
    for number, episode in enumerate(reader.episodes):
        require("KIT203", episode.index == number, f"episode {number} has index {episode.index}", place)
        require("KIT203", episode.length > 0, f"episode {number} has {episode.length} frames", place)
        require("KIT203", isinstance(episode.instruction, str), f"episode {number}: {episode.instruction!r}", place)
    some = _spread(len(reader.episodes), MOST_EPISODES)
    for episode_index in some:
        _check_numbers(reader, episode_index, place)
    for key in _cameras(reader):
        for episode_index in some[:3]:
            _check_frames(reader, episode_index, key, place)
    _check_random_access(reader, some, place)
    _check_refusals(reader, place)
    with promised("KIT210", place):
        print_ = reader.fingerprint()
        fine = isinstance(print_, str) and len(print_) == 64 and set(print_) <= set("0123456789abcdef")
        require("KIT210", fine, repr(print_), place)
        require("KIT210", reader.fingerprint() == print_, "another one when asked again", place)


def _check_numbers(reader: DatasetReader, episode: int, place: Path) -> None:
    keys, length = _columns(reader), reader.episodes[episode].length
    with promised("KIT204", place):
        answer = reader.columns(episode, keys)
        require("KIT204", set(answer) == set(keys), f"keys {sorted(answer)} for {sorted(keys)}", place)
        for key, values in answer.items():
            shape = reader.info.features[key].shape
            expected = (length, int(np.prod(shape)) if shape else 1)
            seen = f"{key} of episode {episode}: {values.dtype} {values.shape}, expected float64 {expected}"
            require("KIT204", values.dtype == np.float64 and values.shape == expected, seen, place)
        require("KIT204", reader.columns(episode, []) == {}, "an answer to no key", place)
    with promised("KIT205", place):
        times = reader.timestamps(episode)
        fine = times.dtype == np.float64 and times.shape == (length,)
        require("KIT205", fine, f"{times.dtype} {times.shape} for {length} frames", place)
        if not np.isnan(times).all():
            require("KIT205", abs(times[0]) < 1e-6, f"episode {episode} starts at {times[0]:g} s", place)
            require("KIT205", (np.diff(times) > 0).all(), f"episode {episode} goes back in time", place)
    with promised("KIT209", place):
        kept = {key: values.copy() for key, values in answer.items()}
        for values in answer.values():
            if values.flags.writeable:
                values += 1.0
        again = reader.columns(episode, keys)
        same = all(np.array_equal(again[key], kept[key], equal_nan=True) for key in keys)
        require("KIT209", same, "columns changed with the array given before", place)


def _check_frames(reader: DatasetReader, episode: int, key: str, place: Path) -> None:
    length, feature = reader.episodes[episode].length, reader.info.features[key]
    rows = _spread(length, MOST_FRAMES)
    with promised("KIT206", place):
        images = reader.frames(episode, key, rows)
        expected = (len(rows), *feature.image_size, 3)
        seen = f"{key} of episode {episode}: {images.dtype} {images.shape}, expected uint8 {expected}"
        require("KIT206", images.dtype == np.uint8 and images.shape == expected, seen, place)
        none = reader.frames(episode, key, [])
        require("KIT206", none.shape == (0, *feature.image_size, 3), f"{none.shape} for no frame", place)
    order = np.random.default_rng(episode).permutation(len(rows))
    asked = [rows[place_] for place_ in order] + [rows[0], rows[0]]
    with promised("KIT207", place):
        mixed = reader.frames(episode, key, np.asarray(asked))
        expected_images = images[[*order, 0, 0]]
        require("KIT207", np.array_equal(mixed, expected_images), f"{key} of episode {episode}, mixed order", place)
    with promised("KIT208", place):
        for number in (0, len(rows) // 2, len(rows) - 1):
            single = reader.frames(episode, key, [rows[number]])
            seen = f"frame {rows[number]} of {key}, episode {episode}, read alone"
            require("KIT208", np.array_equal(single[0], images[number]), seen, place)
    with promised("KIT209", place):
        kept = images.copy()
        if images.flags.writeable:
            images[:] = 0
        require("KIT209", np.array_equal(reader.frames(episode, key, rows), kept), "frames changed too", place)


def _check_random_access(reader: DatasetReader, some: Sequence[int], place: Path) -> None:
    keys = _columns(reader)
    with promised("KIT208", place):
        forward = {episode: reader.columns(episode, keys) for episode in some}
        for episode in reversed(some):
            for key in keys:
                alone = reader.columns(episode, [key])[key]
                same = np.array_equal(alone, forward[episode][key], equal_nan=True)
                require("KIT208", same, f"{key} of episode {episode}, read alone and backwards", place)


def _check_refusals(reader: DatasetReader, place: Path) -> None:
    last, keys, cameras = len(reader.episodes), _columns(reader), _cameras(reader)
    absent = "no.such.key"
    asked: list[tuple[str, Callable[[], Any]]] = [
        (f"column {absent}", partial(reader.columns, 0, [absent])),
        (f"camera {absent}", partial(reader.frames, 0, absent, [0])),
    ]
    for episode in (last, -1):
        asked.append((f"columns of episode {episode}", partial(reader.columns, episode, keys)))
        asked.append((f"times of episode {episode}", partial(reader.timestamps, episode)))
    if keys:
        asked.append(("a column as a camera", partial(reader.frames, 0, keys[0], [0])))
    for camera in cameras[:1]:
        beyond = reader.episodes[0].length
        asked.append((f"frame {beyond} of {beyond}", partial(reader.frames, 0, camera, [beyond])))
        asked.append(("frame -1", partial(reader.frames, 0, camera, [-1])))
        asked.append((f"frames of episode {last}", partial(reader.frames, last, camera, [0])))
    for what, call in asked:
        require_refusal("KIT212", what, call, place)


def _same_answers(code: str, one: DatasetReader, other: DatasetReader, place: Path) -> None:
    keys = _columns(one)
    for episode in _spread(len(one.episodes), 2):
        a, b = one.columns(episode, keys), other.columns(episode, keys)
        same = all(np.array_equal(a[key], b[key], equal_nan=True) for key in keys)
        require(code, same, f"other columns in episode {episode}", place)
        for camera in _cameras(one):
            same = np.array_equal(one.frames(episode, camera, [0]), other.frames(episode, camera, [0]))
            require(code, same, f"other frames of {camera} in episode {episode}", place)


def _columns(reader: DatasetReader) -> list[str]:
    """The numeric columns; ones of text are not what `columns` is for."""
    return [
        key
        for key, feature in reader.info.features.items()
        if not feature.is_camera and feature.dtype not in ("string", "language")
    ]


def _cameras(reader: DatasetReader) -> list[str]:
    return [key for key, feature in reader.info.features.items() if feature.is_camera]


def _spread(count: int, most: int) -> list[int]:
    """At most so many of `range(count)`, ends included."""
    return sorted({round(float(place)) for place in np.linspace(0, count - 1, min(count, most))})


def _state(place: Path) -> dict[str, tuple[int, int]]:
    files = place.rglob("*") if place.is_dir() else [place]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file()}
