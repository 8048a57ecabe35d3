"""Models that are quantized already, as float computations with the rounding written out.

``quantize(x) = clamp(round(x / scale) + zero point)`` with ties to even, ``dequantize(q) = (q - zero point) * scale``
(ONNX QuantizeLinear, DequantizeLinear). Weights that only go through DequantizeLinear are constants, so they become
the float weights of layers. Operators on integers (QLinearConv and its like) are their float operator between the two.
"""

import dataclasses
from typing import Any, Final

import torch

from worker.engine.formats.onnx_reader import elementwise, layers, pooling
from worker.engine.formats.onnx_reader.casting import FLOAT8, convert, dtype_of
from worker.engine.formats.onnx_reader.node import Node, Operator
from worker.engine.formats.onnx_reader.values import Value, unsupported

aten = torch.ops.aten


def _spread(node: Node, values: Any, x: Any, axis: int, block: int = 0) -> Any:
    """Scales or zero points in a shape that fits `x`: one, one for each entry of an axis, or one for each block."""
    rank, own = node.build.rank(x), node.build.rank(values)
    if block:
        size = node.build.fixed(x, axis, f"{node.op} by blocks")
        repeated = node.call(aten.repeat_interleave.self_int, values, block, axis)
        return node.call(aten.slice.Tensor, repeated, axis, 0, size)
    if own == 0:
        return values
    if own == 1 and node.build.size(values, 0) == 1:
        return node.call(aten.reshape.default, values, [])
    if own == 1:
        shape = [1] * rank
        shape[axis % rank] = -1
        return node.call(aten.reshape.default, values, shape)
    if own == rank:
        return values  # one for each row of a product
    raise unsupported(f"{node.op} with scales of {own} dimensions")


def quantize(node: Node, x: Any, scale: Any, zero: Any, kind: torch.dtype, saturate: bool = True) -> Any:
    """`x` as integers (or floats of 8 bits) of type `kind`; scale and zero point in a shape that fits."""
    steps = node.call(aten.div.Tensor, x, scale)
    if kind in FLOAT8:
        return convert(node, steps, kind, saturate)
    whole = node.cast(node.call(aten.round.default, steps), torch.float32)
    if zero is not None:
        whole = node.call(aten.add.Tensor, whole, node.cast(zero, torch.float32))
    limits = torch.iinfo(kind)
    return node.cast(node.call(aten.clamp.default, whole, limits.min, limits.max), kind)


def dequantize(node: Node, x: Any, scale: Any, zero: Any, kind: torch.dtype) -> Any:
    """Computed in float32: differences of 16-bit integers do not fit a half."""
    wide = kind if kind == torch.float64 else torch.float32
    value = node.cast(x, wide)
    if zero is not None:
        value = node.call(aten.sub.Tensor, value, node.cast(zero, wide))
    return node.cast(node.call(aten.mul.Tensor, value, node.cast(scale, wide)), kind)


def _only(node: Node, index: int, x: Any) -> Any:
    """The zero point at `index`, or None."""
    if node.value(index) is None:
        return None
    return _spread(node, node.tensor(index), x, node.attr("axis", 1), node.attr("block_size", 0))


def _quantize_linear(node: Node) -> Any:
    x = node.tensor(0)
    scale = _spread(node, node.tensor(1), x, node.attr("axis", 1), node.attr("block_size", 0))
    number = node.attr("output_dtype", 0)
    if getattr(node.value(2), "onnx_type", None):
        raise unsupported("QuantizeLinear to integers of 4 bits or fewer")
    kind = node.build.dtype(node.tensor(2)) if node.value(2) is not None else torch.uint8
    if number and node.value(2) is None:
        kind = dtype_of(number, "QuantizeLinear")
    if not node.build.dtype(x).is_floating_point:
        x = node.cast(x, torch.float32)
    if (precision := node.attr("precision", 0)) and dtype_of(precision, "QuantizeLinear") != node.build.dtype(scale):
        raise unsupported("QuantizeLinear with a precision of its own")
    return quantize(node, x, scale, _only(node, 2, x), kind, bool(node.attr("saturate", 1)))


def _dequantize_linear(node: Node) -> Any:
    x, number = node.tensor(0), node.attr("output_dtype", 0)
    scale = _spread(node, node.tensor(1), x, node.attr("axis", 1), node.attr("block_size", 0))
    kind = dtype_of(number, "DequantizeLinear") if number else node.build.dtype(scale)
    return dequantize(node, x, scale, _only(node, 2, x), kind)


def _dynamic(node: Node) -> Any:
    """8 bits without a sign over the range of the data, which is made to contain zero."""
    x = node.tensor(0)
    low = node.call(aten.clamp.default, node.call(aten.amin.default, x, []), None, 0.0)
    high = node.call(aten.clamp.default, node.call(aten.amax.default, x, []), 0.0)
    span = node.call(aten.div.Tensor, node.call(aten.sub.Tensor, high, low), 255.0)
    scale = node.call(aten.masked_fill.Scalar, span, node.call(aten.eq.Scalar, span, 0), 1.0)
    start = node.call(aten.neg.default, node.call(aten.div.Tensor, low, scale))
    zero = node.call(aten.clamp.default, node.call(aten.round.default, start), 0, 255)
    return quantize(node, x, scale, zero, torch.uint8), scale, node.cast(zero, torch.uint8)


def _centred(node: Node, index: int, zero_index: int, axis: int) -> Any:
    """An integer input less its zero point, as float32."""
    x = node.cast(node.tensor(index), torch.float32)
    if node.value(zero_index) is None:
        return x
    zero = _spread(node, node.tensor(zero_index), x, axis)
    return node.call(aten.sub.Tensor, x, node.cast(zero, torch.float32))


def _inner(node: Node, op: str, inputs: tuple[Value, ...], names: tuple[str, ...]) -> Node:
    return dataclasses.replace(node, op=op, inputs=inputs, input_names=names)


def _matmul_integer(node: Node) -> Any:
    """Products of 8-bit integers: their sums are rounded in float32 beyond 2**24 only."""
    a, b = _centred(node, 0, 2, -2), _centred(node, 1, 3, -1)
    inner = _inner(node, "MatMul", (a, b), node.input_names[:2])
    return node.cast(layers.OPERATORS["MatMul"](inner), torch.int32)


def _conv_integer(node: Node) -> Any:
    x, weight = _centred(node, 0, 2, 1), _centred(node, 1, 3, 0)
    inner = _inner(node, "Conv", (x, weight), node.input_names[:2])
    return node.cast(layers.OPERATORS["Conv"](inner), torch.int32)


def _from(node: Node, start: int, axis: int = 1) -> Any:
    """Three inputs from `start` (values, scale, zero point) as floats."""
    x, scale = node.tensor(start), node.tensor(start + 1)
    zero = None if node.value(start + 2) is None else _spread(node, node.tensor(start + 2), x, axis)
    return dequantize(node, x, _spread(node, scale, x, axis), zero, node.build.dtype(scale))


def _to(node: Node, y: Any, start: int, kind: torch.dtype) -> Any:
    """`y` quantized by the scale at `start` and the zero point after it."""
    zero = node.value(start + 1)
    if zero is not None:
        kind = node.build.dtype(zero)
    spread = None if zero is None else _spread(node, node.build.tensor(zero), y, -2)
    return quantize(node, y, _spread(node, node.tensor(start), y, -2), spread, kind)


def _qlinear_conv(node: Node) -> Any:
    bias = node.value(8)
    if bias is not None:
        scale = node.call(aten.mul.Tensor, node.tensor(1), node.tensor(4))
        scale = _spread(node, scale, node.tensor(8), 0)
        bias = dequantize(node, node.tensor(8), scale, None, node.build.dtype(scale))
    names = (node.input_names[0], node.input_names[3], "")
    inner = _inner(node, "Conv", (_from(node, 0), _from(node, 3, 0), bias), names)
    return _to(node, layers.OPERATORS["Conv"](inner), 6, node.build.dtype(node.tensor(0)))


def _qlinear_matmul(node: Node) -> Any:
    inner = _inner(node, "MatMul", (_from(node, 0, -2), _from(node, 3, -1)), (node.input_names[0], node.input_names[3]))
    return _to(node, layers.OPERATORS["MatMul"](inner), 6, node.build.dtype(node.tensor(0)))


def _qgemm(node: Node) -> Any:
    """ONNX Runtime's product with a bias of 32 bits; a float result where no output scale is given."""
    bias = node.value(6)
    if bias is not None:
        scale = node.call(aten.mul.Tensor, node.tensor(1), node.tensor(4))
        scale = node.call(aten.mul.Tensor, scale, node.attr("alpha", 1.0))
        bias = dequantize(node, node.tensor(6), _spread(node, scale, node.tensor(6), -1), None, torch.float32)
    axis = 0 if node.attr("transB", 0) else -1
    names = (node.input_names[0], node.input_names[3], "")
    inner = _inner(node, "Gemm", (_from(node, 0), _from(node, 3, axis), bias), names)
    y = layers.OPERATORS["Gemm"](inner)
    return y if node.value(7) is None else _to(node, y, 7, node.build.dtype(node.tensor(0)))


def _one(operator: Operator) -> Operator:
    """ONNX Runtime's form of a float operator of one input, on integers."""

    def apply(node: Node) -> Any:
        y = operator(_inner(node, node.op, (_from(node, 0),), node.input_names[:1]))
        return _to(node, y, 3, node.build.dtype(node.tensor(0)))

    return apply


def _two(target: Any) -> Operator:
    def apply(node: Node) -> Any:
        y = node.call(target, _from(node, 0), _from(node, 3))
        return _to(node, y, 6, node.build.dtype(node.tensor(0)))

    return apply


def _qlinear_concat(node: Node) -> Any:
    parts: list[Any] = [_from(node, start) for start in range(2, len(node.inputs), 3)]
    y = node.call(aten.cat.default, parts, node.attr("axis"))
    return _to(node, y, 0, node.build.dtype(node.tensor(2)))


def _channels_first(operator: Operator) -> Operator:
    def apply(node: Node) -> Any:
        if node.attr("channels_last", 0):
            raise unsupported(f"{node.op} with channels_last")
        return operator(node)

    return apply


def _dequantized_product(node: Node) -> Any:
    """MatMulIntegerToFloat and DynamicQuantizeMatMul of ONNX Runtime, whose first input is quantized or still float."""
    dynamic = node.op == "DynamicQuantizeMatMul"
    at = (2, 3, 4) if dynamic else (3, 5, 6)
    x: Any
    if dynamic:
        values, x_scale, x_zero = _dynamic(node)
        x = dequantize(node, values, x_scale, x_zero, torch.float32)
    else:
        zero = None if node.value(4) is None else _spread(node, node.tensor(4), node.tensor(0), -2)
        x = dequantize(node, node.tensor(0), _spread(node, node.tensor(2), node.tensor(0), -2), zero, torch.float32)
    b = node.tensor(1)
    b_zero = None if node.value(at[1]) is None else _spread(node, node.tensor(at[1]), b, -1)
    weight = dequantize(node, b, _spread(node, node.tensor(at[0]), b, -1), b_zero, torch.float32)
    inner = _inner(node, "MatMul", (x, weight), node.input_names[:2])
    y = layers.OPERATORS["MatMul"](inner)
    return y if node.value(at[2]) is None else node.call(aten.add.Tensor, y, node.tensor(at[2]))


_MICROSOFT: Final[dict[str, Operator]] = {
    "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _dequantize_linear,
    "QGemm": _qgemm,
    "QLinearAdd": _two(aten.add.Tensor),
    "QLinearMul": _two(aten.mul.Tensor),
    "QLinearSigmoid": _one(elementwise.OPERATORS["Sigmoid"]),
    "QLinearLeakyRelu": _one(elementwise.OPERATORS["LeakyRelu"]),
    "QLinearGlobalAveragePool": _channels_first(_one(pooling.OPERATORS["GlobalAveragePool"])),
    "QLinearAveragePool": _channels_first(_one(pooling.OPERATORS["AveragePool"])),
    "QLinearConcat": _qlinear_concat,
    "MatMulIntegerToFloat": _dequantized_product,
    "DynamicQuantizeMatMul": _dequantized_product,
}

OPERATORS: Final[dict[str, Operator]] = {
    "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _dequantize_linear,
    "DynamicQuantizeLinear": _dynamic,
    "MatMulInteger": _matmul_integer,
    "ConvInteger": _conv_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    **{f"com.microsoft.{name}": operator for name, operator in _MICROSOFT.items()},
}
