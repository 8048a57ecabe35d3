"""Operators over windows and axes: pooling, reductions, sorting."""

import math
import operator
from typing import Any, Final

import torch

from worker.engine.formats.onnx_reader.layers import pad_around, padding
from worker.engine.formats.onnx_reader.node import Node, Operator, within
from worker.engine.formats.onnx_reader.values import unsupported

aten = torch.ops.aten
_MAX: Final = {1: aten.max_pool1d.default, 2: aten.max_pool2d.default, 3: aten.max_pool3d.default}
_AVERAGE: Final = {1: aten.avg_pool1d.default, 2: aten.avg_pool2d.default, 3: aten.avg_pool3d.default}


def _window(node: Node, x: Any) -> tuple[list[int], list[int], list[int], list[int]]:
    kernel = list(node.attr("kernel_shape"))
    dims = len(kernel)
    stride, dilation = list(node.attr("strides", [1] * dims)), list(node.attr("dilations", [1] * dims))
    if dims not in _MAX or node.attr("storage_order", 0):
        raise unsupported(f"{node.op} over {dims} dimensions")
    if any(d != 1 for d in dilation) and str(node.attr("auto_pad", "")).startswith("SAME"):
        raise unsupported(f"{node.op} with auto_pad and dilations, where runtimes disagree")
    return kernel, stride, dilation, padding(node, x, kernel, stride, dilation)


def _torch_can(kernel: list[int], pads: list[int]) -> bool:
    """torch pads alike on both sides and by half a window at most."""
    dims = len(kernel)
    return pads[:dims] == pads[dims:] and all(2 * pad <= k for pad, k in zip(pads, kernel, strict=False))


def _max_pool(node: Node) -> Any:
    x = node.tensor(0)
    if any(node.outputs[1:]):
        raise unsupported("MaxPool with indices as results")
    kernel, stride, dilation, pads = _window(node, x)
    dims = len(kernel)
    ceil = bool(node.attr("ceil_mode", 0))
    if not _torch_can(kernel, pads):
        pads = _whole(node, x, kernel, stride, dilation, pads) if ceil else pads
        x, pads, ceil = pad_around(node, x, pads, float("-inf")), [0] * (2 * dims), False
    return node.call(_MAX[dims], x, kernel, stride, pads[:dims], dilation, ceil)


def _average_pool(node: Node) -> Any:
    x = node.tensor(0)
    kernel, stride, dilation, pads = _window(node, x)
    dims, ceil, include = len(kernel), bool(node.attr("ceil_mode", 0)), bool(node.attr("count_include_pad", 0))
    pool = _AVERAGE[dims]
    if all(d == 1 for d in dilation) and _torch_can(kernel, pads):
        return node.call(pool, x, kernel, stride, pads[:dims], ceil, include)
    ones = node.call(aten.ones_like.default, x)
    whole = _whole(node, x, kernel, stride, dilation, pads) if ceil else pads
    if include:
        x, ones = pad_around(node, x, pads), pad_around(node, ones, pads, 1.0)
        whole = [amount - pad for amount, pad in zip(whole, pads, strict=True)]
    share = _window_sum(node, ones, kernel, stride, dilation, whole)
    return node.call(aten.div.Tensor, _window_sum(node, x, kernel, stride, dilation, whole), share)


def _window_sum(node: Node, x: Any, kernel: list[int], stride: list[int], dilation: list[int], pads: list[int]) -> Any:
    """Sums over windows: a convolution of each channel with ones."""
    dims = len(kernel)
    batch, channels, *_ = node.build.shape(x)
    padded = pad_around(node, x, pads)
    alone = node.call(aten.flatten.using_ints, padded, 0, 1)
    ones = torch.ones(1, 1, *kernel, dtype=node.build.dtype(x))
    single = node.call(aten.unsqueeze.default, alone, 1)
    sums = node.call(aten.convolution.default, single, ones, None, stride, [0] * dims, dilation, False, [0] * dims, 1)
    return node.call(aten.reshape.default, sums, [batch, channels, *node.build.shape(sums)[2:]])


def _whole(node: Node, x: Any, kernel: list[int], stride: list[int], dilation: list[int], pads: list[int]) -> list[int]:
    """Pads with which `ceil_mode` changes nothing: the last window fits, and does not begin behind the data."""
    dims, ends = len(kernel), []
    for axis, (k, s, d, begin, end) in enumerate(zip(kernel, stride, dilation, pads[:dims], pads[dims:], strict=True)):
        data = node.build.fixed(x, axis + 2, f"{node.op} with ceil_mode") + begin
        free = data + end - ((k - 1) * d + 1)
        last = free + -free % s
        ends.append(end + last - free - (s if last >= data else 0))
    return pads[:dims] + ends


def _lp_pool(node: Node) -> Any:
    x, p = node.tensor(0), node.attr("p", 2)
    kernel, stride, dilation, pads = _window(node, x)
    powers = node.call(aten.pow.Tensor_Scalar, node.call(aten.abs.default, x), p)
    pads = _whole(node, x, kernel, stride, dilation, pads) if node.attr("ceil_mode", 0) else pads
    total = _window_sum(node, powers, kernel, stride, dilation, pads)
    return node.call(aten.pow.Tensor_Scalar, total, 1 / p)


def _global_lp_pool(node: Node) -> Any:
    return node.call(aten.linalg_vector_norm.default, node.tensor(0), node.attr("p", 2), _spatial(node), True)


def _spatial(node: Node) -> list[int]:
    return list(range(2, node.build.rank(node.tensor(0))))


def _axes_of(node: Node) -> list[int] | None:
    """Axes to reduce; None: nothing is reduced."""
    rank = node.build.rank(node.tensor(0))
    axes = node.axes(1 if len(node.inputs) > 1 else None, rank)
    if axes:
        return axes
    return None if node.attr("noop_with_empty_axes", 0) else list(range(rank))


def _reduction(compute: Any) -> Operator:
    def apply(node: Node) -> Any:
        x, axes = node.tensor(0), _axes_of(node)
        return x if axes is None else compute(node, x, axes, bool(node.attr("keepdims", 1)))

    return apply


def _mean(node: Node, x: Any, axes: list[int], keep: bool) -> Any:
    if node.build.dtype(x).is_floating_point:
        return node.call(aten.mean.dim, x, axes, keep)
    raise unsupported("ReduceMean of integers")


def _sum(node: Node, x: Any, axes: list[int], keep: bool) -> Any:
    return node.call(aten.sum.dim_IntList, x, axes, keep, dtype=node.build.dtype(x))


def _extreme(target: Any, largest: bool) -> Any:
    def compute(node: Node, x: Any, axes: list[int], keep: bool) -> Any:
        if not any(node.build.size(x, axis) == 0 for axis in axes):
            return node.call(target, x, axes, keep)
        kind = node.build.dtype(x)
        if kind.is_floating_point:
            value: float = -math.inf if largest else math.inf
        elif kind is torch.bool:
            value = not largest
        else:
            value = torch.iinfo(kind).min if largest else torch.iinfo(kind).max
        # The maximum of nothing is the smallest value: one more element of it along each axis.
        around = [amount for axis in reversed(range(node.build.rank(x))) for amount in (0, int(axis in axes))]
        return node.call(target, node.call(aten.constant_pad_nd.default, x, around, value), axes, keep)

    return compute


def _prod(node: Node, x: Any, axes: list[int], keep: bool) -> Any:
    for axis in sorted(axes, reverse=True):
        x = node.call(aten.prod.dim_int, x, axis, keep)
    return x


def _l1(node: Node, x: Any, axes: list[int], keep: bool) -> Any:
    return _sum(node, node.call(aten.abs.default, x), axes, keep)


def _squares(node: Node, x: Any, axes: list[int], keep: bool) -> Any:
    return _sum(node, node.call(aten.mul.Tensor, x, x), axes, keep)


def _l2(node: Node, x: Any, axes: list[int], keep: bool) -> Any:
    return node.call(aten.sqrt.default, _squares(node, x, axes, keep))


def _log_sum(node: Node, x: Any, axes: list[int], keep: bool) -> Any:
    return node.call(aten.log.default, _sum(node, x, axes, keep))


def _log_sum_exp(node: Node, x: Any, axes: list[int], keep: bool) -> Any:
    return node.call(aten.logsumexp.default, x, axes, keep)


def _arg(target: Any) -> Operator:
    def apply(node: Node) -> Any:
        x, axis, keep = node.tensor(0), node.attr("axis", 0), bool(node.attr("keepdims", 1))
        if not node.attr("select_last_index", 0):
            return node.call(target, x, axis, keep)
        size = node.build.size(x, axis)
        last = size - 1 if isinstance(size, int) else node.call(operator.sub, size, 1)
        found = node.call(target, node.call(aten.flip.default, x, [axis]), axis, keep)
        return node.call(aten.rsub.Scalar, found, last)

    return apply


def _top_k(node: Node) -> Any:
    k = node.attr("k") if node.opset < 10 else node.build.sizes(node.value(1), "TopK")[0]
    largest = bool(node.attr("largest", 1))
    x, axis = node.tensor(0), node.attr("axis", -1)
    # Of equal values ONNX takes the first; topk of torch takes any.
    result = node.call(aten.sort.stable, x, stable=True, dim=axis, descending=largest)
    return tuple(node.call(aten.slice.Tensor, node.build.item(result, i), axis, 0, k) for i in (0, 1))


def _cumulative(target: Any, start: int) -> Operator:
    """Sums or products so far; without the element itself they begin with `start`."""

    def apply(node: Node) -> Any:
        x = node.tensor(0)
        rank = node.build.rank(x)
        axis = within(int(node.scalar(1, 0)), rank)
        turned = node.call(aten.flip.default, x, [axis]) if node.attr("reverse", 0) else x
        result = node.call(target, turned, axis, dtype=node.build.dtype(x))
        if node.attr("exclusive", 0):
            moved = [0, 0] * (rank - 1 - axis) + [1, -1]
            result = node.call(aten.constant_pad_nd.default, result, moved, start)
        return node.call(aten.flip.default, result, [axis]) if node.attr("reverse", 0) else result

    return apply


OPERATORS: Final[dict[str, Operator]] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda node: node.call(aten.mean.dim, node.tensor(0), _spatial(node), True),
    "GlobalMaxPool": lambda node: node.call(aten.amax.default, node.tensor(0), _spatial(node), True),
    "ReduceMean": _reduction(_mean),
    "ReduceSum": _reduction(_sum),
    "ReduceMax": _reduction(_extreme(aten.amax.default, largest=True)),
    "ReduceMin": _reduction(_extreme(aten.amin.default, largest=False)),
    "ReduceProd": _reduction(_prod),
    "ReduceL1": _reduction(_l1),
    "ReduceL2": _reduction(_l2),
    "ReduceSumSquare": _reduction(_squares),
    "ReduceLogSum": _reduction(_log_sum),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ArgMax": _arg(aten.argmax.default),
    "ArgMin": _arg(aten.argmin.default),
    "TopK": _top_k,
    "CumSum": _cumulative(aten.cumsum.default, 0),
    "CumProd": _cumulative(aten.cumprod.default, 1),
    "LpPool": _lp_pool,
    "GlobalLpPool": _global_lp_pool,
}
