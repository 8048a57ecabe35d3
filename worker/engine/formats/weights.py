"""Raw weights in an archive: each checked against what the archive says of it, none unpickled."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from worker.engine.errors import InvalidModel, Unsupported
from worker.engine.formats import codes
from worker.engine.formats.archive import Archive
from worker.engine.formats.pickle_machine import refusal
from worker.engine.formats.pt2_schema import Payload, PayloadConfig

#: Numbers of `torch._export.serde.schema.ScalarType`.
DTYPES: Final[Mapping[int, torch.dtype]] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
    28: torch.uint16,
    29: torch.float8_e4m3fn,
    30: torch.float8_e5m2,
    34: torch.uint32,
    35: torch.uint64,
}
_STRIDED: Final = 7
#: A tensor may show the same memory many times (``expand``), but not make terabytes out of a byte.
_MAX_EXPANDED: Final = 1 << 24


def dtype_of(number: int) -> torch.dtype:
    """The torch dtype behind a number of the schema."""
    if number not in DTYPES:
        raise Unsupported(codes.UNSUPPORTED_INPUT, f"The model holds tensors of type number {number}.")
    return DTYPES[number]


def read_tensors(archive: Archive, folder: str, config: str) -> dict[str, Tensor]:
    """The tensors that `config`, an entry of the archive, lists; keys are fully qualified names.

    Raises:
        UnsafeFile: pickled payloads and scripted objects.
        InvalidModel: an entry that does not fit its type and shape.
    """
    try:
        payloads = PayloadConfig.model_validate_json(archive.text(config)).config
    except ValidationError as error:
        raise InvalidModel(
            codes.SCHEMA_INVALID, f"{config!r} is not what PyTorch writes: {first_problem(error)}"
        ) from error
    for name, payload in payloads.items():
        if (
            payload.use_pickle
            or payload.tensor_meta is None
            or not payload.path_name.startswith(("weight_", "tensor_"))
        ):
            raise refusal(name)
    records: dict[tuple[str, torch.dtype], Tensor] = {}

    def record(path: str, dtype: torch.dtype) -> Tensor:
        if (path, dtype) not in records:
            records[path, dtype] = read_record(archive, folder + path, dtype)
        return records[path, dtype]

    return {name: _tensor(name, payload, record) for name, payload in payloads.items()}


def read_record(archive: Archive, name: str, dtype: torch.dtype) -> Tensor:
    """The bytes of entry `name` as numbers, one dimension; copied only where they are not aligned."""
    data = archive.view(name)
    if len(data) % dtype.itemsize:
        raise InvalidModel(codes.WEIGHTS_INVALID, f"{name!r} has {len(data)} bytes, no multiple of its element size.")
    if not data:
        return torch.empty(0, dtype=dtype)
    raw = torch.frombuffer(data, dtype=torch.uint8)
    aligned = raw.data_ptr() % dtype.itemsize == 0
    if dtype is torch.bool:
        refuse_other_truth(repr(name), data)
    return (raw if aligned else raw.clone()).view(dtype)


def refuse_other_truth(what: str, data: bytes | memoryview) -> None:
    """Refuse truth values other than 0 and 1: other code takes the memory for one of them."""
    if np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise InvalidModel(codes.WEIGHTS_INVALID, f"{what} holds truth values other than 0 and 1.")


def _tensor(name: str, payload: Payload, record: Callable[[str, torch.dtype], Tensor]) -> Tensor:
    meta = payload.tensor_meta
    if meta is None or meta.layout != _STRIDED:
        raise Unsupported(codes.UNSUPPORTED_INPUT, f"Weight {name!r} is not a dense tensor.")
    flat = record(payload.path_name, dtype_of(meta.dtype))
    plain = [value.as_int if value.tag == "as_int" else -1 for value in (*meta.sizes, *meta.strides)]
    offset = meta.storage_offset.as_int if meta.storage_offset.tag == "as_int" else -1
    return strided(name, flat, plain[: len(meta.sizes)], plain[len(meta.sizes) :], offset)


def strided(name: str, flat: Tensor, sizes: Sequence[int], strides: Sequence[int], offset: int) -> Tensor:
    """`flat` seen in another shape.

    Args:
        name: of the weight, for errors.
        flat: what is stored, one dimension.
        sizes: one for each dimension; sizes, strides and offset count elements and come from the file.

    Raises:
        InvalidModel: the shape does not lie within `flat`.
    """
    if len(strides) != len(sizes) or len(sizes) > 16:
        raise InvalidModel(codes.WEIGHTS_INVALID, f"Weight {name!r} has {len(sizes)} sizes but {len(strides)} strides.")
    # Torch multiplies the sizes of an empty tensor too, as if 0 were 1.
    extent = math.prod(max(size, 1) for size in sizes)
    if extent >= 2**62 or not all(0 <= number < 2**48 for number in (*sizes, *strides, offset)):
        raise InvalidModel(codes.WEIGHTS_INVALID, f"Weight {name!r} has a size or stride that is not a plain number.")
    count = math.prod(sizes)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if count and last >= flat.numel():
        raise InvalidModel(
            codes.WEIGHTS_INVALID, f"Weight {name!r} of shape {sizes} does not fit into its {flat.numel()} elements."
        )
    if count > max(flat.numel(), _MAX_EXPANDED):
        raise InvalidModel(codes.WEIGHTS_INVALID, f"Weight {name!r} of shape {sizes} is larger than what is stored.")
    return flat.as_strided(sizes, strides, offset) if count else flat.new_empty(sizes)


def first_problem(error: ValidationError) -> str:
    """Where and what, of the first thing that a schema found wrong."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, problem['loc']))[:200]}: {problem['msg']}"
