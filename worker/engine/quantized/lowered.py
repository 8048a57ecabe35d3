"""The quantized form as plain torch: integer weights in buffers, everything else ordinary aten arithmetic.

What `torch.export` makes of it loads with torch alone, and holds no float copy of a weight.
"""

import copy

import torch
from torch import Tensor, fx, nn

from worker.engine.network import Network
from worker.engine.quantized.fake import insert_grids, rounded_bias
from worker.engine.quantized.form import Quantization, Weight
from worker.engine.quantized.placement import LAYERS, Layer


class IntegerLayer(nn.Module):
    """A convolution or linear layer that keeps int8 weights and dequantizes them when it is called."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: Layer, weight: Weight, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.values)
        self.register_buffer("scale", weight.scale.reshape(-1, *[1] * (weight.values.dim() - 1)))
        self.register_buffer("bias", bias)
        self.settings = copy.copy(layer)  # stride, padding, ...; its float weight must not come along
        self.settings._parameters = dict.fromkeys(layer._parameters)

    def forward(self, x: Tensor) -> Tensor:
        """As the float layer, with the weight ``values * scale``."""
        weight = self.weight.to(x.dtype) * self.scale
        if isinstance(self.settings, nn.Linear):
            return nn.functional.linear(x, weight, self.bias)
        result: Tensor = self.settings._conv_forward(x, weight, self.bias)
        return result


def on_plain_grid(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """`fake.on_grid` in operators that every reader of aten knows."""
    return (torch.clamp(torch.round(x / scale) + zero_point, low, high) - zero_point) * scale


def lowered(quantization: Quantization) -> Network:
    """A network that `torch.export` writes with int8 weights; it computes as `fake.fake_quantized` does."""
    network = quantization.network
    module = copy.deepcopy(network.module)
    for path, weight in quantization.weights.items():
        layer = module.get_submodule(path)
        if isinstance(layer, LAYERS):
            module.set_submodule(path, IntegerLayer(layer, weight, rounded_bias(quantization, path, weight)))
    insert_grids(module.graph, quantization, on_plain_grid)
    module.graph.lint()
    module.recompile()
    return Network(fx.GraphModule(module, module.graph).eval(), network.inputs, network.outputs, network.format)
