"""Normalizations: layers where their weights are constant, else the same in tensor operations."""

import dataclasses
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from worker.engine.formats.layers import BATCH_NORMS
from worker.engine.formats.onnx_reader.layers import given
from worker.engine.formats.onnx_reader.node import Node, Operator, within
from worker.engine.formats.onnx_reader.values import unsupported

aten = torch.ops.aten


def _batch_norm(node: Node) -> Any:
    x = node.tensor(0)
    names = ("weight", "bias", "running_mean", "running_var")
    values = [node.tensor(index) for index in range(1, 5)]
    tensors = {name: tensor for name, tensor in zip(names, values, strict=True) if isinstance(tensor, Tensor)}
    eps, momentum = node.attr("epsilon", 1e-5), 1 - node.attr("momentum", 0.9)
    if node.attr("training_mode", 0):
        raise unsupported("BatchNormalization in training mode; export the model after model.eval()")
    cls = BATCH_NORMS.get(node.build.rank(x))
    if cls is None or len(tensors) < len(values):
        return node.call(aten.batch_norm.default, x, *values, False, momentum, eps, False)
    with torch.device("meta"):
        module = cls(int(tensors["weight"].shape[0]), eps=eps, momentum=momentum)
    return node.build.layer(module, tensors, x, node.origin(1))


def _layer_norm(node: Node) -> Any:
    x, scale, bias = node.tensor(0), node.tensor(1), node.value(2)
    rank, eps = node.build.rank(x), node.attr("epsilon", 1e-5)
    axis = within(node.attr("axis", -1), rank)
    shape = [node.build.fixed(x, a, "LayerNormalization") for a in range(axis, rank)]
    result = _normalized(node, x, scale, bias, shape, eps)
    if not any(node.outputs[1:]):
        return result
    return result, *_statistics(node, x, list(range(axis, rank)), eps)


def _normalized(node: Node, x: Any, scale: Any, bias: Any, shape: list[int], eps: float) -> Any:
    """A layer where scale and bias are constants of the right shape."""
    constant = isinstance(scale, Tensor) and list(scale.shape) == shape and isinstance(x, fx.Node)
    if constant and (bias is None or (isinstance(bias, Tensor) and bias.shape == scale.shape)):
        with torch.device("meta"):
            module = nn.LayerNorm(shape, eps=eps, bias=bias is not None)
        return node.build.layer(module, given(weight=scale, bias=bias), x, node.origin(1))
    result = node.call(aten.mul.Tensor, node.call(aten.layer_norm.default, x, shape, None, None, eps), scale)
    return result if bias is None else node.call(aten.add.Tensor, result, bias)


def _statistics(node: Node, x: Any, axes: list[int], eps: float) -> tuple[Any, Any]:
    """Mean and inverse deviation, which ONNX computes in float32."""
    wide = node.cast(x, torch.float32) if node.build.dtype(x).itemsize < 4 else x
    mean = node.call(aten.mean.dim, wide, axes, True)
    variance = node.call(aten.var.correction, wide, axes, correction=0, keepdim=True)
    return mean, node.call(aten.rsqrt.default, node.call(aten.add.Tensor, variance, eps))


def _rms_norm(node: Node) -> Any:
    x, eps = node.tensor(0), node.attr("epsilon", 1e-5)
    rank = node.build.rank(x)
    shape = [node.build.fixed(x, a, "RMSNormalization") for a in range(within(node.attr("axis", -1), rank), rank)]
    return node.call(aten.mul.Tensor, node.call(aten.rms_norm.default, x, shape, None, eps), node.tensor(1))


def _instance_norm(node: Node) -> Any:
    eps = node.attr("epsilon", 1e-5)
    tensors = (node.tensor(index) for index in range(3))
    return node.call(aten.instance_norm.default, *tensors, None, None, True, 0.0, eps, False)


def _group_norm(node: Node) -> Any:
    """Scale and bias are one for each channel; before opset 21 one for each group."""
    x, scale, bias = node.tensor(0), node.constant(1), node.constant(2)
    groups, channels = node.attr("num_groups"), node.build.fixed(x, 1, "GroupNormalization")
    if scale is None or bias is None:
        raise unsupported("GroupNormalization without scale")
    if scale.numel() != channels:
        spread = f"groups {channels}"
        scale, bias = (
            node.build.derived(t, spread, lambda t: t.repeat_interleave(channels // groups)) for t in (scale, bias)
        )
    with torch.device("meta"):
        module = nn.GroupNorm(groups, channels, eps=node.attr("epsilon", 1e-5))
    return node.build.layer(module, {"weight": scale, "bias": bias}, x, node.origin(1))


def _lrn(node: Node) -> Any:
    """``x / (bias + alpha * mean of the squares of `size` channels) ** beta``."""
    x, size = node.tensor(0), node.attr("size")
    shape = list(node.build.shape(x))
    flat = node.call(aten.reshape.default, node.call(aten.mul.Tensor, x, x), [shape[0], 1, shape[1], -1])
    around = node.call(aten.constant_pad_nd.default, flat, [0, 0, (size - 1) // 2, size // 2], 0.0)
    mean = node.call(aten.avg_pool2d.default, around, [size, 1], [1, 1])
    line = node.call(
        aten.add.Tensor, node.call(aten.mul.Tensor, mean, node.attr("alpha", 1e-4)), node.attr("bias", 1.0)
    )
    power = node.call(aten.pow.Tensor_Scalar, line, node.attr("beta", 0.75))
    return node.call(aten.div.Tensor, x, node.call(aten.reshape.default, power, shape))


def _lp_norm(node: Node) -> Any:
    """What is all zeros stays so."""
    x, axis = node.tensor(0), node.attr("axis", -1)
    norm = node.call(aten.linalg_vector_norm.default, x, node.attr("p", 2), [axis], True)
    safe = node.call(aten.masked_fill.Scalar, norm, node.call(aten.eq.Scalar, norm, 0), 1.0)
    return node.call(aten.div.Tensor, x, safe)


def _mean_variance(node: Node) -> Any:
    x, axes = node.tensor(0), list(node.attr("axes", [0, 2, 3]))
    centred = node.call(aten.sub.Tensor, x, node.call(aten.mean.dim, x, axes, True))
    variance = node.call(aten.var.correction, x, axes, correction=0, keepdim=True)
    deviation = node.call(aten.add.Tensor, node.call(aten.sqrt.default, variance), 1e-9)
    return node.call(aten.div.Tensor, centred, deviation)


def _skip(normalize: Any) -> Operator:
    """ONNX Runtime's sum of two inputs and a bias, normalized; the sum is its last result."""

    def apply(node: Node) -> Any:
        bias_at = 4 if normalize is _layer else 3
        total = node.call(aten.add.Tensor, node.tensor(0), node.tensor(1))
        if node.value(bias_at) is not None:
            total = node.call(aten.add.Tensor, total, node.tensor(bias_at))
        if any(node.outputs[1:3]):
            raise unsupported(f"{node.op} with statistics as results")
        return normalize(node, total), None, None, total

    return apply


def _layer(node: Node, x: Any) -> Any:
    """Scale at input 2, bias at 3, over the last dimension."""
    shape = [node.build.fixed(x, -1, node.op)]
    moved = dataclasses.replace(node, inputs=(x, *node.inputs[2:4]), input_names=("", *node.input_names[2:4]))
    return _normalized(moved, x, moved.tensor(1), moved.value(2), shape, node.attr("epsilon", 1e-5))


def _rms(node: Node, x: Any) -> Any:
    shape = [node.build.fixed(x, -1, node.op)]
    normed = node.call(aten.rms_norm.default, x, shape, None, node.attr("epsilon", 1e-5))
    return node.call(aten.mul.Tensor, normed, node.tensor(2))


OPERATORS: Final[dict[str, Operator]] = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "SimplifiedLayerNormalization": _rms_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LRN": _lrn,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance,
    "com.microsoft.SkipLayerNormalization": _skip(_layer),
    "com.microsoft.SkipSimplifiedLayerNormalization": _skip(_rms),
}
