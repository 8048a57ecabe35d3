"""The quantized form in the operators that mobile exporters read: ``torch.ops.quantized_decomposed``.

Every value that is read as integers goes through ``quantize_per_tensor`` and, once for each reader, through
``dequantize_per_tensor``; weights go through ``dequantize_per_channel``. An exporter folds a float layer between them
into one integer kernel. A layer with an integer weight whose input has no fixed grid quantizes it while running, with
``scale = (max - min) / 255`` of the values at hand.

Embeddings and other layers that compute in float keep the float weight, on its grid: mobile runtimes read no other.
"""

import copy
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import Tensor, fx, nn

from worker.engine.quantized.fake import insert_grids, on_dynamic_grid, put, rounded_bias
from worker.engine.quantized.form import Quantization, Weight
from worker.engine.quantized.placement import LAYERS, MOVING, Layer, layer_calls, operation, source_of

_OPS: Final = torch.ops.quantized_decomposed
_JOINING: Final = ("cat", "concat")
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

    def __init__(self, layer: Layer, weight: Weight, stored: bool) -> None:
        super().__init__()
        channels = len(weight.values)
        self.stored = stored
        self.register_buffer("weight", weight.values if stored else weight.dequantized())
        self.register_buffer("scale", weight.scale.expand(channels).clone())
        self.register_buffer("zero_point", torch.zeros(channels, dtype=torch.int64))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
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


def decomposed(
    quantization: Quantization, *, stored: bool = True, measured: Callable[[nn.Module], bool] | None = None
) -> fx.GraphModule:
    """A module that `torch.export` writes in decomposed operators; activations are int8 there.

    Args:
        stored: see `DecomposedLayer`.
        measured: which layers the exporter can have quantize their input while running; others keep a float weight,
            on its grid, unless their input has a fixed grid. None: the exporter sees to it for all of them.
    """
    quantization = _joined(quantization)
    module = copy.deepcopy(quantization.network.module)
    insert_grids(module.graph, quantization, _grid)
    for node in list(module.graph.nodes):
        if node.target is on_dynamic_grid:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    for key, weight in quantization.weights.items():
        put(module, key, weight.dequantized(), rounded_bias(quantization, key, weight))
    for node, layer in list(layer_calls(module)):
        found = quantization.weights.get(str(node.target))
        if found is None or not isinstance(layer, LAYERS):  # what is stored alone was put in place above
            continue
        fixed = node.name in quantization.integer - quantization.dynamic
        if fixed or measured is None or measured(layer):
            # One module for each call: a runtime rounds a bias to the scale of the input that it is added up with.
            path = f"{node.target}_{node.name}_quantized"
            module.add_submodule(path, DecomposedLayer(layer, found, stored))
            node.target = path
            if measured is not None and not fixed:
                _measure(module.graph, node)
    for node in list(module.graph.nodes):
        if node.target is _grid:
            _expand(module.graph, node)
    module.delete_all_unused_submodules()
    module.graph.lint()
    module.recompile()
    return fx.GraphModule(module, module.graph).eval()


def _grid(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """Stands for a pair of operators until `_expand` puts them there."""
    return x


def _joined(quantization: Quantization) -> Quantization:
    """With the grid of the result for all that is concatenated: kernels join integers as they are."""
    module, grids = quantization.network.module, dict(quantization.activations)
    for node in reversed(module.graph.nodes):
        grid = grids.get(node.name)
        if grid is None or operation(module, node) not in _JOINING:
            continue
        waiting = list(node.all_input_nodes)
        while waiting:
            value = waiting.pop()
            if value.name in grids:
                grids[value.name] = grid
                waiting += value.all_input_nodes[:1] if operation(module, value) in MOVING else []
    # A grid that reaches below zero cannot stand in for a ReLU.
    absorbed = {
        name: tail
        for name, tail in quantization.absorbed.items()
        if grids[tail] == quantization.activations[tail] or grids[tail].range[0] >= 0
    }
    return replace(quantization, activations=grids, absorbed=absorbed)


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


def _measure(graph: fx.Graph, call: fx.Node) -> None:
    """Let the call of a layer read its input on the grid of the range that it has."""
    value, limits = source_of(call), (_LOW, _HIGH)
    with graph.inserting_before(call):
        found = graph.call_function(_OPS.choose_qparams.tensor, (value, *limits, _LEAST_SCALE, torch.int8))
        grid = [graph.call_function(operator.getitem, (found, index)) for index in (0, 1)]
        integers = graph.call_function(_OPS.quantize_per_tensor.tensor, (value, *grid, *limits, torch.int8))
        number = graph.call_function(_OPS.dequantize_per_tensor.tensor, (integers, *grid, *limits, torch.int8))
    call.replace_input_with(value, number)
