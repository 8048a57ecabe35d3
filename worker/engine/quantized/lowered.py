"""The quantized form as plain torch: weights of few bits in buffers, everything else ordinary aten arithmetic.

What `torch.export` makes of it loads with torch alone, and holds no float copy of a weight. Fewer than 8 bits are
packed as `packing` does it.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from worker.engine.network import Network
from worker.engine.quantized.fake import insert_grids, rounded_bias
from worker.engine.quantized.form import Quantization, Weight, looked_up, spread
from worker.engine.quantized.packing import BYTE, pack, parts, unpack
from worker.engine.quantized.placement import parameter_keys


class StoredWeight(nn.Module):
    """A weight in few bits that becomes float32 when it is asked for."""

    scale: Tensor | None
    zero_point: Tensor | None
    centroids: Tensor | None

    def __init__(self, weight: Weight) -> None:
        super().__init__()
        self._shape = weight.shape
        self._bits, self._count, self._low = weight.bits, 0, weight.low
        if weight.centroids is not None or (weight.integers and weight.bits < BYTE):
            self._pack(weight.codes())
        else:
            self.register_buffer("weight", weight.values)
        self._grouped = weight.scale.dim() > 1
        self.register_buffer("scale", None if bool((weight.scale == 1).all()) else self._along(weight.scale))
        self.register_buffer("zero_point", None if weight.zero_point is None else self._along(weight.zero_point))
        self.register_buffer("centroids", weight.centroids)

    def _along(self, part: Tensor) -> Tensor:
        """What there is one of to a channel in a shape that broadcasts already: each step of the graph takes space."""
        return part if self._grouped else part.reshape(-1, *[1] * (len(self._shape) - 1))

    def _spread(self, part: Tensor) -> Tensor:
        return spread(part, self._shape) if self._grouped else part

    def _pack(self, codes: Tensor) -> None:
        self._count = codes.numel()
        for width, part in zip(parts(self._bits), pack(codes, self._bits), strict=True):
            self.register_buffer(f"packed_{width}", part)

    def _codes(self) -> Tensor:
        return unpack([self.get_buffer(f"packed_{width}") for width in parts(self._bits)], self._bits, self._count)

    def value(self) -> Tensor:
        """The weight, float32."""
        if self.centroids is not None:
            return looked_up(self._codes().reshape(self._shape[0], -1), self.centroids).reshape(self._shape)
        if self._count:
            values = self._codes().reshape(self._shape).float() + self._low
        else:
            values = self.get_buffer("weight").float()
        if self.zero_point is not None:
            values = values - self._spread(self.zero_point.float())
        return values if self.scale is None else values * self._spread(self.scale)

    def rows(self, indices: Tensor) -> Tensor:
        """Rows of a table, float32: only those asked for become float, unless several lie in a byte."""
        if self._count:
            return nn.functional.embedding(indices, self.value())
        rows = self.get_buffer("weight")[indices].float()
        if self.zero_point is not None:
            rows = rows - _of_rows(self.zero_point.float(), indices, rows.shape[-1])
        return rows if self.scale is None else rows * _of_rows(self.scale, indices, rows.shape[-1])


def _of_rows(part: Tensor, indices: Tensor, width: int) -> Tensor:
    """A scale or zero point, (rows or 1, groups), for rows of a table, (..., width) or (..., 1)."""
    if len(part) == 1:
        return part
    found = part[indices]
    return found if part.shape[1] == 1 else found.repeat_interleave(width // part.shape[1], -1)


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
