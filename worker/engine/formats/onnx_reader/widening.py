"""Models of another precision as float32 networks.

Methods train, calibrate and round weights of float32. So where a file keeps its weights in float16 or bfloat16 (or in
float64, as converters of scikit-learn can), the network computes in float32 throughout; only its inputs and outputs
keep the types that the file gives them, so that what a user feeds stays the same.
"""

from collections.abc import Iterable
from typing import Any, Final

import onnx
import torch
from torch import Tensor

_HALVES: Final = (torch.float16, torch.bfloat16)
#: Operators whose constant inputs are weights. DequantizeLinear gives them the type of its scale.
_WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "DequantizeLinear")


def other_types(graph: onnx.GraphProto, constants: dict[str, Tensor]) -> frozenset[torch.dtype]:
    """The types other than float32 that weights of the graph have."""
    halves = {t.dtype for t in constants.values() if t.dim() >= 2 and t.dtype in _HALVES}
    used = {name for node in graph.node if node.op_type in _WEIGHTED for name in node.input}
    weights = {constants[name].dtype for name in used & constants.keys()}
    return frozenset(halves | (weights & {*_HALVES, torch.float64}))


def to_float32(value: Any, kinds: frozenset[torch.dtype]) -> Any:
    """`value` in float32 where it is a tensor of one of these types."""
    return value.float() if isinstance(value, Tensor) and value.dtype in kinds else value


def notes(kinds: Iterable[torch.dtype]) -> list[str]:
    """What the user is told."""
    names = sorted(str(kind).removeprefix("torch.") for kind in kinds)
    if not names:
        return []
    return [
        f"Weights of {' and '.join(names)} are read as float32, and the network computes in it; inputs and outputs "
        "keep the types of the file."
    ]
