"""Weights in the safetensors format: a header of JSON, then bytes; used where they lie.

The format: https://github.com/huggingface/safetensors (eight bytes of length, the header, the tensors without gaps).
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Final

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from worker.engine.errors import InvalidModel, Unsupported
from worker.engine.formats import codes
from worker.engine.formats.archive import Archive
from worker.engine.formats.mapped import Mapped
from worker.engine.formats.weights import first_problem, refuse_other_truth

_MAX_HEADER: Final = 100 << 20
_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"

_MOST: Final = 2**48  # elements
_Size = Annotated[int, Field(ge=0, lt=2**48)]


class _Entry(BaseModel):
    """One tensor in a header."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dtype: str
    shape: Annotated[list[_Size], Field(max_length=16)]
    data_offsets: Annotated[list[_Size], Field(min_length=2, max_length=2)]


class _Index(BaseModel):
    """Which shard holds which weight."""

    weight_map: dict[str, str]


_HEADER: Final = TypeAdapter(dict[str, _Entry | dict[str, str]])


def read_weights(archive: Archive) -> tuple[dict[str, Tensor], list[Callable[[], None]]]:
    """All weights of a folder, from one file or from the shards that its index lists, and what checks their bytes.

    Raises:
        InvalidModel: a shard that is missing or damaged.
        Unsupported: an element type that networks do not have.
    """
    if SINGLE in archive.entries or INDEX not in archive.entries:
        tensors, check = _read(archive, SINGLE)
        return tensors, [check]
    try:
        index = _Index.model_validate_json(archive.text(INDEX)).weight_map
    except ValidationError as error:
        raise InvalidModel(codes.SCHEMA_INVALID, f"{INDEX!r} is no index: {first_problem(error)}") from error
    shards = {shard: _read(archive, shard) for shard in dict.fromkeys(index.values())}
    missing = [name for name, shard in index.items() if name not in shards[shard][0]]
    if missing:
        raise InvalidModel(
            codes.FILE_INCOMPLETE,
            f"{len(missing)} weights that {INDEX!r} lists are in no shard, the first of them {missing[0][:200]!r}.",
        )
    return {name: shards[shard][0][name] for name, shard in index.items()}, [check for _, check in shards.values()]


def _read(archive: Archive, name: str) -> tuple[dict[str, Tensor], Callable[[], None]]:
    data, check = archive.unchecked(name)
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_MAX_HEADER, len(data) - 8):
        raise InvalidModel(codes.FILE_DAMAGED, f"{name!r} is no safetensors file, or it was cut off.")
    try:
        header: Mapping[str, _Entry | dict[str, str]] = _HEADER.validate_json(bytes(data[8 : 8 + length]))
    except ValidationError as error:
        raise InvalidModel(
            codes.SCHEMA_INVALID, f"{name!r} does not start as safetensors do: {first_problem(error)}"
        ) from error
    body = data[8 + length :]
    entries = {key: entry for key, entry in header.items() if isinstance(entry, _Entry)}
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: entry.data_offsets):
        if entry.data_offsets[0] != end:
            raise InvalidModel(codes.WEIGHTS_INVALID, f"The weights of {name!r} do not lie one behind the other.")
        end = entry.data_offsets[1]
    return {key: _tensor(name, key, entry, body) for key, entry in entries.items()}, check


def _tensor(file: str, key: str, entry: _Entry, body: memoryview) -> Tensor:
    if entry.dtype not in _DTYPES:
        raise Unsupported(
            codes.UNSUPPORTED_INPUT,
            f"Weight {key[:120]!r} is of type {entry.dtype[:20]}; upload the model before it was quantized.",
        )
    dtype, (start, end) = _DTYPES[entry.dtype], entry.data_offsets
    possible = math.prod(max(size, 1) for size in entry.shape) < _MOST
    if not possible or end > len(body) or end - start != math.prod(entry.shape) * dtype.itemsize:
        raise InvalidModel(
            codes.WEIGHTS_INVALID,
            f"Weight {key[:120]!r} of shape {entry.shape} does not lie at bytes {start} to {end} of {file!r}.",
        )
    if dtype is torch.bool:
        refuse_other_truth(f"Weight {key[:120]!r}", body[start:end])
    return Mapped.tensor(body[start:end], dtype, entry.shape)
