"""Mistakes in columns: outliers, holes, dims that carry nothing or are copies."""

import numpy as np

from xvla_platform.data.reader import DatasetReader, FloatArray
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.testing.faults import codes
from xvla_platform.testing.faults.declare import Part, dims, field_of, parts, spread
from xvla_platform.testing.faults.fault import Fault, Planted, chosen, generator
from xvla_platform.testing.faults.views import NumbersView, Vectors


def spikes(reader: DatasetReader, spec: EmbodimentSpec, seed: int, share: float, size: float, part: Part) -> Planted:
    """Single frames in which one position is off by `size` times its range: a sensor or a conversion hiccup."""

    def change(episode: int, vectors: Vectors) -> Vectors:
        random = generator(seed, episode)
        for name in parts(part):
            columns, values = dims(spec, name, "position"), vectors[name]
            for row in np.flatnonzero(random.random(len(values)) < share):
                column = random.choice(columns)
                values[row, column] += size * random.choice([-1, 1]) * ranges[name][column]
        return vectors

    first = [_vectors(reader, spec, episode.index) for episode in reader.episodes[:10]]
    ranges = {name: spread(np.concatenate([vectors[name] for vectors in first])) for name in ("proprio", "action")}
    return NumbersView(reader, spec, change), spec


def not_finite(
    reader: DatasetReader, spec: EmbodimentSpec, seed: int, value: float, part: Part, frames: int
) -> Planted:
    """Some frames of one episode hold NaN or infinity."""
    (hit,) = chosen(reader, 0.0, seed)

    def change(episode: int, vectors: Vectors) -> Vectors:
        for name in parts(part) if episode == hit else ():
            random = generator(seed, episode)
            rows = random.choice(len(vectors[name]), size=min(frames, len(vectors[name])), replace=False)
            vectors[name][rows, random.integers(vectors[name].shape[1])] = value
        return vectors

    return NumbersView(reader, spec, change), spec


def constant_dim(reader: DatasetReader, spec: EmbodimentSpec, seed: int, part: Part, moving: float = 0.0) -> Planted:
    """One position dim never changes, or in so few frames that its quantiles coincide."""
    column_of = int(np.random.default_rng(seed).integers(3))

    def change(episode: int, vectors: Vectors) -> Vectors:
        keep = generator(seed, episode).random(len(vectors["action"])) < moving
        for name in parts(part):
            column = dims(spec, name, "position")[column_of]
            vectors[name][~keep, column] = level[name][column]
        return vectors

    level = {name: values.mean(axis=0) for name, values in _vectors(reader, spec, 0).items()}
    return NumbersView(reader, spec, change), spec


def gripper_never_moves(reader: DatasetReader, spec: EmbodimentSpec, seed: int, part: Part) -> Planted:
    """The gripper's column holds one value: its driver was not connected."""

    def change(_: int, vectors: Vectors) -> Vectors:
        for name in parts(part):
            field, columns = field_of(spec, name, "gripper")
            vectors[name][:, columns] = field.open
        return vectors

    dims(spec, "action", "gripper")
    return NumbersView(reader, spec, change), spec


def duplicate_dim(reader: DatasetReader, spec: EmbodimentSpec, seed: int, part: Part) -> Planted:
    """One column is a copy of another: an index was counted twice in a conversion."""
    to, of = (int(place) for place in np.random.default_rng(seed).permutation(3)[:2])

    def change(_: int, vectors: Vectors) -> Vectors:
        for name in parts(part):
            columns = dims(spec, name, "position")
            vectors[name][:, columns[to]] = vectors[name][:, columns[of]]
        return vectors

    return NumbersView(reader, spec, change), spec


def _vectors(reader: DatasetReader, spec: EmbodimentSpec, episode: int) -> dict[str, FloatArray]:
    from xvla_platform.data.vectors import read_vectors

    return read_vectors(reader, episode, (("proprio", spec.proprio), ("action", spec.action)))


FAULTS = (
    Fault(
        name="spikes",
        about="single frames hold a position far from their neighbours",
        codes=codes.SPIKES,
        make=spikes,
        strengths={
            "3 ranges, 1 % of frames": {"share": 0.01, "size": 3.0, "part": "both"},
            "30 ranges, 0.3 % of frames": {"share": 0.003, "size": 30.0, "part": "proprio"},
            "30 ranges, 0.3 %, action": {"share": 0.003, "size": 30.0, "part": "action"},
        },
    ),
    Fault(
        name="not_finite",
        about="a few numbers are NaN or infinite",
        codes=codes.NOT_FINITE,
        make=not_finite,
        strengths={
            "one NaN in the action": {"value": float("nan"), "part": "action", "frames": 1},
            "five NaN in the state": {"value": float("nan"), "part": "proprio", "frames": 5},
            "infinity": {"value": float("inf"), "part": "action", "frames": 1},
        },
    ),
    Fault(
        name="constant_dim",
        about="one position dim never changes",
        codes=codes.CONSTANT,
        make=constant_dim,
        strengths={"both": {"part": "both"}, "action": {"part": "action"}, "state": {"part": "proprio"}},
    ),
    Fault(
        name="degenerate_quantiles",
        about="one dim moves in so few frames that its 1 % and 99 % quantiles coincide",
        codes=codes.DEGENERATE,
        make=constant_dim,
        strengths={
            "0.5 % of frames, state": {"part": "proprio", "moving": 0.005},
            "0.5 % of frames, action": {"part": "action", "moving": 0.005},
        },
    ),
    Fault(
        name="gripper_never_moves",
        about="the gripper's column holds one value",
        codes=codes.GRIPPER_STILL,
        make=gripper_never_moves,
        strengths={"both": {"part": "both"}, "action": {"part": "action"}, "state": {"part": "proprio"}},
    ),
    Fault(
        name="duplicate_dim",
        about="one dim is a copy of another",
        codes=codes.DUPLICATE_DIM,
        make=duplicate_dim,
        strengths={"both": {"part": "both"}, "action": {"part": "action"}, "state": {"part": "proprio"}},
    ),
)
