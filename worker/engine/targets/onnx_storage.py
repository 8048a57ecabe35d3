"""How weights of few bits are stored in an ONNX graph, so that the file is small and the runtime is fast.

- Integer kernels read ``DequantizeLinear(int8)``. Four-bit weights get there by a Cast, which ONNX Runtime does once,
  when it loads the file: four bits on disk, the int8 kernel at work.
- Layers that compute in float read ``Cast(values) * scale``: constants too, which ONNX Runtime folds when it loads the
  file, whereas a DequantizeLinear of a weight would run each time.
- Weights in groups, and widths that ONNX has no type for, are packed bytes behind shifts, masks and what scales them,
  which ONNX Runtime folds when it loads the file. Linear layers of four bits have a kernel that reads them packed.
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
from worker.engine.quantized.packing import BYTE, pack, parts, shifts
from worker.engine.targets.onnx_graph import initializer

Array = NDArray[np.generic]
#: Widths that no type of ONNX's that runtimes read has.
_PACKED = (1, 2, 3, 5, 6, 7)
#: What MatMulNBits of ONNX Runtime, whose operators are in a domain of their own, is fast at.
_KERNEL_BITS, _BLOCKS, MICROSOFT = 4, (16, 32, 64, 128, 256), "com.microsoft"
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


def is_packed(weight: Weight) -> bool:
    """Whether the file holds packed codes, not one of ONNX's types with a scale to a channel."""
    if weight.centroids is not None:
        return True
    return weight.integers and (weight.scale.dim() > 1 or weight.zero_point is not None or weight.bits in _PACKED)


def scalar(values: Array) -> Array:
    """One value without dimensions, as per-tensor scales are written; several as they are."""
    return values.reshape(()) if len(values) == 1 else values


def blocked(weight: Weight) -> bool:
    """Whether ONNX Runtime has a fast kernel for such a linear layer.

    It reads 8 and 2 bits too, and zero points between integers, at 8 to 23 times the time of float (batch 1).
    """
    if not weight.integers or weight.scale.dim() == 1 or weight.bits != _KERNEL_BITS:
        return False
    between = weight.zero_point is not None and weight.zero_point.is_floating_point()
    return not between and weight.shape[1] // weight.scale.shape[1] in _BLOCKS


def blocks(path: str, weight: Weight) -> dict[str, Array]:
    """Name -> constant: the weight as MatMulNBits reads it; its zero points are unsigned codes too."""
    channels, groups = weight.scale.shape
    codes = pack(weight.codes(), weight.bits)[0].reshape(channels, groups, -1)
    found = {f"{path}.weight_packed": codes.numpy(), f"{path}.weight_scale": weight.scale.numpy()}
    if weight.zero_point is not None:
        rows = torch.nn.functional.pad(weight.zero_point.int() - weight.low, (0, -groups % (BYTE // weight.bits)))
        found[f"{path}.weight_zero_point"] = pack(rows, weight.bits)[0].reshape(channels, -1).numpy()
    return found


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
        if is_packed(weight):
            return self._laid_out(call, self.unpacked(path, call, weight), weight.shape, arrange)
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

    def unpacked(self, path: str, call: str, weight: Weight) -> str:
        """A float32 value in the shape of the layer's weight, of which the file holds packed codes."""
        if weight.centroids is not None:
            codes = self._codes(path, call, weight)
            books, k, vector = weight.centroids.shape
            codes = self.node("Cast", [codes], f"{call}.codes_wide", to=TensorProto.INT32)
            codes = self._reshaped(codes, f"{call}.codes", tuple(weight.values.shape))
            if books > 1:
                first = self.constant(f"{path}.first_centroid", (np.arange(books, dtype=np.int32) * k)[:, None])
                codes = self.node("Add", [codes, first], f"{call}.centroid")
            table = self.constant(f"{path}.centroids", weight.centroids.reshape(books * k, vector).numpy())
            values = self.node("Gather", [table, codes], f"{call}.weight_vectors", axis=0)
            return self._reshaped(values, f"{call}.weight_float", tuple(weight.shape))
        if not self.folds:
            return self._reshaped(self._decompressed(path, call, weight), f"{call}.weight_float", tuple(weight.shape))
        groups = weight.scale.shape[1] if weight.scale.dim() > 1 else 1
        rows = (weight.shape[0], groups, -1)
        values = self._codes(path, call, weight)
        values = self.node("Cast", [values], f"{call}.weight_codes", to=TensorProto.FLOAT)
        values = self._reshaped(values, f"{call}.weight_groups", rows)
        zero_points = torch.zeros_like(weight.scale) if weight.zero_point is None else weight.zero_point.float()
        offset = self.constant(f"{path}.weight_offset", (weight.low - zero_points).reshape(-1, groups, 1).numpy())
        values = self.node("Add", [values, offset], f"{call}.weight_steps")
        scale = self.constant(f"{path}.weight_scale", weight.scale.reshape(-1, groups, 1).numpy())
        values = self.node("Mul", [values, scale], f"{call}.weight_scaled")
        return self._reshaped(values, f"{call}.weight_float", tuple(weight.shape))

    def _decompressed(self, path: str, call: str, weight: Weight) -> str:
        """(channels, weights of a channel) in float32, from a type of the file's own by DequantizeLinear in blocks."""
        rows, grouped = stored_array(weight).reshape(len(weight.values), -1), weight.scale.dim() > 1
        points = None if weight.zero_point is None else weight.zero_point.numpy()
        if points is not None and points.dtype.kind == "f":
            return self._decompressed_between(path, call, weight, points)
        values = self.constant(f"{path}.weight_quantized", rows)
        inputs = [values, self.constant(f"{path}.weight_scale", weight.scale.numpy())]
        if points is not None:
            inputs.append(self.constant(f"{path}.weight_zero_point", points.astype(rows.dtype)))
        blocks = {"block_size": rows.shape[1] // weight.scale.shape[1]} if grouped else {}
        axis = {"axis": 1 if blocks else 0} if weight.scale.numel() > 1 else {}
        return self.node("DequantizeLinear", inputs, f"{call}.weight_rows", **axis, **blocks)

    def _decompressed_between(self, path: str, call: str, weight: Weight, points: Array) -> str:
        """The same with zero points between integers, which DequantizeLinear does not have."""
        groups = points.shape[1]
        stored = stored_array(weight).reshape(len(weight.values), groups, -1)
        result = self.constant(f"{path}.weight_quantized", stored)
        result = self.node("Cast", [result], f"{call}.weight_codes", to=TensorProto.FLOAT)
        for operator, part in (("Sub", points), ("Mul", weight.scale.numpy())):
            constant = self.constant(f"{path}.weight_{operator}", part.reshape(-1, groups, 1))
            result = self.node(operator, [result, constant], f"{call}.weight_after_{operator}")
        return result

    def _codes(self, path: str, call: str, weight: Weight) -> str:
        """uint8 values (codes,), flat, of packed codes: shift, mask, and the sum of the parts."""
        codes, sums, taken = weight.codes(), "", 0
        for width, part in zip(parts(weight.bits), pack(codes, weight.bits), strict=True):
            value = self.constant(f"{path}.weight_packed_{width}", part.numpy())
            name = f"{call}.weight_part_{width}"
            if width < BYTE:
                shift = self.constant(f"modelpress.shifts_{width}", np.array([shifts(width)], np.uint8))
                mask = self.constant(f"modelpress.mask_{width}", np.array((1 << width) - 1, np.uint8))
                value = self.node("BitShift", [value, shift], f"{name}.shifted", direction="RIGHT")
                value = self.node("BitwiseAnd", [value, mask], f"{name}.masked")
            value = self._reshaped(value, f"{name}.flat", (-1,))
            if codes.numel() % (BYTE // width):
                start, end = (self.constant(f"modelpress.n_{n}", np.array([n], np.int64)) for n in (0, codes.numel()))
                value = self.node("Slice", [value, start, end], f"{name}.cut")
            if taken:
                by = self.constant(f"modelpress.shift_{taken}", np.array(taken, np.uint8))
                value = self.node("BitShift", [value, by], f"{name}.raised", direction="LEFT")
            sums = self.node("BitwiseOr", [sums, value], f"{name}.sum") if sums else value
            taken += width
        return sums

    def _laid_out(self, call: str, value: str, shape: torch.Size, arrange: Callable[[Array], Array]) -> str:
        """`value`, of the layer's weight, as `arrange` lays it out: `np.transpose`, or another shape."""
        if arrange is np.transpose:
            return self.node("Transpose", [value], f"{call}.weight_arranged")
        arranged = arrange(np.empty(tuple(shape), np.int8)).shape
        return value if arranged == tuple(shape) else self._reshaped(value, f"{call}.weight_arranged", arranged)

    def _reshaped(self, value: str, result: str, shape: tuple[int, ...]) -> str:
        to = self.constant("modelpress.shape_" + "_".join(map(str, shape)), np.array(shape, np.int64))
        return self.node("Reshape", [value, to], result)

    def constant(self, name: str, values: Array) -> str:
        """An initializer, made once."""
        return initializer(self.graph, name, values)

    def node(self, operator: str, inputs: list[str], result: str, **settings: int | str) -> str:
        """A node with one result, made once; returns the result's name. Other domains: ``domain::operator``."""
        if all(result not in node.output for node in self.added):
            domain, _, kind = operator.rpartition("::")
            node = helper.make_node(kind, inputs, [result], name=f"{result}.node", domain=domain)
            node.attribute.extend(helper.make_attribute(key, value) for key, value in settings.items())
            self.added.append(node)
        return result


def _arranged(values: Array, axis: int) -> Array:
    return values.T if axis == 1 else values


def _beside(scale: Tensor, values: Tensor) -> Array:
    """The scales (channels, 1, ...)."""
    result: Array = scale.numpy().reshape(-1, *[1] * (values.dim() - 1))
    return result
