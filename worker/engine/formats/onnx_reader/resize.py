"""Resizing and sampling of images.

torch has kernels for the usual forms. For the others each output element along an axis is a weighted sum of input
elements, and the weights follow from the sizes alone: a constant matrix for each axis, as the specification of Resize
defines it (coordinates, then coefficients of Keys' cubic or of the triangle, widened for antialiasing).
"""

import dataclasses
import math
from typing import Any, Final

import torch
from torch import Tensor

from worker.engine.formats.onnx_reader.node import Node, Operator, within
from worker.engine.formats.onnx_reader.values import unsupported

aten = torch.ops.aten
#: Elements along an axis, before or after, for which a matrix of weights is written out.
_LONGEST: Final = 1 << 14
_NEAREST: Final = {1: aten.upsample_nearest1d.vec, 2: aten.upsample_nearest2d.vec, 3: aten.upsample_nearest3d.vec}
_LINEAR: Final = {1: aten.upsample_linear1d.vec, 2: aten.upsample_bilinear2d.vec, 3: aten.upsample_trilinear3d.vec}


@dataclasses.dataclass(frozen=True)
class _Target:
    """What to resize: `axes`, with a scale or a size (which may be symbolic) for each."""

    axes: list[int]
    scales: list[float] | None
    sizes: list[Any] | None


def _resize(node: Node) -> Any:
    x = node.tensor(0)
    target = _target(node, x)
    result = _by_kernel(node, x, target)
    return _by_matrix(node, x, target) if result is None else result


def _target(node: Node, x: Any) -> _Target:
    rank = node.build.rank(x)
    axes = [within(axis, rank) for axis in node.attr("axes") or range(rank)]
    given = node.constant(2 if node.opset > 10 else 1)
    if given is not None and given.numel():
        if not bool(((given > 0) & given.isfinite()).all()):
            raise unsupported(f"{node.op} by a scale that is not a positive number")
        return _Target(axes, [float(v) for v in given.tolist()], None)
    sizes = node.build.sizes(node.value(3), "Resize")
    policy = node.attr("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return _Target(axes, None, sizes)
    what = "Resize that keeps the aspect ratio"
    known, wanted = [node.build.fixed(x, axis, what) for axis in axes], node.build.numbers(node.value(3), what)
    ratios = [size / was for size, was in zip(wanted, known, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return _Target(axes, [scale] * len(axes), [math.floor(scale * was + 0.5) for was in known])


# -- by torch's kernels ------------------------------------------------------------------------------------------------


def _by_kernel(node: Node, x: Any, target: _Target) -> Any:
    """The result where a kernel of torch gives what ONNX asks for, else None."""
    rank, mode, place = node.build.rank(x), node.attr("mode", "nearest"), _place(node)
    if node.attr("antialias", 0) or (target.scales and target.sizes) or not 3 <= rank <= 5:
        return None
    scales, sizes = _spatial(node, x, target, rank)
    if scales is None and sizes is None:
        return None
    if mode == "nearest":
        return node.call(_NEAREST[rank - 2], x, sizes, scales) if _nearest_agrees(node, x, scales, sizes) else None
    if node.attr("exclude_outside", 0) or not _corners_agree(node, x, place, scales, sizes):
        return None
    if mode == "linear":
        return node.call(_LINEAR[rank - 2], x, sizes, place == "align_corners", scales)
    if mode == "cubic" and rank == 4 and node.attr("cubic_coeff_a", -0.75) == -0.75:
        return node.call(aten.upsample_bicubic2d.vec, x, sizes, place == "align_corners", scales)
    return None


def _place(node: Node) -> str:
    """How coordinates of the output are placed in the input."""
    return str(node.attr("coordinate_transformation_mode", "half_pixel" if node.opset > 10 else "asymmetric"))


def _spatial(node: Node, x: Any, target: _Target, rank: int) -> tuple[list[float] | None, list[Any] | None]:
    """Scales or sizes of the spatial dimensions: one of the two; none where others are resized as well."""
    if target.scales is not None:
        scale = dict(zip(target.axes, target.scales, strict=True))
        kept = all(scale.get(axis, 1.0) == 1.0 for axis in (0, 1))
        return ([scale.get(axis, 1.0) for axis in range(2, rank)] if kept else None), None
    size = dict(zip(target.axes, target.sizes or [], strict=True))
    kept = all(_same_size(size[axis], node.build.size(x, axis)) for axis in (0, 1) if axis in size)
    return None, [size.get(axis, node.build.size(x, axis)) for axis in range(2, rank)] if kept else None


def _same_size(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, int) and isinstance(other, int) and one == other)


def _corners_agree(node: Node, x: Any, place: str, scales: list[float] | None, sizes: list[Any] | None) -> bool:
    """torch and ONNX differ at corners of an output that is no whole number, and at outputs of one element."""
    if place not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return False
    lengths = list(sizes or [])
    for axis, scale in enumerate(scales or [], 2):
        size = node.build.size(x, axis)
        lengths.append(math.floor(scale * size) if isinstance(size, int) else None)
        whole = scale == int(scale) or (isinstance(size, int) and size * scale == int(size * scale))
        if place == "align_corners" and not whole:
            raise unsupported("Resize with aligned corners and a broken scale, where runtimes disagree")
    return not (place == "pytorch_half_pixel" and 1 in lengths)


def _nearest_agrees(node: Node, x: Any, scales: list[float] | None, sizes: list[Any] | None) -> bool:
    """torch takes ``floor(i / scale)``; for whole factors that is what most of the other roundings give, too."""
    place, rounding = _place(node), node.attr("nearest_mode", "round_prefer_floor" if node.opset > 10 else "floor")
    if place == "asymmetric" and rounding == "floor":
        return True
    factors: list[float] = list(scales or [])
    for axis, size in enumerate(sizes or [], 2):
        known = node.build.size(x, axis)
        factors.append(size / known if isinstance(size, int) and isinstance(known, int) else 0.5)
    whole = all(factor >= 1 and factor == int(factor) for factor in factors)
    if whole and place in ("half_pixel", "pytorch_half_pixel"):
        return rounding in ("round_prefer_floor", "round_prefer_ceil")
    return whole and place == "asymmetric" and rounding == "round_prefer_floor" and max(factors) <= 2


# -- by a matrix for each axis -----------------------------------------------------------------------------------------


def _by_matrix(node: Node, x: Any, target: _Target) -> Any:
    what = f"Resize in mode {node.attr('mode', 'nearest')} with coordinates {_place(node)}"
    roi = node.constant(1) if _place(node) == "tf_crop_and_resize" else None
    outside: list[tuple[int, Tensor]] = []
    for position, axis in enumerate(target.axes):
        if target.sizes is not None and _same_size(target.sizes[position], node.build.size(x, axis)) and roi is None:
            continue  # kept as it is, be it symbolic
        if target.scales is not None and target.scales[position] == 1.0 and roi is None:
            continue
        size = node.build.fixed(x, axis, what)
        scale, length = _scale_and_length(node, target, position, size, what)
        if max(size, length) > _LONGEST:
            raise unsupported(f"{what} from {size} to {length} elements along an axis")
        part = (
            (0.0, 1.0)
            if roi is None or not roi.numel()
            else (float(roi[position]), float(roi[position - len(target.axes)]))
        )
        places = [_coordinate(_place(node), i, scale, size, length, part) for i in range(length)]
        if _place(node) == "tf_crop_and_resize":
            outside.append((axis, torch.tensor([p < 0 or p > size - 1 for p in places])))
        x = _along(node, x, axis, [_row(node, place, scale, size) for place in places], size)
    return _extrapolated(node, x, outside)


def _scale_and_length(node: Node, target: _Target, position: int, size: int, what: str) -> tuple[float, int]:
    if target.scales is None:
        length = (target.sizes or [])[position]
        if not isinstance(length, int):
            raise unsupported(f"{what} to a symbolic size")
        return length / size, length
    scale = target.scales[position]
    if _place(node) == "align_corners" and not (scale * size).is_integer():
        raise unsupported("Resize with aligned corners and a broken scale, where runtimes disagree")
    return scale, target.sizes[position] if target.sizes is not None else math.floor(scale * size)


def _coordinate(place: str, i: int, scale: float, size: int, length: int, part: tuple[float, float]) -> float:
    """Where output element `i` lies in the input of `size` elements."""
    width, (first, last) = scale * size, part
    if place == "align_corners":
        return 0.0 if length == 1 else i * (size - 1) / (length - 1)
    if place == "asymmetric":
        return i / scale
    if place == "tf_crop_and_resize":
        middle = (last - first) * (size - 1)
        return first * (size - 1) + (middle / 2 if length == 1 else i * middle / (length - 1))
    if place == "pytorch_half_pixel" and length == 1:
        return 0.0
    if place == "half_pixel_symmetric":
        return size / 2 * (1 - length / width) + (i + 0.5) / scale - 0.5
    if place in ("half_pixel", "pytorch_half_pixel"):
        return (i + 0.5) / scale - 0.5
    raise unsupported(f"Resize with coordinates {place}")


def _row(node: Node, place: float, scale: float, size: int) -> dict[int, float]:
    """Weights of the input elements for one output element."""
    base = math.ceil(place) - 1  # so that the fraction is in (0, 1]: of two that are equally near, the left one
    weights = {base + i: value for i, value in _coefficients(node, place - base, scale)}
    if node.attr("exclude_outside", 0):
        weights = {i: value for i, value in weights.items() if 0 <= i < size}
        weights = {i: value / sum(weights.values()) for i, value in weights.items()}
    row: dict[int, float] = {}
    for index, value in weights.items():
        inside = min(max(index, 0), size - 1)
        row[inside] = row.get(inside, 0.0) + value
    return row


def _coefficients(node: Node, ratio: float, scale: float) -> list[tuple[int, float]]:
    mode, smaller = node.attr("mode", "nearest"), min(scale, 1.0) if node.attr("antialias", 0) else 1.0
    if mode == "nearest":
        return [(_nearest(node, ratio), 1.0)]
    a = node.attr("cubic_coeff_a", -0.75)
    reach, kernel = (2, lambda t: _cubic(t, a)) if mode == "cubic" else (1, lambda t: max(0.0, 1 - abs(t)))
    start = math.floor(-reach / smaller) + 1
    values = [(i, kernel(smaller * (i - ratio))) for i in range(start, 2 - start)]
    total = sum(value for _, value in values)
    return [(i, value / total) for i, value in values]


def _nearest(node: Node, ratio: float) -> int:
    rounding = node.attr("nearest_mode", "round_prefer_floor" if node.opset > 10 else "floor")
    if ratio == 1:
        return 1
    return int(
        {"round_prefer_floor": ratio > 0.5, "round_prefer_ceil": ratio >= 0.5, "ceil": True}.get(rounding, False)
    )


def _cubic(t: float, a: float) -> float:
    """Keys 1981: third-order convolution kernel with parameter `a`."""
    t = abs(t)
    if t <= 1:
        return float((a + 2) * t**3 - (a + 3) * t**2 + 1)
    return float(a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a) if t < 2 else 0.0


def _along(node: Node, x: Any, axis: int, rows: list[dict[int, float]], size: int) -> Any:
    """Apply the rows of weights along one axis."""
    if all(len(row) == 1 for row in rows):
        indices = torch.tensor([next(iter(row)) for row in rows], dtype=torch.int64)
        return node.call(aten.index_select.default, x, axis, indices)
    matrix = torch.zeros(size, len(rows), dtype=torch.float64)
    for column, row in enumerate(rows):
        for index, value in row.items():
            matrix[index, column] = value
    order = [a for a in range(node.build.rank(x)) if a != axis] + [axis]
    back = [order.index(a) for a in range(len(order))]
    moved = node.call(aten.permute.default, x, order)
    product = node.call(aten.matmul.default, moved, matrix.to(node.build.dtype(x)))
    return node.call(aten.permute.default, product, back)


def _extrapolated(node: Node, x: Any, outside: list[tuple[int, Tensor]]) -> Any:
    for axis, mask in outside:
        if bool(mask.any()):
            shape = [-1 if a == axis else 1 for a in range(node.build.rank(x))]
            value = node.attr("extrapolation_value", 0.0)
            x = node.call(aten.masked_fill.Scalar, x, mask.reshape(shape), value)
    return x


# -- other operators on images -----------------------------------------------------------------------------------------


def _upsample(node: Node) -> Any:
    """What Resize was before opset 10: coordinates without an offset."""
    scales = node.value(1) if node.opset >= 9 else torch.tensor(node.attr("scales"))
    places = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    attributes = {"mode": node.attr("mode", "nearest"), **places}
    return _resize(dataclasses.replace(node, opset=11, inputs=(node.value(0), None, scales), attributes=attributes))


def _checked_resize(node: Node) -> Any:
    if node.opset > 10:
        return _resize(node)
    scales = node.constant(1)
    if node.attr("mode", "nearest") == "nearest" and scales is not None and bool((scales < 1).any()):
        raise unsupported("Resize of opset 10 to a smaller size by the nearest, where runtimes disagree")
    return _resize(node)


_MODES: Final = {"linear": 0, "bilinear": 0, "nearest": 1, "cubic": 2, "bicubic": 2}
_BORDERS: Final = {"zeros": 0, "border": 1, "reflection": 2}


def _grid_sample(node: Node) -> Any:
    x, mode = node.tensor(0), _MODES[node.attr("mode", "linear")]
    if node.build.rank(x) == 5 and mode == 2:
        raise unsupported("GridSample in mode cubic of volumes")
    border = _BORDERS[node.attr("padding_mode", "zeros")]
    return node.call(aten.grid_sampler.default, x, node.tensor(1), mode, border, bool(node.attr("align_corners", 0)))


def _affine_grid(node: Node) -> Any:
    size = node.build.sizes(node.value(1), "AffineGrid")
    return node.call(aten.affine_grid_generator.default, node.tensor(0), size, bool(node.attr("align_corners", 0)))


OPERATORS: Final[dict[str, Operator]] = {
    "Resize": _checked_resize,
    "Upsample": _upsample,
    "GridSample": _grid_sample,
    "AffineGrid": _affine_grid,
}
