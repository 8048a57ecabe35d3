"""The quantized form as plain torch: weights of few bits in buffers, everything else ordinary aten arithmetic.

What `torch.export` makes of it loads with torch alone, and holds no float copy of a weight. Four-bit integers lie two
to a byte, the first in the low bits, as ``q + 8``.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from worker.engine.network import Network
from worker.engine.quantized.fake import insert_grids, rounded_bias
from worker.engine.quantized.form import Quantization, Weight
from worker.engine.quantized.placement import parameter_keys

_HALF_BYTE = 4


def packed(values: Tensor) -> Tensor:
    """Integers of -8..7, any shape -> uint8, (half as many,)."""
    flat = (values.reshape(-1) + 8).to(torch.uint8)
    flat = nn.functional.pad(flat, (0, flat.numel() % 2))
    return flat[::2] | (flat[1::2] << _HALF_BYTE)


def unpacked(bits: Tensor, shape: torch.Size) -> Tensor:
    """What was packed, as int8 in its shape."""
    pairs = torch.stack([bits & 15, bits >> _HALF_BYTE], dim=-1).reshape(-1)
    return (pairs[: shape.numel()].to(torch.int8) - 8).reshape(shape)


class StoredWeight(nn.Module):
    """A weight in few bits that becomes float32 when it is asked for."""

    weight: Tensor
    scale: Tensor | None

    def __init__(self, weight: Weight) -> None:
        super().__init__()
        self._packed = weight.integers and weight.bits == _HALF_BYTE
        self._shape = weight.values.shape
        self.register_buffer("weight", packed(weight.values) if self._packed else weight.values)
        scale = weight.scale.reshape(-1, *[1] * (weight.values.dim() - 1))
        self.register_buffer("scale", None if bool((scale == 1).all()) else scale)

    def value(self) -> Tensor:
        """The weight, float32."""
        values = unpacked(self.weight, self._shape) if self._packed else self.weight
        return values.float() if self.scale is None else values.float() * self.scale

    def rows(self, indices: Tensor) -> Tensor:
        """Rows of a table, float32: only those asked for become float, unless two lie in a byte."""
        if self._packed:
            return nn.functional.embedding(indices, self.value())
        rows = self.weight[indices].float()
        if self.scale is None:
            return rows
        return rows * (self.scale[indices] if len(self.scale) > 1 else self.scale)


class StoredLayer(StoredWeight):
    """A convolution, linear layer or embedding that keeps its weight in few bits."""

    bias: Tensor | None

    def __init__(self, layer: nn.Module, weight: Weight, bias: Tensor | None) -> None:
        super().__init__(weight)
        self.register_buffer("bias", bias)
        self.settings = copy.copy(layer)  # stride, padding, ...; its float weight must not come along
        self.settings._parameters = dict.fromkeys(layer._parameters)

    def forward(self, x: Tensor) -> Tensor:
        """As the float layer."""
        if isinstance(self.settings, nn.Embedding):
            return self.rows(x)
        if isinstance(self.settings, nn.Linear):
            return nn.functional.linear(x, self.value(), self.bias)
        call: Callable[..., Tensor] = self.settings._conv_forward  # type: ignore[assignment]
        return call(x, self.value(), self.bias)


class StoredRecurrent(nn.Module):
    """An LSTM, GRU or simple RNN that keeps its matrices in few bits."""

    def __init__(self, layer: nn.RNNBase, weights: Mapping[str, Weight]) -> None:
        super().__init__()
        self.names = [name for names in layer._all_weights for name in names]
        for name in self.names:
            value = getattr(layer, name).detach()
            self.add_module(name, StoredWeight(weights[name])) if name in weights else self.register_buffer(name, value)
        settings = layer.bias, layer.num_layers, 0.0, False, layer.bidirectional, layer.batch_first
        self.settings, self.mode = settings, layer.mode.lower()
        self.states = layer.num_layers * (2 if layer.bidirectional else 1)
        self.width = layer.proj_size or layer.hidden_size
        self.cells = layer.hidden_size

    def forward(self, x: Tensor, hidden: Any = None) -> Any:
        """As the float layer."""
        parts = [getattr(self, name) for name in self.names]
        flat = [part.value() if isinstance(part, StoredWeight) else part for part in parts]
        if hidden is None:
            hidden = self._start(x)
        results = getattr(torch.ops.aten, self.mode).input(x, hidden, flat, *self.settings)
        return (results[0], (results[1], results[2])) if self.mode == "lstm" else results

    def _start(self, x: Tensor) -> Any:
        batch = [x.shape[0 if self.settings[-1] else 1]] if x.dim() == 3 else []
        start = x.new_zeros([self.states, *batch, self.width])
        return [start, x.new_zeros([self.states, *batch, self.cells])] if self.mode == "lstm" else start


def on_plain_grid(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """`fake.on_grid` in operators that every reader of aten knows."""
    return (torch.clamp(torch.round(x / scale) + zero_point, low, high) - zero_point) * scale


def lowered(quantization: Quantization) -> Network:
    """A network that `torch.export` writes with weights of few bits; it computes as `fake.fake_quantized` does."""
    network = quantization.network
    module = copy.deepcopy(network.module)
    for path, layer in list(module.named_modules()):
        keys = [key for key in parameter_keys(path, layer) if key in quantization.weights]
        if keys and isinstance(layer, nn.RNNBase):
            own = {key.removeprefix(f"{path}."): quantization.weights[key] for key in keys}
            module.set_submodule(path, StoredRecurrent(layer, own))
        elif keys:
            weight = quantization.weights[path]
            module.set_submodule(path, StoredLayer(layer, weight, rounded_bias(quantization, path, weight)))
    insert_grids(module.graph, quantization, on_plain_grid)
    module.graph.lint()
    module.recompile()
    return Network(fx.GraphModule(module, module.graph).eval(), network.inputs, network.outputs, network.format)
