"""Inputs and outputs of an artifact, as its manifest tells them or, in older ones, the check of the uploaded model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.artifacts.untrusted import mapping, sequence, text

#: numpy's name -> Triton's.
TYPES: Mapping[str, str] = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}


@dataclass(frozen=True)
class Tensor:
    """An input or output; a size of -1 is free."""

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Tensors:
    """All of them; `batched`: the first dimension of each is the number of samples, which is free."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batched: bool


def read(*sources: Mapping[str, Any]) -> Tensors | None:
    """Those of the first source that tells them; None where none does."""
    for source in sources:
        sides = [[mapping(row) for row in sequence(source.get(side))] for side in ("inputs", "outputs")]
        inputs, outputs = ([_tensor(row) for row in rows] for rows in sides)
        whole = [one for one in (*inputs, *outputs) if one is not None]
        if inputs and outputs and len(whole) == len(inputs) + len(outputs):
            return Tensors(tuple(whole[: len(inputs)]), tuple(whole[len(inputs) :]), _batched(sides[0] + sides[1]))
    return None


def _tensor(row: Mapping[str, Any]) -> Tensor | None:
    name, kind, shape = text(row.get("name")), TYPES.get(text(row.get("dtype"))), row.get("shape")
    if not name or kind is None or not isinstance(shape, list):
        return None
    sizes = tuple(size if isinstance(size, int) and size > 0 else -1 for size in shape)
    return Tensor(name, kind, sizes)


def _batched(rows: Iterable[Mapping[str, Any]]) -> bool:
    firsts = {str(shape[0]) if isinstance(shape[0], str) else "" for row in rows if (shape := row["shape"] or [0])}
    return len(firsts) == 1 and "" not in firsts
