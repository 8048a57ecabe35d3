"""Arithmetic on sizes: ``Shape -> Gather -> Mul -> Concat -> Reshape`` stays a list of numbers and symbols.

`on_sizes` handles nodes that have symbolic sizes among their inputs and nothing but small integers besides.
"""

import operator
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, fx

from worker.engine.formats.onnx_reader.node import Node
from worker.engine.formats.onnx_reader.values import Size, Sizes, Value

_MOST: Final = 64  # no tensor has more dimensions; longer integer tensors are data

#: Of numbers that are not negative, these are not negative either.
_NATURAL: Final = (operator.add, operator.mul, operator.floordiv, operator.mod, torch.sym_max, torch.sym_min)

Operands = list[Sizes]


def on_sizes(node: Node) -> Value:
    """The result where the node computes with sizes; None where it does not."""
    rule = _RULES.get(node.op)
    if rule is None or not any(isinstance(value, Sizes) for value in node.inputs):
        return None
    operands = [_as_sizes(value) for value in node.inputs if value is not None]
    if any(operand is None for operand in operands):
        return None
    return rule(node, [operand for operand in operands if operand is not None])


def _as_sizes(value: Value) -> Sizes | None:
    if isinstance(value, Sizes):
        return value
    if not isinstance(value, Tensor) or value.dim() > 1 or value.numel() > _MOST or value.is_floating_point():
        return None
    return Sizes(tuple(int(v) for v in value.reshape(-1).tolist()), scalar=value.dim() == 0)


def _elementwise(function: Callable[..., Any]) -> Callable[[Node, Operands], Value]:
    return lambda node, operands: _rows(node, lambda *row: _compute(node, function, row), operands)


def _rows(node: Node, compute: Callable[..., Size], operands: Operands) -> Value:
    """`compute` on the first sizes of all operands, on the second ones, and so on."""
    length = max(len(operand.values) for operand in operands)
    columns = [operand.values * length if len(operand.values) == 1 else operand.values for operand in operands]
    return node.build.pack([compute(*row) for row in zip(*columns, strict=True)], all(o.scalar for o in operands))


def _compute(node: Node, function: Callable[..., Any], row: tuple[Size, ...]) -> Size:
    if function is operator.mul and 1 in row:
        return row[1] if row[0] == 1 else row[0]
    if function is operator.add and 0 in row:
        return row[1] if row[0] == 0 else row[0]
    return node.call(function, *row)  # type: ignore[no-any-return]


def _natural(size: Size) -> bool:
    """Whether a size cannot be negative: a size of a tensor, or what is computed from such without a difference."""
    if isinstance(size, int):
        return size >= 0
    if size.target is torch.ops.aten.sym_size.int:
        return True
    return size.target in _NATURAL and all(_natural(part) for part in size.args if isinstance(part, (int, fx.Node)))


def _equal(node: Node, operands: Operands) -> Value:
    """Exporters ask whether a size is -1. Whether it is 1 or another size, only the data tells: None then."""
    left, right = operands
    length = max(len(left.values), len(right.values))
    pairs = zip(*(o.values * length if len(o.values) == 1 else o.values for o in operands), strict=True)
    answers = [_are_equal(a, b) for a, b in pairs]
    equal = [answer for answer in answers if answer is not None]
    if len(equal) < len(answers):
        return None
    return torch.tensor(equal[0] if left.scalar and right.scalar else equal)


def _are_equal(one: Size, other: Size) -> bool | None:
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    if one is other:
        return True
    apart = any(isinstance(a, int) and a < 0 and _natural(b) for a, b in ((one, other), (other, one)))
    return False if apart else None


def _div(node: Node, operands: Operands) -> Value:
    """Rounded towards zero."""

    def divide(a: Size, b: Size) -> Size:
        if _natural(a):
            return node.call(operator.floordiv, a, b)  # type: ignore[no-any-return]
        negative = node.call(torch.sym_max, node.call(operator.neg, a), 0)
        parts = [node.call(operator.floordiv, part, b) for part in (node.call(torch.sym_max, a, 0), negative)]
        return node.call(operator.sub, *parts)  # type: ignore[no-any-return]

    if not all(_natural(size) for size in operands[1].values):
        return None
    return _rows(node, divide, operands)


def _mod(node: Node, operands: Operands) -> Value:
    """With the sign of the divisor, as Python has it; with `fmod` that of the dividend."""
    if node.attr("fmod", 0) and not all(_natural(size) for operand in operands for size in operand.values):
        return None
    return _rows(node, lambda a, b: node.call(operator.mod, a, b), operands)


def _where(node: Node, operands: Operands) -> Value:
    condition = operands[0]
    if not all(isinstance(value, int) for value in condition.values):
        return None
    length = max(len(operand.values) for operand in operands)
    rows = zip(*(o.values * length if len(o.values) == 1 else o.values for o in operands), strict=True)
    return node.build.pack([a if c else b for c, a, b in rows], all(o.scalar for o in operands))


def _gather(node: Node, operands: Operands) -> Value:
    data, index = operands
    if data.scalar or not all(isinstance(i, int) for i in index.values):
        return None
    return node.build.pack([data.values[i] for i in index.values], index.scalar)  # type: ignore[index]


def _slice(node: Node, operands: Operands) -> Value:
    bounds = [operand.values[0] for operand in (*operands[1:3], *operands[4:5])]
    plain = [bound for bound in bounds if isinstance(bound, int)]
    return node.build.pack(operands[0].values[slice(*plain)]) if len(plain) == len(bounds) else None


def _concat(node: Node, operands: Operands) -> Value:
    return node.build.pack([value for operand in operands for value in operand.values])


def _reduce(function: Callable[..., Any]) -> Callable[[Node, Operands], Value]:
    def apply(node: Node, operands: Operands) -> Value:
        total, *rest = operands[0].values
        for value in rest:
            total = _compute(node, function, (total, value))
        return node.build.pack([total], scalar=not node.attr("keepdims", 1))

    return apply


def _same(node: Node, operands: Operands) -> Value:
    return operands[0]


def _cast(node: Node, operands: Operands) -> Value:
    return operands[0] if node.attr("to") in (6, 7) else None  # INT32, INT64


def _scalar(scalar: bool) -> Callable[[Node, Operands], Value]:
    def apply(node: Node, operands: Operands) -> Value:
        values = operands[0].values
        return Sizes(values, scalar) if len(values) == 1 else None

    return apply


def _reshape(node: Node, operands: Operands) -> Value:
    target = operands[1].values
    return Sizes(operands[0].values, scalar=not target) if len(target) <= 1 else None


_RULES: Final[dict[str, Callable[[Node, Operands], Value]]] = {
    "Add": _elementwise(operator.add),
    "Sub": _elementwise(operator.sub),
    "Mul": _elementwise(operator.mul),
    "Div": _div,
    "Mod": _mod,
    "Neg": _elementwise(operator.neg),
    "Max": _elementwise(torch.sym_max),
    "Min": _elementwise(torch.sym_min),
    "Equal": _equal,
    "Where": _where,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "ReduceProd": _reduce(operator.mul),
    "ReduceSum": _reduce(operator.add),
    "Identity": _same,
    "Cast": _cast,
    "Squeeze": _scalar(True),
    "Unsqueeze": _scalar(False),
    "Reshape": _reshape,
}
