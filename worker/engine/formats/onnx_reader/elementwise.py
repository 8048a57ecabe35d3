"""Operators that work on each element: arithmetic, comparisons, activations, types."""

import functools
import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from worker.engine.formats.onnx_reader.casting import in_int64
from worker.engine.formats.onnx_reader.node import Node, Operator, within
from worker.engine.formats.onnx_reader.values import Sizes, unsupported

aten = torch.ops.aten


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
    if isinstance(exponent, (Tensor, fx.Node)) and node.build.dtype(exponent) in (
        torch.uint16,
        torch.uint32,
        torch.uint64,
    ):
        exponent = node.cast(exponent, torch.int64)
    target = aten.pow.Tensor_Tensor if isinstance(exponent, (Tensor, fx.Node)) else aten.pow.Tensor_Scalar
    result = node.call(target, base, exponent)
    kind = node.build.dtype(base)
    return result if node.build.dtype(result) == kind else node.cast(result, kind)


def _mean(node: Node) -> Any:
    return node.call(aten.div.Tensor, variadic(aten.add.Tensor)(node), len(node.inputs))


def _clip(node: Node) -> Any:
    x = node.tensor(0)
    if any(isinstance(node.value(index), (fx.Node, Sizes)) for index in (1, 2)):
        bounds = [None if node.value(index) is None else node.tensor(index) for index in (1, 2)]
        return node.call(aten.clamp.Tensor, x, *bounds)
    low, high = (node.scalar(index, node.attr(name)) for index, name in ((1, "min"), (2, "max")))
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


def over_axis(compute: Callable[[Node, Any, int], Any]) -> Operator:
    """``compute(node, x, axis)``; before opset 13 the axis and all after it counted as one."""

    def apply(node: Node) -> Any:
        x = node.tensor(0)
        axis, last = node.attr("axis", -1 if node.opset >= 13 else 1), node.build.rank(x) - 1
        axis = within(axis, last + 1)
        if node.opset >= 13 or axis == last:
            return compute(node, x, axis)
        flat = compute(node, node.call(aten.flatten.using_ints, x, axis), -1)
        return node.call(aten.reshape.default, flat, list(node.build.shape(x)))

    return apply


def _softmax(target: Any) -> Operator:
    return over_axis(lambda node, x, axis: node.call(target, x, axis))


def _hardmax(node: Node, x: Any, axis: int) -> Any:
    """One at the first of the largest, else zero."""
    first = node.call(aten.argmax.default, x, axis, True)
    return node.call(aten.scatter.value, node.call(aten.zeros_like.default, x), axis, first, 1)


def _gelu(node: Node) -> Any:
    return node.call(aten.gelu.default, node.tensor(0), approximate=node.attr("approximate", "none"))


def _is_infinite(node: Node) -> Any:
    x, above, below = node.tensor(0), node.attr("detect_positive", 1), node.attr("detect_negative", 1)
    if above and below:
        return node.call(aten.isinf.default, x)
    if not above and not below:
        return node.call(aten.zeros_like.default, x, dtype=torch.bool)
    return node.call(aten.isposinf.default if above else aten.isneginf.default, x)


def _dropout(node: Node) -> Any:
    """Nothing is dropped in evaluation, so the mask is all ones."""
    if node.value(2) is not None and node.scalar(2):
        raise unsupported("Dropout in training mode; export the model after model.eval()")
    if not any(node.outputs[1:]):
        return node.value(0)
    x = node.tensor(0)
    kind = torch.bool if node.opset >= 10 else node.build.dtype(x)
    return x, node.call(aten.ones_like.default, x, dtype=kind)


def _shrink(node: Node) -> Any:
    x, bias, limit = node.tensor(0), node.attr("bias", 0.0), node.attr("lambd", 0.5)
    zero = node.call(aten.zeros_like.default, x)
    above = node.call(aten.where.self, node.call(aten.gt.Scalar, x, limit), node.call(aten.sub.Tensor, x, bias), zero)
    below = node.call(aten.lt.Scalar, x, -limit)
    return node.cast(node.call(aten.where.self, below, node.call(aten.add.Tensor, x, bias), above), node.build.dtype(x))


def _swiglu(node: Node) -> Any:
    x, gate = node.tensor(0), node.tensor(1)
    scaled = node.call(aten.mul.Tensor, x, node.attr("alpha", 1.0))
    return node.call(aten.mul.Tensor, node.call(aten.mul.Tensor, x, node.call(aten.sigmoid.default, scaled)), gate)


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
    "Dropout": _dropout,
    "Add": in_int64(binary(aten.add.Tensor)),
    "Sub": in_int64(binary(aten.sub.Tensor)),
    "Mul": in_int64(binary(aten.mul.Tensor)),
    "Div": in_int64(_div, exact=False),
    "Mod": in_int64(_mod, exact=False),
    "Pow": _pow,
    "Equal": in_int64(with_number("eq"), ordered=True),
    "Greater": in_int64(with_number("gt"), ordered=True),
    "GreaterOrEqual": in_int64(with_number("ge"), ordered=True),
    "Less": in_int64(with_number("lt"), ordered=True),
    "LessOrEqual": in_int64(with_number("le"), ordered=True),
    "And": variadic(aten.logical_and.default),
    "Or": variadic(aten.logical_or.default),
    "Xor": variadic(aten.logical_xor.default),
    "Max": in_int64(variadic(aten.maximum.default), ordered=True),
    "Min": in_int64(variadic(aten.minimum.default), ordered=True),
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
    "Hardmax": over_axis(_hardmax),
    "Shrink": _shrink,
    "SwiGLU": _swiglu,
}
