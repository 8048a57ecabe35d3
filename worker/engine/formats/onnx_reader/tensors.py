"""Tensors of an ONNX file as those of torch, and which element types are read."""

from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from worker.engine.errors import InvalidModel, Unsupported
from worker.engine.formats import codes

#: ONNX element type -> torch.
DTYPES: Final[dict[int, torch.dtype]] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.UINT16: torch.uint16,
    onnx.TensorProto.UINT32: torch.uint32,
    onnx.TensorProto.UINT64: torch.uint64,
    onnx.TensorProto.BOOL: torch.bool,
    onnx.TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    onnx.TensorProto.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    onnx.TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    onnx.TensorProto.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
}

#: Integers of 4 and 2 bits, which torch cannot compute with: constants of these types are kept in 8 bits, and say so
#: in their attribute ``onnx_type``.
NARROW: Final[dict[int, Any]] = {
    onnx.TensorProto.INT4: np.int8,
    onnx.TensorProto.UINT4: np.uint8,
    onnx.TensorProto.INT2: np.int8,
    onnx.TensorProto.UINT2: np.uint8,
}


def to_torch(tensor: onnx.TensorProto) -> Tensor:
    """A tensor of the file, with memory of its own.

    Raises:
        Unsupported: an element type that networks do not have.
        InvalidModel: data that does not fill the shape.
    """
    dtype = None if tensor.data_type in NARROW else dtype_of(tensor)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise InvalidModel(codes.WEIGHTS_INVALID, f"Weight {tensor.name[:120]!r} cannot be read: {error}") from error
    if dtype is None:
        widened = torch.from_numpy(array.astype(NARROW[tensor.data_type]))
        widened.onnx_type = tensor.data_type  # type: ignore[attr-defined]
        return widened
    if dtype is torch.bfloat16 or (dtype.is_floating_point and dtype.itemsize == 1):  # none of numpy's own types
        bits = np.int16 if dtype is torch.bfloat16 else np.int8
        return torch.from_numpy(np.ascontiguousarray(array).view(bits).copy()).view(dtype)
    return torch.from_numpy(np.array(array, order="C"))


def dtype_of(tensor: onnx.TensorProto) -> torch.dtype:
    """The element type of a tensor of the file.

    Raises:
        Unsupported: a type that networks do not have.
    """
    if tensor.data_type == onnx.TensorProto.STRING:
        raise Unsupported(
            codes.UNSUPPORTED_INPUT,
            f"{tensor.name[:120]!r} holds strings, which networks do not have. Train a scikit-learn model with "
            'integer classes and convert it with options={id(model): {"zipmap": False}}.',
        )
    if tensor.data_type not in DTYPES:
        known = tensor.data_type in onnx.TensorProto.DataType.values()
        kind = onnx.TensorProto.DataType.Name(tensor.data_type) if known else f"number {tensor.data_type}"
        raise Unsupported(codes.UNSUPPORTED_INPUT, f"Weight {tensor.name[:120]!r} is of type {kind}.")
    return DTYPES[tensor.data_type]
