"""The quantized form in the operators that mobile exporters read: ``torch.ops.quantized_decomposed``.

Every value that is read as integers goes through ``quantize_per_tensor`` and, once for each reader, through
``dequantize_per_tensor``; weights go through ``dequantize_per_channel``. An exporter folds a float layer between them
into one integer kernel. Kernels that take integers also return them, so a linear layer whose result has no grid
quantizes its input while running: ``scale = (max - min) / 255`` of the values at hand, and a float result.
"""

import copy
from typing import Any, Final

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import Tensor, fx, nn

from worker.engine.quantized.fake import insert_grids, on_dynamic_grid, rounded_bias
from worker.engine.quantized.form import Quantization, Weight
from worker.engine.quantized.placement import LAYERS, Layer, layer_calls

_OPS: Final = torch.ops.quantized_decomposed
_LOW, _HIGH, _LEAST_SCALE = -128, 127, 2.0**-23


class DecomposedLayer(nn.Module):
    """A convolution or linear layer with an int8 weight, (channels, ...), and one scale per output channel.

    Args:
        stored: keep the weight as integers; else as float numbers on their grid, which the exporter makes integers of.
    """

    weight: Tensor
    scale: Tensor
    zero_point: Tensor
    bias: Tensor | None

    def __init__(self, layer: Layer, weight: Weight, bias: Tensor | None, stored: bool) -> None:
        super().__init__()
        channels = len(weight.values)
        self.stored = stored
        self.register_buffer("weight", weight.values if stored else weight.dequantized())
        self.register_buffer("scale", weight.scale.expand(channels).clone())
        self.register_buffer("zero_point", torch.zeros(channels, dtype=torch.int64))
        self.register_buffer("bias", bias)
        self.settings = copy.copy(layer)  # stride, padding, ...; its float weight must not come along
        self.settings._parameters = dict.fromkeys(layer._parameters)

    def forward(self, x: Tensor) -> Tensor:
        """As the float layer, with the weight ``values * scale``."""
        grid = (self.scale, self.zero_point, 0, -_HIGH, _HIGH, torch.int8)
        integers = self.weight if self.stored else _OPS.quantize_per_channel(self.weight, *grid)
        weight = _OPS.dequantize_per_channel(integers, *grid)
        if isinstance(self.settings, nn.Linear):
            return nn.functional.linear(x, weight, self.bias)
        result: Tensor = self.settings._conv_forward(x, weight, self.bias)
        return result


def decomposed(quantization: Quantization, *, stored: bool = True) -> fx.GraphModule:
    """A module that `torch.export` writes in decomposed operators; activations are int8 there.

    Args:
        stored: see `DecomposedLayer`.
    """
    module = copy.deepcopy(quantization.network.module)
    for path, weight in quantization.weights.items():
        layer = module.get_submodule(path)
        if isinstance(layer, LAYERS):
            bias = rounded_bias(quantization, path, weight)
            module.set_submodule(path, DecomposedLayer(layer, weight, bias, stored))
    insert_grids(module.graph, quantization, _grid)
    floats = _float_results(quantization)
    for node in list(module.graph.nodes):
        if node.target is _grid:
            _expand(module.graph, node)
        elif node.target is on_dynamic_grid:
            _measure(module.graph, node.args[0], list(node.users))
            module.graph.erase_node(node)
    for node in list(module.graph.nodes):
        if node.name in floats:
            _measure(module.graph, node.args[0], [node])
    module.graph.lint()
    module.recompile()
    return fx.GraphModule(module, module.graph).eval()


def _grid(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """Stands for a pair of operators until `_expand` puts them there."""
    return x


def _float_results(quantization: Quantization) -> set[str]:
    """Calls of layers that read integers and are read as float numbers."""
    return {
        node.name
        for node, layer in layer_calls(quantization.network.module)
        if isinstance(layer, LAYERS)
        and quantization.scheme == "static"
        and node.name in quantization.integer
        and quantization.tail(node.name) not in quantization.activations
    }


def _expand(graph: fx.Graph, node: fx.Node) -> None:
    """One ``quantize``, and one ``dequantize`` for each reader: exporters fold what has a single reader."""
    value, *grid = node.args
    with graph.inserting_after(node):
        integers = graph.call_function(_OPS.quantize_per_tensor.default, (value, *grid, torch.int8))
    for user in list(node.users):
        with graph.inserting_before(user):
            number = graph.call_function(_OPS.dequantize_per_tensor.default, (integers, *grid, torch.int8))
        user.replace_input_with(node, number)
    graph.erase_node(node)


def _measure(graph: fx.Graph, value: Any, users: list[fx.Node]) -> None:
    """Let `users` read `value` on the grid of the range that it has."""
    limits = (_LOW, _HIGH)
    for user in users:
        with graph.inserting_before(user):
            found = graph.call_function(_OPS.choose_qparams.tensor, (value, *limits, _LEAST_SCALE, torch.int8))
            grid = [graph.call_function(_item, (found, index)) for index in (0, 1)]
            integers = graph.call_function(_OPS.quantize_per_tensor.tensor, (value, *grid, *limits, torch.int8))
            number = graph.call_function(_OPS.dequantize_per_tensor.tensor, (integers, *grid, *limits, torch.int8))
        user.replace_input_with(user.args[0], number)


def _item(values: tuple[Tensor, ...], index: int) -> Tensor:
    return values[index]
