"""A dataset file as named arrays, and the limits that every reader of untrusted files keeps."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from worker.engine.data import codes
from worker.engine.data.samples import Array
from worker.engine.errors import InvalidDataset

Table = Mapping[str, Array]

#: Element types that a runtime can be fed with.
DTYPES = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
)  # fmt: skip
#: Most columns in one file, and the longest name of one.
MAX_COLUMNS, MAX_NAME = 256, 200
#: Most bytes that a file may unpack to, and how many times its own size once it is beyond what is harmless.
MAX_BYTES, MAX_RATIO, HARMLESS_BYTES = 64 * 1024**3, 200, 256 * 1024**2
#: Bytes that are looked at together when a column is scanned or copied.
CHUNK_BYTES = 8 * 1024**2


def refuse_bomb(path: Path, unpacked: int) -> None:
    """Refuse a file that says it unpacks to far more than it is."""
    size = path.stat().st_size
    if unpacked > MAX_BYTES or (unpacked > HARMLESS_BYTES and unpacked > MAX_RATIO * size):
        raise InvalidDataset(
            codes.ARCHIVE_TOO_LARGE,
            f"The file has {size} bytes and unpacks to {unpacked}: more than {MAX_RATIO} times its size, or more than "
            f"{MAX_BYTES // 1024**3} GiB. Upload fewer samples, or store them uncompressed (np.savez).",
        )


def refuse_name(name: str) -> None:
    """Refuse a column name that could not be the name of an input."""
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise InvalidDataset(
            codes.COLUMN_INVALID,
            f"A column is named {name[:MAX_NAME]!r}; names are printable and at most {MAX_NAME} characters long.",
        )


def refuse_dtype(name: str, dtype: np.dtype[np.generic]) -> None:
    """Refuse element types that no runtime is fed with: strings, times, complex numbers, foreign byte order."""
    if dtype.name not in DTYPES or not dtype.isnative:
        raise InvalidDataset(
            codes.COLUMN_INVALID,
            f"Column {name!r} holds {dtype.str!r}; use one of {', '.join(DTYPES)} in little-endian byte order.",
        )


def chunks(array: Array) -> Iterator[Array]:
    """The rows of `array` in order, a few MiB at a time."""
    row = max(1, array.nbytes // max(1, len(array)))
    step = max(1, CHUNK_BYTES // row)
    for start in range(0, len(array), step):
        yield array[start : start + step]


def validate(table: Table) -> Table:
    """Check what can be checked without a model; returns `table`.

    Raises:
        InvalidDataset: no columns, no rows, rows that differ in number, scalars, NaN or infinities.
    """
    if not table or len(table) > MAX_COLUMNS:
        raise InvalidDataset(codes.COLUMN_INVALID, f"The file has {len(table)} columns; it needs 1 to {MAX_COLUMNS}.")
    for name, array in table.items():
        refuse_name(name)
        refuse_dtype(name, array.dtype)
        if array.ndim == 0:
            raise InvalidDataset(
                codes.COLUMN_INVALID, f"Column {name!r} is a single number; its first dimension must be the samples."
            )
    lengths = {name: len(array) for name, array in table.items()}
    if len(set(lengths.values())) > 1:
        spelled = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise InvalidDataset(
            codes.LENGTHS_DIFFER,
            f"Columns differ in their number of samples ({spelled}); the first dimension of each must be the same.",
        )
    if 0 in lengths.values() or any(array.size == 0 for array in table.values()):
        raise InvalidDataset(codes.TOO_FEW_SAMPLES, "The file holds no samples; upload at least 8.")
    for name, array in table.items():
        _refuse_not_finite(name, array)
    return table


def _refuse_not_finite(name: str, array: Array) -> None:
    if array.dtype.kind != "f":
        return
    row = 0
    for chunk in chunks(array):
        finite = np.isfinite(chunk).reshape(len(chunk), -1).all(axis=1)
        if not finite.all():
            raise InvalidDataset(
                codes.NOT_FINITE,
                f"Column {name!r} has NaN or infinity, first in sample {row + int(np.argmin(finite))}; "
                "remove or fill such samples and upload the file again.",
            )
        row += len(chunk)
