"""Operators with weights: convolutions, products, normalizations."""

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from worker.engine.formats.layers import CONVOLUTIONS, TRANSPOSED
from worker.engine.formats.onnx_reader.node import Node, Operator
from worker.engine.formats.onnx_reader.values import unsupported

aten = torch.ops.aten


def padding(node: Node, x: Any, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Pads at the beginnings, then at the ends, of the spatial dimensions: `pads` or what `auto_pad` means."""
    mode, dims = node.attr("auto_pad", "NOTSET"), len(kernel)
    if mode in ("NOTSET", ""):
        return list(node.attr("pads", [0] * (2 * dims)))
    if mode == "VALID":
        return [0] * (2 * dims)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise unsupported(f"{node.op} with auto_pad {mode[:80]}")
    begins, ends = [], []
    for axis, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True)):
        reach = (k - 1) * d + 1
        if s == 1:
            total = reach - 1
        else:
            size = node.build.fixed(x, axis + 2, f"{node.op} with auto_pad {mode}")
            total = max((math.ceil(size / s) - 1) * s + reach - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return begins + ends


def pad_around(node: Node, x: Any, pads: Sequence[int], value: float = 0.0) -> Any:
    """Explicit padding of the spatial dimensions; negative amounts crop."""
    dims = len(pads) // 2
    flat = [amount for axis in reversed(range(dims)) for amount in (pads[axis], pads[axis + dims])]
    return node.call(aten.constant_pad_nd.default, x, flat, value) if any(flat) else x


def _conv(node: Node) -> Any:
    x, weight, bias = node.tensor(0), node.tensor(1), node.value(2)
    kernel = node.attr("kernel_shape") or [
        node.build.fixed(weight, a, "Conv") for a in range(2, node.build.rank(weight))
    ]
    dims = len(kernel)
    stride, dilation = list(node.attr("strides", [1] * dims)), list(node.attr("dilations", [1] * dims))
    groups, pads = node.attr("group", 1), padding(node, x, kernel, stride, dilation)
    if pads[:dims] != pads[dims:]:
        x, pads = pad_around(node, x, pads), [0] * (2 * dims)
    if not isinstance(weight, Tensor) or not (bias is None or isinstance(bias, Tensor)) or dims > 3:
        arguments = stride, pads[:dims], dilation, False, [0] * dims, groups
        return node.call(aten.convolution.default, x, weight, bias, *arguments)
    with torch.device("meta"):
        module = CONVOLUTIONS[dims - 1](
            weight.shape[1] * groups,
            weight.shape[0],
            tuple(kernel),
            stride=tuple(stride),
            padding=tuple(pads[:dims]),
            dilation=tuple(dilation),
            groups=groups,
            bias=bias is not None,
        )
    return node.build.layer(module, given(weight=weight, bias=bias), x, node.origin(1))


def _conv_transpose(node: Node) -> Any:
    x, weight, bias = node.tensor(0), node.tensor(1), node.value(2)
    dims, groups = node.build.rank(x) - 2, node.attr("group", 1)
    kernel = [node.build.fixed(weight, axis, "ConvTranspose") for axis in range(2, dims + 2)]
    extra = list(node.attr("output_padding") or [0] * dims)
    stride, dilation = list(node.attr("strides", [1] * dims)), list(node.attr("dilations", [1] * dims))
    pads = _transposed_pads(node, x, kernel, stride, dilation, extra)
    # torch wants the extra rows smaller than stride or dilation; as an uneven crop they can be anything.
    own = pads[:dims] == pads[dims:] and min(pads) >= 0
    own = own and all(e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True))
    inner, added = (pads[:dims], extra) if own else ([0] * dims, [0] * dims)
    if isinstance(weight, Tensor) and (bias is None or isinstance(bias, Tensor)) and dims <= 3:
        with torch.device("meta"):
            module = TRANSPOSED[dims - 1](
                weight.shape[0],
                weight.shape[1] * groups,
                tuple(kernel),
                stride=tuple(stride),
                padding=tuple(inner),
                output_padding=tuple(added),
                dilation=tuple(dilation),
                groups=groups,
                bias=bias is not None,
            )
        result = node.build.layer(module, given(weight=weight, bias=bias), x, node.origin(1))
    else:
        result = node.call(aten.convolution.default, x, weight, bias, stride, inner, dilation, True, added, groups)
    if own:
        return result
    crop = [-p for p in pads[:dims]] + [e - p for e, p in zip(extra, pads[dims:], strict=True)]
    if bias is not None and max(crop) > 0:
        raise unsupported("ConvTranspose with an output_padding beyond its stride")
    return pad_around(node, result, crop)


def _transposed_pads(
    node: Node, x: Any, kernel: list[int], stride: list[int], dilation: list[int], extra: list[int]
) -> list[int]:
    """Pads at the beginnings, then the ends: `pads`, or what leads to `output_shape` or to ``size * stride``."""
    mode, dims, shape = node.attr("auto_pad", "NOTSET"), len(kernel), node.attr("output_shape")
    if not shape and mode in ("NOTSET", "", "VALID"):
        return list(node.attr("pads") or [0] * (2 * dims)) if mode != "VALID" else [0] * (2 * dims)
    begins, ends = [], []
    for axis, (k, s, d, e) in enumerate(zip(kernel, stride, dilation, extra, strict=True)):
        reach = (k - 1) * d + 1
        if shape:
            size = node.build.fixed(x, axis + 2, "ConvTranspose with output_shape")
            total = s * (size - 1) + e + reach - shape[len(shape) - dims + axis]
        else:
            total = e + reach - s
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return begins + ends


def given(**tensors: Tensor | None) -> dict[str, Tensor]:
    """Those that are there."""
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _linear(node: Node, x: Any, weight: Tensor, bias: Tensor | None) -> Any:
    with torch.device("meta"):
        module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    return node.build.layer(module, given(weight=weight, bias=bias), x, node.origin(1))


def _gemm(node: Node) -> Any:
    """``alpha A' B' + beta C``: a linear layer where B and C are constant."""
    a, b, c = node.tensor(0), node.tensor(1), node.value(2)
    alpha, beta = node.attr("alpha", 1.0), node.attr("beta", 1.0)
    if node.attr("transA", 0):
        a = node.call(aten.permute.default, a, [1, 0])
    if isinstance(b, Tensor) and isinstance(a, fx.Node) and (c is None or isinstance(c, Tensor)):
        rows = b.shape[0] if node.attr("transB", 0) else b.shape[1]
        bias = None if c is None else _bias(node, c, rows, beta)
        if c is None or bias is not None:
            return _linear(node, a, _weight(node, b, bool(node.attr("transB", 0)), alpha), bias)
    if node.attr("transB", 0):
        b = node.call(aten.permute.default, b, [1, 0])
    result = node.call(aten.mm.default, a, b)
    result = result if alpha == 1 else node.call(aten.mul.Tensor, result, alpha)
    if c is None:
        return result
    scaled = node.tensor(2) if beta == 1 else node.call(aten.mul.Tensor, node.tensor(2), beta)
    return node.call(aten.add.Tensor, result, scaled)


def _weight(node: Node, b: Tensor, transposed: bool, alpha: float) -> Tensor:
    if alpha != 1:
        return node.build.derived(
            b, f"weight {transposed} {alpha}", lambda t: ((t if transposed else t.t()) * alpha).contiguous()
        )
    return b if transposed else node.build.derived(b, "weight", lambda t: t.t().contiguous())


def _bias(node: Node, c: Tensor, rows: int, beta: float) -> Tensor | None:
    if c.numel() not in (1, rows) or (c.dim() == 2 and c.shape[0] != 1) or c.dim() > 2:
        return None
    if beta == 1 and c.shape == (rows,):
        return c
    return node.build.derived(c, f"bias {rows} {beta}", lambda t: (t * beta).reshape(-1).expand(rows).contiguous())


def _matmul(node: Node) -> Any:
    a, b = node.tensor(0), node.tensor(1)
    if isinstance(b, Tensor) and b.dim() == 2 and isinstance(a, fx.Node) and b.is_floating_point():
        return _linear(node, a, _weight(node, b, False, 1.0), None)
    return node.call(aten.matmul.default, a, b)


def _einsum(node: Node) -> Any:
    operands = [node.tensor(index) for index in range(len(node.inputs))]
    return node.call(aten.einsum.default, node.attr("equation"), operands)


OPERATORS: Final[dict[str, Operator]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": _einsum,
}
