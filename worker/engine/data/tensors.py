"""``.safetensors``: a JSON header and raw tensors, memory-mapped where they lie.

Format: https://github.com/huggingface/safetensors#format
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from worker.engine.data import codes
from worker.engine.data.npz import map_array
from worker.engine.data.samples import Array
from worker.engine.errors import InvalidDataset

MAX_HEADER = 4 * 1024**2
_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64",
}  # fmt: skip


def read(path: Path, _folder: Path) -> dict[str, Array]:
    """The tensors of a ``.safetensors`` file, memory-mapped.

    Raises:
        InvalidDataset: damaged, incomplete, or of an element type that numpy does not have.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        raw = file.read(min(length, MAX_HEADER))
    if length > MAX_HEADER:
        raise InvalidDataset(codes.FILE_DAMAGED, f"The header claims {length} bytes; at most {MAX_HEADER} are read.")
    if len(raw) < length:
        raise InvalidDataset(codes.FILE_INCOMPLETE, "The file ends inside its header; upload all of it.")
    columns = _header(raw)
    start = 8 + length
    needed = max((end for _, _, (_, end) in columns.values()), default=0)
    if start + needed > size:
        raise InvalidDataset(
            codes.FILE_INCOMPLETE,
            f"The file has {size} of the {start + needed} bytes it should have; upload all.",
        )
    return {
        name: map_array(path, name, np.dtype(dtype), shape, (start + first, start + end))
        for name, (dtype, shape, (first, end)) in columns.items()
    }


def _header(raw: bytes) -> dict[str, tuple[str, tuple[int, ...], tuple[int, int]]]:
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        return {name: _column(name, entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidDataset(codes.FILE_DAMAGED, f"The header is not that of a .safetensors file: {error}") from error


def _column(name: str, entry: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise InvalidDataset(
            codes.COLUMN_INVALID,
            f"Column {name!r} holds {str(entry['dtype'])[:20]!r}, which is not read; store it as one of "
            f"{', '.join(_DTYPES)}.",
        )
    first, end = entry["data_offsets"]
    numbers = [*entry["shape"], first, end]
    if not all(type(number) is int and 0 <= number < 2**62 for number in numbers) or first > end:
        raise ValueError(f"shape or offsets of column {name!r}")
    return dtype, tuple(entry["shape"]), (first, end)
