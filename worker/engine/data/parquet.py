"""``.parquet``: columns of numbers, of (nested) lists of equal length, or of Arrow's fixed-shape tensors.

Decoded one batch of rows at a time into scratch files, so that memory does not grow with the file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap

from worker.engine.data import codes
from worker.engine.data.samples import Array
from worker.engine.data.table import MAX_COLUMNS, refuse_bomb, refuse_dtype, refuse_name
from worker.engine.errors import InvalidDataset

_ROWS = 512
_LISTS = (pa.lib.ListType, pa.lib.LargeListType, pa.lib.FixedSizeListType)


def read(path: Path, folder: Path) -> dict[str, Array]:
    """The columns of a ``.parquet`` file, decoded into memory-mapped scratch files in `folder`.

    Raises:
        InvalidDataset: damaged, a bomb, nulls, lists that differ in length, or columns that are not numbers.
    """
    try:
        with pq.ParquetFile(path, thrift_string_size_limit=2**24, thrift_container_size_limit=2**20) as file:
            return _decode(path, file, folder)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InvalidDataset(
            codes.FILE_DAMAGED,
            f"The .parquet file cannot be decoded: {str(error)[:300]}. Write it again.",
        ) from error


def _decode(path: Path, file: Any, folder: Path) -> dict[str, Array]:
    names, rows = list(file.schema_arrow.names), int(file.metadata.num_rows)
    if len(names) > MAX_COLUMNS or len(set(names)) != len(names):
        raise InvalidDataset(codes.COLUMN_INVALID, f"The file needs at most {MAX_COLUMNS} columns, each named once.")
    columns: dict[str, Any] = {}
    for start, batch in _batches(file):
        arrays = {name: _numbers(name, batch.column(index)) for index, name in enumerate(names)}
        if not columns:
            refuse_bomb(path, sum(array[:1].nbytes * rows for array in arrays.values()))
            columns = {
                name: open_memmap(
                    folder / f"column-{index}.npy", mode="w+", dtype=array.dtype, shape=(rows, *array.shape[1:])
                )
                for index, (name, array) in enumerate(arrays.items())
            }
        for name, array in arrays.items():
            if array.shape[1:] != columns[name].shape[1:]:
                raise _ragged(name)
            columns[name][start : start + len(array)] = array
    return columns or {name: np.zeros((0,), np.float32) for name in names}


def _batches(file: Any) -> Iterator[tuple[int, Any]]:
    start = 0
    for batch in file.iter_batches(batch_size=_ROWS, use_threads=False):
        yield start, batch
        start += len(batch)


def _numbers(name: str, column: Any) -> Array:
    """A column of `rows` values as an array (rows, *shape of one value)."""
    refuse_name(name)
    if isinstance(column.type, pa.FixedShapeTensorType):
        return np.asarray(column.to_numpy_ndarray())
    rows, sizes = len(column), []
    while isinstance(column.type, _LISTS):
        _refuse_nulls(name, column)
        flat = column.flatten()
        if len(column) and len(flat) % len(column):
            raise _ragged(name)
        sizes.append(len(flat) // max(1, len(column)))
        if len(column) and (np.diff(_lengths(column)) != 0).any():
            raise _ragged(name)
        column = flat
    _refuse_nulls(name, column)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
        raise InvalidDataset(
            codes.COLUMN_INVALID, f"Column {name!r} holds {column.type}; columns are numbers or lists of numbers."
        )
    array = np.asarray(column.to_numpy(zero_copy_only=False))
    refuse_dtype(name, array.dtype)
    return array.reshape(rows, *sizes)


def _lengths(column: Any) -> Array:
    if isinstance(column.type, pa.lib.FixedSizeListType):
        return np.full(len(column), column.type.list_size)
    return np.asarray(column.value_lengths().to_numpy(zero_copy_only=False))


def _refuse_nulls(name: str, column: Any) -> None:
    if column.null_count:
        raise InvalidDataset(codes.NOT_FINITE, f"Column {name!r} has nulls; remove or fill such samples.")


def _ragged(name: str) -> InvalidDataset:
    return InvalidDataset(
        codes.COLUMN_INVALID, f"Lists in column {name!r} differ in length; every sample must have the same shape."
    )
