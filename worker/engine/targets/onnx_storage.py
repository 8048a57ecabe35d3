"""How weights of few bits are stored in an ONNX graph, so that the file is small and the runtime is fast.

- Integer kernels read ``DequantizeLinear(int8)``. Four-bit weights get there by a Cast, which ONNX Runtime does once,
  when it loads the file: four bits on disk, the int8 kernel at work.
- Layers that compute in float read ``Cast(values) * scale``: constants too, which ONNX Runtime folds when it loads the
  file, whereas a DequantizeLinear of a weight would run each time.
- Converters that fold everything at once (OpenVINO) would lose the few bits that way; they get DequantizeLinear, which
  they know as decompression.
"""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper
from torch import Tensor

from worker.engine.quantized.form import Weight
from worker.engine.targets.onnx_graph import initializer

Array = NDArray[np.generic]
#: Stored float format -> the integers of its size, and numpy's name for it.
_FORMATS = {
    torch.float16: (torch.int16, np.dtype(np.float16)),
    torch.bfloat16: (torch.int16, np.dtype(ml_dtypes.bfloat16)),
    torch.float8_e4m3fn: (torch.uint8, np.dtype(ml_dtypes.float8_e4m3fn)),
}


def stored_array(weight: Weight) -> Array:
    """The values in the type that the file holds: int8, int4, or a float format."""
    if weight.integers:
        values = weight.values.numpy()
        return values.astype(ml_dtypes.int4) if weight.bits == 4 else values
    integers, dtype = _FORMATS[weight.values.dtype]
    return weight.values.contiguous().view(integers).numpy().view(dtype)


def scalar(values: Array) -> Array:
    """One value without dimensions, as per-tensor scales are written; several as they are."""
    return values.reshape(()) if len(values) == 1 else values


class Storage:
    """Writes weights into a graph; nodes go to `added`, for the caller to put in order.

    Attributes:
        folds: whether the reader of the file keeps constants as they are stored and folds when it loads them.
    """

    def __init__(self, graph: GraphProto, added: list[NodeProto], *, folds: bool) -> None:
        self.graph, self.added, self.folds = graph, added, folds

    def kernel_weight(self, path: str, call: str, weight: Weight, axis: int) -> str:
        """A value for an integer kernel: ``DequantizeLinear`` of integers; transposed where `axis` is 1."""
        values = self.constant(f"{path}.weight_quantized", _arranged(stored_array(weight), axis))
        zero: Array = np.zeros(len(weight.scale), np.int8)
        if weight.bits == 4 and self.folds:
            values = self.node("Cast", [values], f"{call}.weight_widened", to=TensorProto.INT8)
        elif weight.bits == 4:
            zero = zero.astype(ml_dtypes.int4)
        scale = self.constant(f"{path}.weight_scale", scalar(weight.scale.numpy()))
        zero_point = self.constant(f"{path}.weight_zero_point", scalar(zero))
        settings = {"axis": axis} if len(weight.scale) > 1 else {}
        return self.node("DequantizeLinear", [values, scale, zero_point], f"{call}.weight_dequantized", **settings)

    def float_weight(
        self, path: str, call: str, weight: Weight, arrange: Callable[[Array], Array], axis: int | None
    ) -> str:
        """A float32 value for a layer that computes in float.

        Args:
            arrange: from the layout of the weight to that of the value.
            axis: of the channels after that; None where a one-dimensional scale cannot follow them.
        """
        if not self.folds and weight.integers and axis is not None:
            return self.kernel_weight(path, call, weight, axis)
        values = self.constant(f"{path}.weight_stored", arrange(stored_array(weight)))
        result = self.node("Cast", [values], f"{call}.weight_float", to=TensorProto.FLOAT)
        if bool((weight.scale == 1).all()):
            return result
        scales = np.broadcast_to(
            _beside(weight.scale, weight.values), weight.values.shape[:1] + (1,) * (weight.values.dim() - 1)
        )
        scale = self.constant(f"{path}.weight_scale", arrange(np.asarray(scales)))
        return self.node("Mul", [result, scale], f"{call}.weight_dequantized")

    def constant(self, name: str, values: Array) -> str:
        """An initializer, made once."""
        return initializer(self.graph, name, values)

    def node(self, operator: str, inputs: list[str], result: str, **settings: int) -> str:
        """A node with one result, made once; returns the result's name."""
        if all(result not in node.output for node in self.added):
            node = helper.make_node(operator, inputs, [result], name=f"{result}.node")
            node.attribute.extend(helper.make_attribute(key, value) for key, value in settings.items())
            self.added.append(node)
        return result


def _arranged(values: Array, axis: int) -> Array:
    return values.T if axis == 1 else values


def _beside(scale: Tensor, values: Tensor) -> Array:
    """The scales (channels, 1, ...)."""
    result: Array = scale.numpy().reshape(-1, *[1] * (values.dim() - 1))
    return result
