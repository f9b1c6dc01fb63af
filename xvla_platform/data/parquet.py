"""Parquet files as numpy columns; every way in which one can be damaged is an `XvlaError` naming the file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.reader import FloatArray
from xvla_platform.errors import XvlaError


def read_rows(path: Path, keep: Iterable[str] | None = None, drop_prefix: str = "\0") -> list[dict[str, Any]]:
    """The rows of a small table as dicts, without the columns that start with `drop_prefix`."""
    import pyarrow as pa

    file = _open(path)
    names = [name for name in file.schema_arrow.names if not name.startswith(drop_prefix)]
    if keep is not None:
        _require(names, keep, path)
        names = list(keep)
    try:
        rows: list[dict[str, Any]] = file.read(columns=names).select(names).to_pylist()
        return rows
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


class ParquetColumns:
    """Columns of one data file, each read and converted at most once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open(path)
        self.names: list[str] = list(self._file.schema_arrow.names)
        self._arrow: dict[str, Any] = {}
        self._matrices: dict[str, FloatArray] = {}
        self._groups: dict[str, dict[int, NDArray[np.int64]]] = {}

    def arrow(self, key: str) -> Any:
        """The column as a pyarrow chunked array."""
        import pyarrow as pa

        if key not in self._arrow:
            _require(self.names, [key], self.path)
            try:
                self._arrow[key] = self._file.read(columns=[key])[key]
            except (pa.ArrowException, OSError, KeyError) as error:
                raise _damaged(self.path, error) from None
        return self._arrow[key]

    def matrix(self, key: str) -> FloatArray:
        """The column as float64 [rows, D]; missing numbers are NaN."""
        if key not in self._matrices:
            self._matrices[key] = _to_matrix(self.arrow(key), key, self.path)
            self._arrow.pop(key)
        return self._matrices[key]

    def rows_of(self, key: str, value: int) -> NDArray[np.int64]:
        """The rows [n] whose integer column `key` has that value; all values are looked up in one pass."""
        if key not in self._groups:
            values = np.nan_to_num(self.matrix(key)[:, 0], nan=-1, posinf=-1, neginf=-1).astype(np.int64)
            order = np.argsort(values, kind="stable")
            starts = np.flatnonzero(np.diff(values[order], prepend=values[order[:1]] - 1)) if len(order) else order
            self._groups[key] = {int(values[part[0]]): part for part in np.split(order, starts[1:]) if len(part)}
        return self._groups[key].get(value, np.zeros(0, dtype=np.int64))


def _to_matrix(column: Any, key: str, path: Path) -> FloatArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = len(column)
    values = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    while pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or _is_fixed(values.type):
        if values.null_count:
            raise XvlaError("has rows without a value", file=path, field=key)
        if not _is_fixed(values.type) and len(pc.unique(pc.list_value_length(values))) > 1:
            raise XvlaError("has rows of different lengths", file=path, field=key)
        values = values.flatten()
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        raise XvlaError("is not a numeric column", file=path, field=key, found=str(values.type))
    numbers = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
    return numbers.reshape(rows, -1) if rows else np.zeros((0, 1))


def _is_fixed(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(kind))


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise XvlaError("data file is missing", file=path)
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _require(names: Iterable[str], wanted: Iterable[str], path: Path) -> None:
    existing = set(names)
    for key in wanted:
        if key not in existing:
            raise XvlaError("column is missing", file=path, field=key, allowed=sorted(existing))


def _damaged(path: Path, error: Exception) -> XvlaError:
    return XvlaError(
        f"data file is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
        file=path,
        hint="record or download it again; a writer that was not finalised leaves such files",
    )
