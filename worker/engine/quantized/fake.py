"""Fake quantization: the numbers that the integer kernels compute, in float torch.

Used to evaluate a quantization without any runtime and to check each runtime's artifact.
"""

import copy
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from worker.engine.quantized.affine import SMALLEST_SCALE, Affine
from worker.engine.quantized.form import Quantization, Weight, stored_in
from worker.engine.quantized.placement import source_of

#: Width of the activations that integer kernels take: there the bias is an integer too. Others compute in float.
KERNEL_BITS: Final = 8

Quantizer = Callable[[Tensor, float, int, int, int], Tensor]


def on_grid(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """`x` rounded to the grid, in float; gradients pass straight through inside the range."""
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)


def on_dynamic_grid(x: Tensor) -> Tensor:
    """`x` rounded to the uint8 grid of its own range: ONNX DynamicQuantizeLinear, then back to float."""
    low = torch.clamp(x.amin(), max=0.0)
    high = torch.clamp(x.amax(), min=0.0)
    scale = torch.clamp((high - low) / 255, min=SMALLEST_SCALE)
    zero_point = torch.clamp(torch.round(-low / scale), 0, 255)
    return (torch.clamp(torch.round(x / scale) + zero_point, 0, 255) - zero_point) * scale


def fake_quantized(quantization: Quantization) -> fx.GraphModule:
    """A float module that computes what the integer kernels compute, up to the order of sums.

    The weights are those of `quantization`, already on their grids; integer biases are rounded to the product of
    the input's and the weight's scale, as int32 kernels need them.
    """
    source = quantization.network.module
    # Layers whose weights are replaced are copied without them; the rest is shared until it is copied below.
    replaced = {id(stored_in(source, key)[0]) for key in quantization.weights}
    memo: dict[int, Any] = {}
    for layer in source.modules():
        if id(layer) in replaced:
            for parameter in layer._parameters.values():
                memo[id(parameter)] = parameter
    module = copy.deepcopy(source, memo)
    with torch.no_grad():
        for key, weight in quantization.weights.items():
            put(module, key, weight.dequantized(), rounded_bias(quantization, key, weight))
    insert_grids(module.graph, quantization, on_grid)
    module.graph.lint()
    module.recompile()
    return module


def put(module: nn.Module, key: str, weight: Tensor, bias: Tensor | None) -> None:
    """Replace the weight and the bias that a key of `Quantization.weights` stands for."""
    layer, name = stored_in(module, key)
    setattr(layer, name, nn.Parameter(weight, requires_grad=False))
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)


def rounded_bias(quantization: Quantization, path: str, weight: Weight) -> Tensor | None:
    """The bias of the layer at `path` on the grid of its int32 accumulator; unchanged where it computes in float."""
    if weight.bias is None:
        return None
    for node in quantization.network.module.graph.nodes:
        if node.op == "call_module" and node.target == path and node.name in quantization.integer:
            grid = quantization.activations.get(source_of(node).name)
            if grid is not None and grid.bits == KERNEL_BITS and node.name not in quantization.dynamic:
                return integer_bias(weight, grid).float() * (weight.scale * grid.scale)
    return weight.bias


def integer_bias(weight: Weight, grid: Affine) -> Tensor:
    """int32, (channels,): the bias in units of ``grid.scale * weight.scale``."""
    if weight.bias is None:
        raise ValueError("the layer has no bias")
    units = weight.bias.double() / (weight.scale.double() * grid.scale)
    return torch.clamp(torch.round(units), -(2.0**31), 2.0**31 - 1).to(torch.int32)


def insert_grids(graph: fx.Graph, quantization: Quantization, quantizer: Quantizer) -> None:
    """Put `quantizer` calls in `graph` (a copy of the network's) wherever integers are read, and drop the ReLUs
    that they make superfluous."""

    def read(value: fx.Node) -> fx.Node:
        grid = quantization.activations[value.name]
        return graph.call_function(quantizer, (value, grid.scale, grid.zero_point, grid.low, grid.high))

    insert_reads(graph, quantization, read)


def insert_reads(graph: fx.Graph, quantization: Quantization, read: Callable[[fx.Node], fx.Node]) -> None:
    """`insert_grids` with any node that `read` makes of a value in `quantization.activations`."""
    for node in list(graph.nodes):
        if node.op != "output":
            _insert(graph, node, quantization, read)
    for name in quantization.absorbed.values():
        _erase(graph, name)


def _insert(graph: fx.Graph, node: fx.Node, quantization: Quantization, read: Callable[[fx.Node], fx.Node]) -> None:
    """Make the consumers of `node` that read integers read its quantized value."""
    fixed = [user for user in node.users if quantization.reads_integers(user, node)]
    dynamic = [user for user in node.users if user.name in quantization.dynamic and user not in fixed]
    if fixed:
        _read_through(graph, node, fixed, read)
    if dynamic:
        _read_through(graph, node, dynamic, lambda value: graph.call_function(on_dynamic_grid, (value,)))


def _read_through(graph: fx.Graph, node: fx.Node, readers: list[fx.Node], read: Callable[[fx.Node], fx.Node]) -> None:
    with graph.inserting_after(node):
        new = read(node)
    for user in readers:
        user.replace_input_with(node, new)


def _erase(graph: fx.Graph, name: str) -> None:
    """Remove a one-input node."""
    node = next(node for node in graph.nodes if node.name == name)
    node.replace_all_uses_with(source_of(node))
    graph.erase_node(node)
