"""A declared vector read from its dataset columns: one array in declared order, whatever columns it lies in."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.reader import DatasetReader, FloatArray
from xvla_platform.errors import XvlaError
from xvla_platform.specs.fields import ActionSpec, VectorSpec

Vector = VectorSpec | ActionSpec


def read_vector(reader: DatasetReader, episode: int, vector: Vector, name: str) -> FloatArray:
    """The vector's recorded numbers of one episode, float64 [L, vector.size] in declared order.

    `name` (`proprio` or `action`) is for the message when a column has another width than its fields take.
    """
    return read_vectors(reader, episode, ((name, vector),))[name]


def read_vectors(reader: DatasetReader, episode: int, vectors: Iterable[tuple[str, Vector]]) -> dict[str, FloatArray]:
    """Several named vectors of one episode, each [L, vector.size], reading each column once."""
    wanted = list(vectors)
    keys = list(dict.fromkeys(key for _, vector in wanted for key in vector.columns()))
    columns = reader.columns(episode, keys)
    return {name: _assemble(columns, vector, name, reader) for name, vector in wanted}


def split_vector(vector: Vector, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """A vector [L, vector.size] as its dataset columns, the inverse of `read_vector`."""
    slices = vector.slices()
    return {
        key: np.concatenate([values[:, slices[field.name]] for field in fields], axis=1)
        for key, fields in vector.columns().items()
    }


def column_name(vector: Vector, name: str, dim: int) -> str:
    """`action.position[1]` for a dim of a recorded vector."""
    for field, slot in vector.slices().items():
        if slot.start <= dim < slot.stop:
            return f"{name}.{field}[{dim - slot.start}]"
    return f"{name}[{dim}]"


def label(vector: Vector) -> str:
    """The vector's columns for messages: `observation.state`, or several joined by ` + `."""
    return " + ".join(vector.columns())


def _assemble(columns: dict[str, FloatArray], vector: Vector, name: str, reader: DatasetReader) -> FloatArray:
    slices = vector.slices()
    rows = len(columns[next(iter(vector.columns()))])
    out = np.zeros((rows, vector.size))
    for key, fields in vector.columns().items():
        values, taken = columns[key], sum(field.size for field in fields)
        if values.shape[1] != taken:
            raise XvlaError(
                f"the declared fields take {taken} numbers, column '{key}' has {values.shape[1]}",
                file=reader.root,
                field=f"{name}.fields",
                found=", ".join(f"{field.name} {field.size}" for field in fields),
                hint="numbers that the robot does not use are a field of kind ignored",
            )
        if len(values) != rows:
            raise XvlaError(f"column '{key}' has {len(values)} rows, others have {rows}", file=reader.root, field=name)
        start = 0
        for field in fields:
            out[:, slices[field.name]] = values[:, start : start + field.size]
            start += field.size
    return out
