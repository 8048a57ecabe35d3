"""Operators that work on each element: arithmetic, comparisons, activations, types."""

import functools
import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from worker.engine.formats.onnx_reader.file import DTYPES
from worker.engine.formats.onnx_reader.node import Node
from worker.engine.formats.onnx_reader.values import unsupported

aten = torch.ops.aten
Operator = Callable[[Node], Any]


def _operand(node: Node, index: int) -> Any:
    """A tensor, or a number where the file has a constant without dimensions."""
    value = node.tensor(index)
    if index == 1 and isinstance(value, Tensor) and value.dim() == 0 and isinstance(node.value(0), fx.Node):
        return value.item()
    return value


def unary(target: Any) -> Operator:
    """``target(x)``."""
    return lambda node: node.call(target, node.tensor(0))


def binary(target: Any) -> Operator:
    """``target(a, b)``, broadcast as NumPy does."""
    return lambda node: node.call(target, _operand(node, 0), _operand(node, 1))


def with_number(name: str) -> Operator:
    """As `binary`, for operators of torch that take a number in an overload of its own."""
    packet = getattr(aten, name)

    def apply(node: Node) -> Any:
        right = _operand(node, 1)
        target = packet.Tensor if isinstance(right, (Tensor, fx.Node)) else packet.Scalar
        return node.call(target, _operand(node, 0), right)

    return apply


def variadic(target: Any) -> Operator:
    """``target`` over any number of inputs, from the left."""

    def apply(node: Node) -> Any:
        values = [node.tensor(index) for index in range(len(node.inputs))]
        return functools.reduce(lambda a, b: node.call(target, a, b), values)

    return apply


def _div(node: Node) -> Any:
    if node.build.dtype(node.tensor(0)).is_floating_point:
        return binary(aten.div.Tensor)(node)
    return node.call(aten.div.Tensor_mode, node.tensor(0), node.tensor(1), rounding_mode="trunc")


def _mod(node: Node) -> Any:
    return with_number("fmod" if node.attr("fmod", 0) else "remainder")(node)


def _pow(node: Node) -> Any:
    base, exponent = node.tensor(0), _operand(node, 1)
    target = aten.pow.Tensor_Tensor if isinstance(exponent, (Tensor, fx.Node)) else aten.pow.Tensor_Scalar
    result = node.call(target, base, exponent)
    kind = node.build.dtype(base)
    return result if node.build.dtype(result) == kind else node.cast(result, kind)


def _mean(node: Node) -> Any:
    return node.call(aten.div.Tensor, variadic(aten.add.Tensor)(node), len(node.inputs))


def _clip(node: Node) -> Any:
    low, high = (node.scalar(index) for index in (1, 2))
    x = node.tensor(0)
    return x if low is None and high is None else node.call(aten.clamp.default, x, low, high)


def _hard_sigmoid(node: Node) -> Any:
    alpha, beta, x = node.attr("alpha", 0.2), node.attr("beta", 0.5), node.tensor(0)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return node.call(aten.hardsigmoid.default, x)
    line = node.call(aten.add.Tensor, node.call(aten.mul.Tensor, x, alpha), beta)
    return node.call(aten.clamp.default, line, 0, 1)


def _selu(node: Node) -> Any:
    alpha = node.attr("alpha", 1.6732632423543772)
    return node.call(aten.elu.default, node.tensor(0), alpha, node.attr("gamma", 1.0507009873554805))


def _thresholded_relu(node: Node) -> Any:
    return node.call(aten.threshold.default, node.tensor(0), node.attr("alpha", 1.0), 0)


def _prelu(node: Node) -> Any:
    """A PReLU layer where the slope is one number or one for each channel."""
    x, slope = node.tensor(0), node.tensor(1)
    rank = node.build.rank(x)
    if isinstance(slope, Tensor) and rank >= 2 and slope.dim() <= rank - 1:
        channels = node.build.size(x, 1)
        shape = (1,) * (rank - 1 - slope.dim()) + tuple(slope.shape)
        if slope.numel() == 1 or shape == (channels, *[1] * (rank - 2)):
            weight = node.build.derived(slope, "flat", lambda t: t.reshape(-1).clone())
            with torch.device("meta"):
                module = nn.PReLU(weight.numel())
            return node.build.layer(module, {"weight": weight}, x, node.origin(1))
    negative = node.call(aten.mul.Tensor, x, slope)
    return node.call(aten.where.self, node.call(aten.ge.Scalar, x, 0), x, negative)


def _cast(node: Node) -> Any:
    kind = node.attr("to")
    if kind not in DTYPES:
        raise unsupported(f"a cast to type number {kind}")
    return node.cast(node.tensor(0), DTYPES[kind])


def _cast_like(node: Node) -> Any:
    return node.cast(node.tensor(0), node.build.dtype(node.tensor(1)))


def _softmax(target: Any) -> Operator:
    def apply(node: Node) -> Any:
        x = node.tensor(0)
        axis, last = node.attr("axis", -1 if node.opset >= 13 else 1), node.build.rank(x) - 1
        if node.opset < 13 and axis not in (-1, last):
            raise unsupported(f"{node.op} of opset {node.opset} over several dimensions at once")
        return node.call(target, x, axis)

    return apply


def _gelu(node: Node) -> Any:
    return node.call(aten.gelu.default, node.tensor(0), approximate=node.attr("approximate", "none"))


def _is_infinite(node: Node) -> Any:
    if not (node.attr("detect_positive", 1) and node.attr("detect_negative", 1)):
        raise unsupported("IsInf of one sign")
    return node.call(aten.isinf.default, node.tensor(0))


def _swish(node: Node) -> Any:
    x, alpha = node.tensor(0), node.attr("alpha", 1.0)
    if alpha == 1.0:
        return node.call(aten.silu.default, x)
    return node.call(aten.mul.Tensor, x, node.call(aten.sigmoid.default, node.call(aten.mul.Tensor, x, alpha)))


def _same(node: Node) -> Any:
    return node.value(0)


_UNARY: Final = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor Log Neg Reciprocal Relu Round Sigmoid Sign Sin "
    "Sinh Softplus Sqrt Tan Tanh Mish"
)

OPERATORS: Final[dict[str, Operator]] = {
    **{name: unary(getattr(aten, name.lower()).default) for name in _UNARY.split()},
    "HardSwish": unary(aten.hardswish.default),
    "Softsign": lambda node: node.call(
        aten.div.Tensor,
        node.tensor(0),
        node.call(aten.add.Tensor, node.call(aten.abs.default, node.tensor(0)), 1),
    ),
    "Not": unary(aten.logical_not.default),
    "IsNaN": unary(aten.isnan.default),
    "IsInf": _is_infinite,
    "Identity": _same,
    "Dropout": lambda node: (node.value(0), None),
    "Add": binary(aten.add.Tensor),
    "Sub": binary(aten.sub.Tensor),
    "Mul": binary(aten.mul.Tensor),
    "Div": _div,
    "Mod": _mod,
    "Pow": _pow,
    "Equal": with_number("eq"),
    "Greater": with_number("gt"),
    "GreaterOrEqual": with_number("ge"),
    "Less": with_number("lt"),
    "LessOrEqual": with_number("le"),
    "And": variadic(aten.logical_and.default),
    "Or": variadic(aten.logical_or.default),
    "Xor": variadic(aten.logical_xor.default),
    "Max": variadic(aten.maximum.default),
    "Min": variadic(aten.minimum.default),
    "Sum": variadic(aten.add.Tensor),
    "Mean": _mean,
    "Where": lambda node: node.call(aten.where.self, node.tensor(0), node.tensor(1), node.tensor(2)),
    "Clip": _clip,
    "LeakyRelu": lambda node: node.call(aten.leaky_relu.default, node.tensor(0), node.attr("alpha", 0.01)),
    "Elu": lambda node: node.call(aten.elu.default, node.tensor(0), node.attr("alpha", 1.0)),
    "Celu": lambda node: node.call(aten.celu.default, node.tensor(0), node.attr("alpha", 1.0)),
    "Selu": _selu,
    "ThresholdedRelu": _thresholded_relu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Swish": _swish,
    "PRelu": _prelu,
    "Softmax": _softmax(aten.softmax.int),
    "LogSoftmax": _softmax(aten.log_softmax.int),
    "Cast": _cast,
    "CastLike": _cast_like,
}
