"""Attention as one operator, rotary positions, and what ONNX Runtime's optimizer writes in place of common patterns.

``softmax(softcap(Q K' * scale) + bias) V``; the bias is minus infinity where a mask, the causal order, a window or the
end of a padded cache hides a key, and a query that sees no key gives zeros.
"""

import dataclasses
import math
from typing import Any, Final

import torch

from worker.engine.formats.onnx_reader import layers
from worker.engine.formats.onnx_reader.casting import dtype_of
from worker.engine.formats.onnx_reader.node import Node, Operator
from worker.engine.formats.onnx_reader.values import WHICH, unsupported

aten = torch.ops.aten


def _heads(node: Node, x: Any, count: int | None) -> Any:
    """(batch, time, heads * size) as (batch, heads, time, size)."""
    if node.build.rank(x) == 4:
        return x
    if not count:
        raise unsupported(f"{node.op} without a number of heads")
    split = node.call(aten.unflatten.int, x, 2, [count, -1])
    return node.call(aten.permute.default, split, [0, 2, 1, 3])


def _attention(node: Node) -> Any:
    flat = node.build.rank(node.tensor(0)) == 3
    query = _heads(node, node.tensor(0), node.attr("q_num_heads"))
    key, value = (_heads(node, node.tensor(index), node.attr("kv_num_heads")) for index in (1, 2))
    past = None
    if node.value(4) is not None and node.value(5) is not None:
        past = node.build.size(node.tensor(4), 2)
        key, value = (node.call(aten.cat.default, [node.tensor(i), x], 2) for i, x in ((4, key), (5, value)))
    bias, hidden = _bias(node, query, key, past)
    scores, weights = _weights(node, query, _repeated(node, key, query), bias, hidden)
    result = node.call(aten.matmul.default, weights, _repeated(node, value, query))
    if flat:
        result = node.call(aten.flatten.using_ints, node.call(aten.permute.default, result, [0, 2, 1, 3]), 2)
    return result, key, value, scores


def _repeated(node: Node, x: Any, query: Any) -> Any:
    """Keys or values for every head of the queries: each is used by a group of them."""
    times = node.build.fixed(query, 1, "Attention") // node.build.fixed(x, 1, "Attention")
    return x if times == 1 else node.call(aten.repeat_interleave.self_int, x, times, 1)


def _weights(node: Node, query: Any, key: Any, bias: Any, hidden: Any) -> tuple[Any, Any]:
    """What the fourth result shows, and the probabilities."""
    scale = node.attr("scale")
    root = math.sqrt(1 / math.sqrt(node.build.fixed(query, 3, "Attention")) if scale is None else scale)
    turned = node.call(aten.permute.default, key, [0, 1, 3, 2])
    left, right = (node.call(aten.mul.Tensor, x, root) for x in (query, turned))
    scores = [node.call(aten.matmul.default, left, right)]
    cap = node.attr("softcap", 0.0)
    capped = scores[0]
    if cap:
        capped = node.call(aten.tanh.default, node.call(aten.div.Tensor, capped, cap))
        capped = node.call(aten.mul.Tensor, capped, cap)
    biased = capped if bias is None else node.call(aten.add.Tensor, capped, bias)
    kind = node.build.dtype(query)
    number = node.attr("softmax_precision")
    exact = biased if number is None else node.cast(biased, dtype_of(number, "Attention"))
    weights = node.call(aten.softmax.int, exact, -1)
    if hidden is not None:
        weights = node.call(aten.masked_fill.Scalar, weights, hidden, 0.0)
    weights = node.cast(weights, kind) if number is not None else weights
    return (scores[0], capped, biased, weights)[node.attr("qk_matmul_output_mode", 0)], weights


def _bias(node: Node, query: Any, key: Any, past: Any) -> tuple[Any, Any]:
    """What is added to the scores, and the queries that see nothing; None where there is nothing to add."""
    kind, mask = node.build.dtype(query), node.value(3)
    seen = _order(node, query, key, past)
    bias: Any = None
    if mask is not None:
        mask = _padded(node, node.tensor(3), key)
        if node.build.dtype(mask) == torch.bool:
            seen = mask if seen is None else node.call(aten.logical_and.default, seen, mask)
        else:
            bias = mask
    if seen is not None:
        zeros = node.call(aten.zeros_like.default, seen, dtype=kind)
        unseen = node.call(aten.masked_fill.Scalar, zeros, node.call(aten.logical_not.default, seen), float("-inf"))
        bias = unseen if bias is None else node.call(aten.add.Tensor, bias, unseen)
    if bias is None:
        return None, None
    return bias, node.call(aten.isneginf.default, node.call(aten.amax.default, bias, [-1], True))


def _padded(node: Node, mask: Any, key: Any) -> Any:
    """A mask that is shorter than the keys hides those after it."""
    if all(node.build.shadow(mask, which).shape[-1] in (1, node.build.shadow(key, which).shape[2]) for which in WHICH):
        return mask
    short, total = node.build.size(mask, -1), node.build.size(key, 2)
    if not isinstance(short, int) or not isinstance(total, int):
        raise unsupported("Attention with a mask of another symbolic length")
    hidden = False if node.build.dtype(mask) == torch.bool else float("-inf")
    return node.call(aten.constant_pad_nd.default, mask, [0, total - short], hidden)


def _order(node: Node, query: Any, key: Any, past: Any) -> Any:
    """True where the causal order, the window and the end of a padded cache let a query see a key."""
    left, right = node.attr("left_window_size", -1), node.attr("right_window_size", -1)
    if node.attr("is_causal", 0):
        right = 0
    lengths = None if node.value(6) is None else node.cast(node.tensor(6), torch.int64)
    if left < 0 and right < 0 and lengths is None:
        return None
    rows = node.build.count(0, node.build.size(query, 2))
    rows = node.call(aten.unsqueeze.default, rows, 1)
    columns = node.build.count(0, node.build.size(key, 2))
    parts: list[Any] = []
    if lengths is not None:
        lengths = node.call(aten.reshape.default, lengths, [-1, 1, 1, 1])
        parts.append(node.call(aten.lt.Tensor, columns, lengths))
    if past is not None:
        rows = node.call(aten.add.Tensor, rows, past)
    elif lengths is not None:
        offset = node.call(aten.sub.Tensor, lengths, node.build.size(query, 2))
        rows = node.call(aten.add.Tensor, rows, offset)
    distance = node.call(aten.sub.Tensor, columns, rows)
    if right >= 0:
        parts.append(node.call(aten.le.Scalar, distance, right))
    if left >= 0:
        parts.append(node.call(aten.ge.Scalar, distance, -left))
    seen, *others = parts
    for part in others:
        seen = node.call(aten.logical_and.default, seen, part)
    return seen


def _rotary(node: Node) -> Any:
    """Pairs of elements turned by an angle that grows with the position (https://arxiv.org/abs/2104.09864)."""
    x, flat = node.tensor(0), node.build.rank(node.tensor(0)) == 3
    y = _heads(node, x, node.attr("num_heads"))
    width = node.attr("rotary_embedding_dim", 0) or node.build.fixed(y, 3, "RotaryEmbedding")
    rotated = node.call(aten.slice.Tensor, y, 3, 0, width)
    kept = node.call(aten.slice.Tensor, y, 3, width)
    cos, sin = (_angles(node, node.tensor(index)) for index in (1, 2))
    parts = _pairs(node, rotated, width)
    real = _turned(node, parts, cos, sin, aten.sub.Tensor)
    imaginary = _turned(node, parts, sin, cos, aten.add.Tensor)
    if node.attr("interleaved", 0):
        both = node.call(aten.stack.default, [real, imaginary], -1)
        turned = node.call(aten.flatten.using_ints, both, 3)
    else:
        turned = node.call(aten.cat.default, [real, imaginary], 3)
    result = node.call(aten.cat.default, [turned, kept], 3) if width != node.build.size(y, 3) else turned
    if flat:
        result = node.call(aten.flatten.using_ints, node.call(aten.permute.default, result, [0, 2, 1, 3]), 2)
    return result


def _angles(node: Node, cache: Any) -> Any:
    """(batch, 1, time, half) from a table by position, or as it is."""
    if node.value(3) is not None:
        positions = node.tensor(3)
        flat = node.call(aten.reshape.default, node.cast(positions, torch.int64), [-1])
        picked = node.call(aten.index_select.default, cache, 0, flat)
        cache = node.call(aten.reshape.default, picked, [*node.build.shape(positions), node.build.size(cache, 1)])
    return node.call(aten.unsqueeze.default, cache, 1)


def _pairs(node: Node, x: Any, width: int) -> tuple[Any, Any]:
    if node.attr("interleaved", 0):
        return (
            node.call(aten.slice.Tensor, x, 3, 0, width, 2),
            node.call(aten.slice.Tensor, x, 3, 1, width, 2),
        )
    return node.call(aten.slice.Tensor, x, 3, 0, width // 2), node.call(aten.slice.Tensor, x, 3, width // 2, width)


def _turned(node: Node, parts: tuple[Any, Any], first: Any, second: Any, combine: Any) -> Any:
    products = [node.call(aten.mul.Tensor, x, angle) for x, angle in zip(parts, (first, second), strict=True)]
    return node.call(combine, *products)


def _gelu_of(approximate: str) -> Operator:
    """GELU of the sum of one or two inputs."""

    def apply(node: Node) -> Any:
        x = node.tensor(0)
        if node.value(1) is not None:
            x = node.call(aten.add.Tensor, x, node.tensor(1))
        return node.call(aten.gelu.default, x, approximate=approximate)

    return apply


def _quick_gelu(node: Node) -> Any:
    x = node.tensor(0)
    gate = node.call(aten.sigmoid.default, node.call(aten.mul.Tensor, x, node.attr("alpha", 1.702)))
    return node.call(aten.mul.Tensor, x, gate)


def _fused_matmul(node: Node) -> Any:
    """``alpha A' B'``, each transposed in its last two dimensions or not."""
    if node.attr("transBatchA", 0) or node.attr("transBatchB", 0):
        raise unsupported("FusedMatMul with transposed batches")
    a, b = (_transposed(node, node.tensor(i), bool(node.attr(name, 0))) for i, name in enumerate(("transA", "transB")))
    result = layers.OPERATORS["MatMul"](dataclasses.replace(node, op="MatMul", inputs=(a, b)))
    return result if node.attr("alpha", 1.0) == 1.0 else node.call(aten.mul.Tensor, result, node.attr("alpha"))


def _transposed(node: Node, x: Any, really: bool) -> Any:
    return node.call(aten.transpose.int, x, -2, -1) if really and node.build.rank(x) > 1 else x


OPERATORS: Final[dict[str, Operator]] = {
    "Attention": _attention,
    "RotaryEmbedding": _rotary,
    "com.microsoft.FusedMatMul": _fused_matmul,
    "com.microsoft.Gelu": _gelu_of("none"),
    "com.microsoft.BiasGelu": _gelu_of("none"),
    "com.microsoft.FastGelu": _gelu_of("tanh"),
    "com.microsoft.QuickGelu": _quick_gelu,
}
