"""Operators that move elements: reshaping, slicing, gathering, padding, making."""

import math
import operator
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from worker.engine.formats.onnx_reader.node import Node, Operator, within
from worker.engine.formats.onnx_reader.scatter import not_negative
from worker.engine.formats.onnx_reader.values import Size, Sizes, Value, unsupported

aten = torch.ops.aten
_CPU: Final = torch.device("cpu")


def _shape(node: Node) -> Value:
    shape = node.build.shape(node.tensor(0))
    return node.build.pack(shape[slice(node.attr("start", 0), node.attr("end", None))])


def _size(node: Node) -> Value:
    total: Any = 1
    for size in node.build.shape(node.tensor(0)):
        total = size if total == 1 else node.call(operator.mul, total, size)
    return node.build.pack([total], scalar=True)


def _reshape(node: Node) -> Any:
    """0 keeps a size (unless `allowzero`), -1 is what is left."""
    x, target = node.tensor(0), node.build.sizes(node.value(1), "a shape")
    keep = not node.attr("allowzero", 0)
    shape = [node.build.size(x, axis) if keep and size == 0 else size for axis, size in enumerate(target)]
    return node.call(aten.reshape.default, x, shape)


def _flatten(node: Node) -> Any:
    x = node.tensor(0)
    rank = node.build.rank(x)
    axis = node.attr("axis", 1)
    axis = axis + rank if axis < 0 else axis
    if axis == 1 and rank > 1:
        return node.call(aten.flatten.using_ints, x, 1)
    if axis == 0:
        return node.call(aten.reshape.default, x, [1, -1])
    if axis == rank:
        return node.call(aten.reshape.default, x, [-1, 1])
    return node.call(aten.flatten.using_ints, node.call(aten.flatten.using_ints, x, axis), 0, axis - 1)


def _transpose(node: Node) -> Any:
    x = node.tensor(0)
    order = node.attr("perm") or list(reversed(range(node.build.rank(x))))
    return node.call(aten.permute.default, x, list(order))


def _concat(node: Node) -> Any:
    parts = [node.tensor(index) for index in range(len(node.inputs))]
    return node.call(aten.cat.default, parts, node.attr("axis"))


def _split(node: Node) -> Any:
    x = node.tensor(0)
    axis = within(node.attr("axis", 0), node.build.rank(x))
    given = node.constant(1)
    sizes = [int(v) for v in given.tolist()] if given is not None else node.attr("split")
    if sizes is None:
        count = node.attr("num_outputs", len(node.outputs))
        total = node.build.fixed(x, axis, "Split")
        part = math.ceil(total / count)
        sizes = [min(part, total - part * index) for index in range(count)]
    result = node.call(aten.split_with_sizes.default, x, list(sizes), axis)
    return tuple(node.build.item(result, index) for index in range(len(sizes)))


def _slice(node: Node) -> Any:
    x = node.tensor(0)
    rank = node.build.rank(x)
    starts, ends = (node.build.sizes(node.value(index), "Slice") for index in (1, 2))
    axes = node.axes(3, rank) or list(range(len(starts)))
    steps = node.build.numbers(node.value(4), "Slice") if node.value(4) is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step > 0:
            x = node.call(aten.slice.Tensor, x, axis, start, end, step)
        else:
            x = _reversed(node, x, axis, slice(start, end, step))
    return x


def _reversed(node: Node, x: Any, axis: int, part: slice) -> Any:
    if part.step == -1 and part.start == -1 and isinstance(part.stop, int) and part.stop <= -(2**31):
        return node.call(aten.flip.default, x, [axis])
    first, last, step = part.indices(node.build.fixed(x, axis, "Slice backwards"))
    last = min(first, last)  # torch knows no range that steps away from its end
    return node.call(aten.index_select.default, x, axis, node.build.count(first, last, step))


def _gather(node: Node) -> Any:
    """An embedding layer where rows of a weight are picked by an input."""
    data, indices = node.tensor(0), node.tensor(1)
    axis = within(node.attr("axis", 0), node.build.rank(data))
    if (
        isinstance(data, Tensor)
        and data.dim() == 2
        and data.is_floating_point()
        and isinstance(indices, fx.Node)
        and axis == 0
    ):
        with torch.device("meta"):
            module = nn.Embedding(*data.shape)
        return node.build.layer(module, {"weight": data}, indices, node.origin(0))
    if isinstance(indices, Tensor) and indices.dim() == 0:
        return node.call(aten.select.int, data, axis, int(indices))
    shape, rank = node.build.shape(indices), node.build.rank(data)
    flat = node.call(aten.reshape.default, not_negative(node, indices, data, axis), [-1])
    picked = node.call(aten.index_select.default, data, axis, flat)
    if len(shape) == 1:
        return picked
    before, after = node.build.shape(data)[:axis], [node.build.size(data, a) for a in range(axis + 1, rank)]
    return node.call(aten.reshape.default, picked, [*before, *shape, *after])


def _gather_elements(node: Node) -> Any:
    data, axis = node.tensor(0), node.attr("axis", 0)
    return node.call(aten.gather.default, data, axis, not_negative(node, node.tensor(1), data, axis))


def _squeeze(node: Node) -> Any:
    x = node.tensor(0)
    axes = node.axes(1, node.build.rank(x))
    if axes is None:
        axes = [axis for axis, size in enumerate(node.build.shape(x)) if size == 1]
    return node.call(aten.squeeze.dims, x, axes)


def _unsqueeze(node: Node) -> Any:
    x = node.tensor(0)
    given = node.constant(1)
    raw = [int(v) for v in given.reshape(-1).tolist()] if given is not None else list(node.attr("axes"))
    rank = node.build.rank(x) + len(raw)
    for axis in sorted(within(axis, rank) for axis in raw):
        x = node.call(aten.unsqueeze.default, x, axis)
    return x


def _expand(node: Node) -> Any:
    """Broadcasting goes both ways: a 1 in the target keeps what is there."""
    x, target = node.tensor(0), node.build.sizes(node.value(1), "Expand")
    rank = node.build.rank(x)
    target = [*[1] * (rank - len(target)), *target]
    new = len(target) - rank
    shape: list[Size] = [
        -1 if axis >= new and (size == 1 or size is node.build.size(x, axis - new)) else size
        for axis, size in enumerate(target)
    ]
    return node.call(aten.expand.default, x, shape)


def _pad(node: Node) -> Any:
    x = node.tensor(0)
    rank = node.build.rank(x)
    pads = node.build.numbers(node.value(1), "Pad") if len(node.inputs) > 1 else list(node.attr("pads"))
    axes = node.axes(3, rank) if len(node.inputs) > 3 else None
    axes = axes if axes is not None else list(range(rank))
    around = {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    flat = [amount for axis in reversed(range(rank)) for amount in around.get(axis, (0, 0))]
    mode = node.attr("mode", "constant")
    if mode == "constant":
        return node.call(aten.constant_pad_nd.default, x, flat, node.scalar(2, 0.0))
    if mode not in ("reflect", "edge", "wrap"):
        raise unsupported(f"Pad in mode {mode}")
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    if not any(flat):
        return x
    if len(flat) // 2 > 3 or rank < len(flat) // 2 + 1:
        raise unsupported(f"Pad in mode {mode} over {len(flat) // 2} of {rank} dimensions")
    return node.call(aten.pad.default, x, flat, {"edge": "replicate", "wrap": "circular"}.get(mode, mode))


_CONSTANTS: Final = {
    "value_float": torch.float32,
    "value_floats": torch.float32,
    "value_int": torch.int64,
    "value_ints": torch.int64,
}


def _constant(node: Node) -> Value:
    if "value" in node.attributes:
        return node.attr("value")  # type: ignore[no-any-return]
    for name, dtype in _CONSTANTS.items():
        if name in node.attributes:
            return torch.tensor(node.attr(name), dtype=dtype)
    raise unsupported("a Constant of strings or sparse values")


def _constant_of_shape(node: Node) -> Any:
    value = node.attr("value")
    filled = value if value is not None else torch.zeros(1)
    shape = node.build.sizes(node.value(0), "ConstantOfShape")
    return node.call(aten.full.default, shape, filled.reshape(-1)[0].item(), dtype=filled.dtype, device=_CPU)


def _range(node: Node) -> Any:
    bounds: list[Any] = []
    kind = torch.int64
    for index in range(3):
        value = node.value(index)
        if isinstance(value, Sizes):
            bounds.append(value.values[0])
        elif isinstance(value, Tensor):
            kind = value.dtype
            bounds.append(value.reshape(-1)[0].item())
        else:
            raise unsupported("Range computed from data")
    return node.call(aten.arange.start_step, *bounds, dtype=kind, device=_CPU)


def _depth_to_space(node: Node) -> Any:
    x, block = node.tensor(0), node.attr("blocksize")
    if node.attr("mode", "DCR") == "CRD":
        return node.call(aten.pixel_shuffle.default, x, block)
    batch, _, height, width = node.build.shape(x)
    depth = node.build.fixed(x, 1, "DepthToSpace") // (block * block)
    y = node.call(aten.reshape.default, x, [batch, block, block, depth, height, width])
    y = node.call(aten.permute.default, y, [0, 3, 4, 1, 5, 2])
    return node.call(aten.flatten.using_ints, node.call(aten.flatten.using_ints, y, 4, 5), 2, 3)


def _space_to_depth(node: Node) -> Any:
    x, block = node.tensor(0), node.attr("blocksize")
    if node.attr("mode", "DCR") == "CRD":
        return node.call(aten.pixel_unshuffle.default, x, block)
    y = node.call(aten.unflatten.int, x, 3, [-1, block])
    y = node.call(aten.unflatten.int, y, 2, [-1, block])
    y = node.call(aten.permute.default, y, [0, 3, 5, 1, 2, 4])
    return node.call(aten.flatten.using_ints, y, 1, 3)


def _trilu(node: Node) -> Any:
    k = int(node.scalar(1, 0) or 0)
    return node.call(aten.triu.default if node.attr("upper", 1) else aten.tril.default, node.tensor(0), k)


def _tile(node: Node) -> Any:
    return node.call(aten.repeat.default, node.tensor(0), node.build.sizes(node.value(1), "Tile"))


OPERATORS: Final[dict[str, Operator]] = {
    "Shape": _shape,
    "Size": _size,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Pad": _pad,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Trilu": _trilu,
    "Tile": _tile,
}
