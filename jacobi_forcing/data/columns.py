"""Nested lists of a Parquet file as flat numpy arrays: no Python object per token.

A column of lists is its values, one list behind the other, and offsets: list i holds
`values[offsets[i] : offsets[i + 1]]`. Lists of lists have offsets at every depth.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jacobi_forcing.errors import DataError


def read_batches(path: Path, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """Read a Parquet file piece by piece, in one thread.

    Args:
        path: The file.
        schema: The columns to read.
        rows: Rows per batch at most.

    Raises:
        DataError: The file cannot be read, or a column is missing or of another type.
    """
    try:
        # One file, not a data set: folders named key=value above it must not become columns.
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow, schema)
            yield from file.iter_batches(rows, columns=schema.names, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}.") from error


def _check_columns(path: Path, found: pa.Schema, needed: pa.Schema) -> None:
    for column in needed:
        if column.name not in found.names:
            raise DataError(f"{path}: has no column {column.name}.")
        its_type = found.field(column.name).type
        if its_type != column.type:
            raise DataError(
                f"{path}: column {column.name} is {its_type}, needed is {column.type}. It was "
                "written by another version, or not by `jacobi`; make it again."
            )


def unnest(column: pa.Array, where: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Give a list column's offsets, outermost first and beginning with 0, and its values.

    Raises:
        DataError: There is a null in it; it names `where`.
    """
    offsets = []
    while pa.types.is_list(column.type):
        _refuse_nulls(column, where)
        ends = column.offsets.to_numpy()
        offsets.append(ends - ends[0])
        column = column.flatten()
    _refuse_nulls(column, where)
    return offsets, column.to_numpy()


def _refuse_nulls(column: pa.Array, where: str) -> None:
    if column.null_count:
        raise DataError(f"{where}: holds a null where a list or a number is needed.")


def nest(offsets: Sequence[np.ndarray], values: np.ndarray, value_type: pa.DataType) -> pa.Array:
    """Undo `unnest`."""
    column = pa.array(values, value_type)
    for ends in reversed(offsets):
        column = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), column)
    return column


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Turn the lengths of lists into their offsets."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
