"""Operators that change the element type.

Floats of 8 bits saturate unless the node says otherwise (ONNX Cast, table of FP8 conversions); torch's own conversion
does not. Integers of 16 bits and more without a sign have few kernels in torch, so arithmetic on them is done in int64.
"""

import dataclasses
from typing import Any, Final

import torch
from torch import Tensor, fx

from worker.engine.formats.onnx_reader.node import Node, Operator
from worker.engine.formats.onnx_reader.tensors import DTYPES
from worker.engine.formats.onnx_reader.values import Value, unsupported

aten = torch.ops.aten

FLOAT8: Final = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)
_WIDE: Final = (torch.uint16, torch.uint32, torch.uint64)


def dtype_of(number: int, what: str) -> torch.dtype:
    """The torch type of an ONNX element type."""
    if number not in DTYPES:
        raise unsupported(f"{what} to type number {number}")
    return DTYPES[number]


def convert(node: Node, x: Any, kind: torch.dtype, saturate: bool = True) -> Any:
    """`x` as `kind`, by the rules of Cast."""
    if kind in FLOAT8 and saturate:
        if not node.build.dtype(x).is_floating_point or node.build.dtype(x) in FLOAT8:
            x = node.cast(x, torch.float32)
        limit = torch.finfo(kind).max
        if torch.finfo(node.build.dtype(x)).max > limit:
            x = node.call(aten.clamp.default, x, -limit, limit)
    elif kind is torch.float8_e4m3fn:
        # What does not round to 448 becomes NaN; torch's conversion saturates or not, depending on the device.
        fits = node.call(aten.le.Scalar, node.call(aten.abs.default, x), 464)
        x = node.call(aten.where.self, fits, x, node.call(aten.full_like.default, x, float("nan")))
    return node.cast(x, kind)


def _cast(node: Node) -> Any:
    return convert(node, node.tensor(0), dtype_of(node.attr("to"), "a cast"), bool(node.attr("saturate", 1)))


def _cast_like(node: Node) -> Any:
    if getattr(node.value(1), "onnx_type", None):
        raise unsupported("CastLike to integers of 4 bits or fewer")
    kind = node.build.dtype(node.tensor(1))
    return convert(node, node.tensor(0), kind, bool(node.attr("saturate", 1)))


def _bit_cast(node: Node) -> Any:
    x, kind = node.tensor(0), dtype_of(node.attr("to"), "a BitCast")
    if kind.itemsize != node.build.dtype(x).itemsize:
        raise unsupported("BitCast between types of different widths")
    return node.call(aten.view.dtype, x, kind)


def in_int64(operator: Operator, ordered: bool = False, exact: bool = True) -> Operator:
    """`operator` with unsigned integers of 16 bits and more computed in int64, where the results are the same.

    Args:
        operator: of one or more inputs of one type.
        ordered: it compares, so that the order of 64-bit values has to survive: they are shifted by 2**63.
        exact: False where values beyond 2**63 would go wrong in another way: those of 64 bits are refused.
    """

    def apply(node: Node) -> Any:
        kinds = {node.build.dtype(value) for value in node.inputs if value is not None}
        kind = next(iter(kinds))
        if len(kinds) != 1 or kind not in _WIDE:
            return operator(node)
        if kind is torch.uint64 and not exact:
            raise unsupported(f"{node.op} of unsigned 64-bit integers")
        shift = ordered and kind is torch.uint64

        def turn(value: Any) -> Any:
            return node.call(aten.bitwise_xor.Scalar, value, -(2**63)) if shift else value

        def widen(value: Value) -> Value:
            return None if value is None else turn(node.cast(node.build.tensor(value), torch.int64))

        result = operator(dataclasses.replace(node, inputs=tuple(map(widen, node.inputs))))
        if isinstance(result, (Tensor, fx.Node)) and node.build.dtype(result) == torch.int64:
            return node.cast(turn(result), kind)
        return result

    return apply


def _bit_shift(node: Node) -> Any:
    x, amount = node.tensor(0), node.tensor(1)
    right = node.attr("direction") == "RIGHT"
    target = aten.bitwise_right_shift.Tensor if right else aten.bitwise_left_shift.Tensor
    if right and node.build.dtype(node.value(0)) is torch.int64:
        # What was a large 64-bit value has a sign now, which would be shifted in: cut it off again.
        kept = node.call(aten.bitwise_right_shift.Tensor, _filled(node, x, 2**63 - 1), _less_one(node, amount))
        shifted = node.call(aten.bitwise_and.Tensor, node.call(target, x, amount), kept)
        return node.call(aten.where.self, node.call(aten.eq.Scalar, amount, 0), x, shifted)
    return node.call(target, x, amount)


def _filled(node: Node, x: Any, value: int) -> Any:
    return node.call(aten.full_like.default, x, value)


def _less_one(node: Node, amount: Any) -> Any:
    return node.call(aten.clamp.default, node.call(aten.sub.Tensor, amount, 1), 0)


def _bitwise(name: str) -> Operator:
    packet = getattr(aten, name)
    return lambda node: node.call(packet.Tensor, node.tensor(0), node.tensor(1))


OPERATORS: Final[dict[str, Operator]] = {
    "Cast": _cast,
    "CastLike": _cast_like,
    "BitCast": _bit_cast,
    "BitShift": in_int64(_bit_shift),
    "BitwiseAnd": in_int64(_bitwise("bitwise_and")),
    "BitwiseOr": in_int64(_bitwise("bitwise_or")),
    "BitwiseXor": in_int64(_bitwise("bitwise_xor")),
    "BitwiseNot": in_int64(lambda node: node.call(aten.bitwise_not.default, node.tensor(0))),
}
