"""Operators that pick and put by computed indices."""

import operator
from typing import Any, Final

import torch
from torch import Tensor, fx

from worker.engine.formats.onnx_reader.casting import dtype_of
from worker.engine.formats.onnx_reader.node import Node, Operator, within
from worker.engine.formats.onnx_reader.values import Size, unsupported

aten = torch.ops.aten
_REDUCTIONS: Final = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def not_negative(node: Node, indices: Any, data: Any, axis: int) -> Any:
    """Indices from the end as what they mean from the start, in int64."""
    if isinstance(indices, Tensor) and not bool((indices < 0).any()):
        return indices.long()
    if node.build.dtype(indices) != torch.int64:
        indices = node.cast(indices, torch.int64)
    shifted = node.call(aten.add.Tensor, indices, node.build.size(data, axis))
    return node.call(aten.where.self, node.call(aten.lt.Scalar, indices, 0), shifted, indices)


def _scatter_elements(node: Node) -> Any:
    data, axis, reduction = node.tensor(0), node.attr("axis", 0), node.attr("reduction", "none")
    indices = not_negative(node, node.tensor(1), data, axis)
    if reduction == "none":
        return node.call(aten.scatter.src, data, axis, indices, node.tensor(2))
    return node.call(aten.scatter_reduce.two, data, axis, indices, node.tensor(2), _REDUCTIONS[reduction])


def _parts(node: Node, indices: Any) -> list[Any]:
    """Indices of each of the first dimensions, from the last dimension of `indices`."""
    count = node.build.fixed(indices, -1, node.op)
    last = node.build.rank(indices) - 1
    return [node.call(aten.select.int, indices, last, position) for position in range(count)]


def _scatter_nd(node: Node) -> Any:
    data, indices, updates = node.tensor(0), node.cast(node.tensor(1), torch.int64), node.tensor(2)
    reduction = node.attr("reduction", "none")
    parts = _parts(node, indices)
    if reduction in ("none", "add"):
        return node.call(aten.index_put.default, data, parts, updates, reduction == "add")
    return _reduced(node, data, parts, updates, _REDUCTIONS[reduction])


def _reduced(node: Node, data: Any, parts: list[Any], updates: Any, how: str) -> Any:
    """The first dimensions as one, so that the reductions of torch apply."""
    shape, count = node.build.shape(data), len(parts)
    flat: Any = None
    for axis, part in enumerate(parts):
        place = not_negative(node, part, data, axis)
        moved = None if flat is None else node.call(aten.mul.Tensor, flat, shape[axis])
        flat = place if moved is None else node.call(aten.add.Tensor, moved, place)
    rest = list(shape[count:])
    rows = node.call(aten.reshape.default, data, [_product(node, shape[:count]), *rest])
    values = node.call(aten.reshape.default, updates, [-1, *rest])
    places = node.call(aten.reshape.default, flat, [-1, *[1] * len(rest)])
    places = node.call(aten.expand.default, places, list(node.build.shape(values)))
    result = node.call(aten.scatter_reduce.two, rows, 0, places, values, how)
    return node.call(aten.reshape.default, result, list(shape))


def _product(node: Node, sizes: tuple[Size, ...]) -> Size:
    total: Size = 1
    for size in sizes:
        plain = isinstance(total, int) and isinstance(size, int)
        total = total * size if plain else node.call(operator.mul, total, size)  # type: ignore[operator]
    return total


def _gather_nd(node: Node) -> Any:
    data, indices, batch = node.tensor(0), node.cast(node.tensor(1), torch.int64), node.attr("batch_dims", 0)
    own: list[Any] = []
    rank = node.build.rank(indices) - 1
    for axis in range(batch):
        numbers = node.build.count(0, node.build.size(data, axis))
        own.append(node.call(aten.reshape.default, numbers, [-1 if a == axis else 1 for a in range(max(rank, 1))]))
    return node.call(aten.index.Tensor, data, [*own, *_parts(node, indices)])


def _one_hot(node: Node) -> Any:
    """`values` holds what to write elsewhere and what at the index; indices out of range are nowhere."""
    depth, values = int(node.scalar(1)), node.tensor(2)
    indices = node.cast(node.tensor(0), torch.int64)
    rank = node.build.rank(indices) + 1
    axis = within(node.attr("axis", -1), rank)
    shifted = node.call(aten.add.Tensor, indices, depth)
    indices = node.call(aten.where.self, node.call(aten.lt.Scalar, indices, 0), shifted, indices)
    classes = node.build.count(0, depth).reshape([-1 if a == axis else 1 for a in range(rank)])
    hit = node.call(aten.eq.Tensor, node.call(aten.unsqueeze.default, indices, axis), classes)
    off, on = (node.call(aten.select.int, values, 0, position) for position in (0, 1))
    return node.call(aten.where.self, hit, on, off)


def _compress(node: Node) -> Any:
    """Elements where a constant condition holds; with a computed one the size of the result would depend on data."""
    condition, x, axis = node.constant(1), node.tensor(0), node.attr("axis")
    if condition is None:
        raise unsupported("Compress without a condition")
    if axis is None:
        x, axis = node.call(aten.reshape.default, x, [-1]), 0
    return node.call(aten.index_select.default, x, axis, condition.reshape(-1).nonzero().reshape(-1))


def _reverse_sequence(node: Node) -> Any:
    """``length - 1 - t`` in place of ``t`` for the first `length` steps of each sequence."""
    x, batch, time = node.tensor(0), node.attr("batch_axis", 1), node.attr("time_axis", 0)
    rank, shape = node.build.rank(x), node.build.shape(x)
    lengths = node.cast(node.tensor(1), torch.int64)
    lengths = node.call(aten.reshape.default, lengths, [-1 if a == batch else 1 for a in range(rank)])
    steps = node.build.count(0, shape[time])
    steps = node.call(aten.reshape.default, steps, [-1 if a == time else 1 for a in range(rank)])
    turned = node.call(aten.sub.Tensor, node.call(aten.sub.Tensor, lengths, 1), steps)
    indices = node.call(aten.where.self, node.call(aten.lt.Tensor, steps, lengths), turned, steps)
    return node.call(aten.gather.default, x, time, node.call(aten.expand.default, indices, list(shape)))


def _tensor_scatter(node: Node) -> Any:
    """Writes a cache of keys or values from a position of each sample on."""
    cache, update = node.tensor(0), node.tensor(1)
    rank = node.build.rank(cache)
    axis = within(node.attr("axis", -2), rank)
    steps = node.build.count(0, node.build.size(update, axis))
    places = node.call(aten.reshape.default, steps, [-1 if a == axis else 1 for a in range(rank)])
    if node.value(2) is not None:
        starts = node.cast(node.tensor(2), torch.int64)
        starts = node.call(aten.reshape.default, starts, [-1, *[1] * (rank - 1)])
        places = node.call(aten.add.Tensor, starts, places)
    if node.attr("mode", "linear") == "circular":
        places = node.call(aten.remainder.Scalar, places, node.build.size(cache, axis))
    places = node.call(aten.expand.default, places, list(node.build.shape(update)))
    return node.call(aten.scatter.src, cache, axis, places, update)


def _eye_like(node: Node) -> Any:
    x, number = node.tensor(0), node.attr("dtype")
    kind = node.build.dtype(x) if number is None else dtype_of(number, "EyeLike")
    rows, columns = (node.build.fixed(x, axis, "EyeLike") for axis in (0, 1))
    node.build.bounded(rows * columns)
    return (torch.arange(columns)[None] - torch.arange(rows)[:, None] == node.attr("k", 0)).to(kind)


def _array_feature(node: Node) -> Any:
    """Columns of the last dimension (ai.onnx.ml)."""
    x, indices = node.tensor(0), node.tensor(1)
    axis = node.build.rank(x) - 1
    if isinstance(x, fx.Node) and isinstance(indices, Tensor):
        indices = indices.reshape(-1)
    else:
        indices = node.call(aten.reshape.default, indices, [-1])
    result = node.call(aten.index_select.default, x, axis, indices)
    return node.call(aten.unsqueeze.default, result, 0) if axis == 0 else result


OPERATORS: Final[dict[str, Operator]] = {
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Compress": _compress,
    "ReverseSequence": _reverse_sequence,
    "TensorScatter": _tensor_scatter,
    "EyeLike": _eye_like,
    "ai.onnx.ml.ArrayFeatureExtractor": _array_feature,
}
