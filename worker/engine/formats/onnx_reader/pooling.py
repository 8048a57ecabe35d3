"""Operators over windows and axes: pooling, reductions, resizing, sorting."""

from typing import Any, Final

import torch

from worker.engine.formats.onnx_reader.layers import pad_around, padding
from worker.engine.formats.onnx_reader.node import Node, Operator
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
    if not _torch_can(kernel, pads):
        x, pads = pad_around(node, x, pads, float("-inf")), [0] * (2 * dims)
    return node.call(_MAX[dims], x, kernel, stride, pads[:dims], dilation, bool(node.attr("ceil_mode", 0)))


def _average_pool(node: Node) -> Any:
    x = node.tensor(0)
    kernel, stride, dilation, pads = _window(node, x)
    dims, ceil, include = len(kernel), bool(node.attr("ceil_mode", 0)), bool(node.attr("count_include_pad", 0))
    if any(d != 1 for d in dilation):
        raise unsupported("AveragePool with dilation")
    pool = _AVERAGE[dims]
    if _torch_can(kernel, pads):
        return node.call(pool, x, kernel, stride, pads[:dims], ceil, include)
    total = node.call(pool, pad_around(node, x, pads), kernel, stride, [0] * dims, ceil, True)
    if include:
        return total
    ones = pad_around(node, node.call(aten.ones_like.default, x), pads)
    share = node.call(pool, ones, kernel, stride, [0] * dims, ceil, True)
    return node.call(aten.div.Tensor, total, share)


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


def _max(node: Node, x: Any, axes: list[int], keep: bool) -> Any:
    return node.call(aten.amax.default, x, axes, keep)


def _min(node: Node, x: Any, axes: list[int], keep: bool) -> Any:
    return node.call(aten.amin.default, x, axes, keep)


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
        if node.attr("select_last_index", 0):
            raise unsupported(f"{node.op} with select_last_index")
        return node.call(target, node.tensor(0), node.attr("axis", 0), bool(node.attr("keepdims", 1)))

    return apply


def _top_k(node: Node) -> Any:
    k, largest = node.build.sizes(node.value(1), "TopK")[0], bool(node.attr("largest", 1))
    x, axis = node.tensor(0), node.attr("axis", -1)
    # Of equal values ONNX takes the first; topk of torch takes any.
    result = node.call(aten.sort.stable, x, stable=True, dim=axis, descending=largest)
    return tuple(node.call(aten.slice.Tensor, node.build.item(result, i), axis, 0, k) for i in (0, 1))


def _cumsum(node: Node) -> Any:
    x, axis = node.tensor(0), int(node.scalar(1, 0))
    if node.attr("exclusive", 0):
        raise unsupported("CumSum without its own element")
    if not node.attr("reverse", 0):
        return node.call(aten.cumsum.default, x, axis)
    flipped = node.call(aten.flip.default, x, [axis])
    return node.call(aten.flip.default, node.call(aten.cumsum.default, flipped, axis), [axis])


_NEAREST: Final = {1: aten.upsample_nearest1d.vec, 2: aten.upsample_nearest2d.vec, 3: aten.upsample_nearest3d.vec}
_LINEAR: Final = {1: aten.upsample_linear1d.vec, 2: aten.upsample_bilinear2d.vec, 3: aten.upsample_trilinear3d.vec}


def _resize(node: Node) -> Any:
    x = node.tensor(0)
    rank = node.build.rank(x)
    scales, sizes = _resize_target(node, x, rank)
    mode = node.attr("mode", "nearest")
    place = node.attr("coordinate_transformation_mode", "half_pixel")
    if node.attr("antialias", 0) or place == "tf_crop_and_resize":
        raise unsupported("Resize with antialias or crop")
    if mode == "nearest":
        _check_nearest(node, x, place, scales, sizes)
        return node.call(_NEAREST[rank - 2], x, sizes, scales)
    if place not in ("half_pixel", "pytorch_half_pixel", "align_corners") or node.attr("exclude_outside", 0):
        raise unsupported(f"Resize with coordinates {place}")
    _check_corners(node, x, place, scales, sizes)
    if mode == "linear":
        return node.call(_LINEAR[rank - 2], x, sizes, place == "align_corners", scales)
    if mode == "cubic" and rank == 4 and node.attr("cubic_coeff_a", -0.75) == -0.75:
        return node.call(aten.upsample_bicubic2d.vec, x, sizes, place == "align_corners", scales)
    raise unsupported(f"Resize in mode {mode} over {rank - 2} dimensions")


def _resize_target(node: Node, x: Any, rank: int) -> tuple[list[float] | None, list[Any] | None]:
    """Scales or sizes of the spatial dimensions: one of the two."""
    given = node.constant(2)
    scales: list[float] | None = None
    sizes: list[Any] | None = None
    axes = [axis % rank for axis in node.attr("axes") or range(rank)]
    if given is not None and given.numel():
        by_axis: dict[int, Any] = dict(zip(axes, given.tolist(), strict=True))
        scales = [by_axis.get(axis, 1.0) for axis in range(2, rank)]
        fixed = all(by_axis.get(axis, 1.0) == 1.0 for axis in (0, 1))
    else:
        if node.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise unsupported("Resize that keeps the aspect ratio")
        by_axis = dict(zip(axes, node.build.sizes(node.value(3), "Resize"), strict=True))
        sizes = [by_axis.get(axis, node.build.size(x, axis)) for axis in range(2, rank)]
        fixed = all(by_axis.get(axis, node.build.size(x, axis)) is node.build.size(x, axis) for axis in (0, 1))
    if not fixed or not 3 <= rank <= 5:
        raise unsupported("Resize of other than the spatial dimensions")
    return scales, sizes


def _check_corners(node: Node, x: Any, place: str, scales: list[float] | None, sizes: list[Any] | None) -> None:
    """Where torch and ONNX differ: corners of an output that is no whole number, and outputs of one element."""
    for axis, scale in enumerate(scales or [], 2):
        size = node.build.size(x, axis)
        whole = scale == int(scale) or (isinstance(size, int) and size * scale == int(size * scale))
        if place == "align_corners" and not whole:
            raise unsupported("Resize with aligned corners and a broken scale")
    if place == "pytorch_half_pixel" and 1 in (sizes or []):
        raise unsupported("Resize to one element with coordinates pytorch_half_pixel")


def _check_nearest(node: Node, x: Any, place: str, scales: list[float] | None, sizes: list[Any] | None) -> None:
    """torch takes ``floor(i / scale)``; for whole factors that is what most of the other roundings give, too."""
    rounding = node.attr("nearest_mode", "round_prefer_floor")
    if place == "asymmetric" and rounding == "floor":
        return
    factors: list[float] = scales or []
    for axis, size in enumerate(sizes or [], 2):
        known = node.build.size(x, axis)
        factors.append(size / known if isinstance(size, int) and isinstance(known, int) else 0.5)
    whole = all(factor >= 1 and factor == int(factor) for factor in factors)
    if (
        whole
        and place in ("half_pixel", "pytorch_half_pixel")
        and rounding in ("round_prefer_floor", "round_prefer_ceil")
    ):
        return
    if whole and place == "asymmetric" and rounding == "round_prefer_floor" and max(factors) <= 2:
        return
    raise unsupported(f"Resize to the nearest with coordinates {place} and rounding {rounding}")


OPERATORS: Final[dict[str, Operator]] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda node: node.call(aten.mean.dim, node.tensor(0), _spatial(node), True),
    "GlobalMaxPool": lambda node: node.call(aten.amax.default, node.tensor(0), _spatial(node), True),
    "ReduceMean": _reduction(_mean),
    "ReduceSum": _reduction(_sum),
    "ReduceMax": _reduction(_max),
    "ReduceMin": _reduction(_min),
    "ReduceProd": _reduction(_prod),
    "ReduceL1": _reduction(_l1),
    "ReduceL2": _reduction(_l2),
    "ReduceSumSquare": _reduction(_squares),
    "ReduceLogSum": _reduction(_log_sum),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ArgMax": _arg(aten.argmax.default),
    "ArgMin": _arg(aten.argmin.default),
    "TopK": _top_k,
    "CumSum": _cumsum,
    "Resize": _resize,
}
