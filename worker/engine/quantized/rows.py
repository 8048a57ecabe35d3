"""What a layer reads in the quantized network, and what it answered in the float one: a bounded sample of rows.

A convolution is a matrix product of patches (im2col): one row is what one output position reads. Both networks run
side by side, batch by batch, from layer to layer: a `Walk` stops in front of a layer and goes on from there once its
weight is final, so that all layers together cost one pass. Only live values wait in between, up to a budget of bytes;
batches beyond it start again from the samples.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from worker.engine.data.samples import Samples
from worker.engine.network import Network
from worker.engine.quantized.observe import batches
from worker.engine.quantized.placement import Layer, source_of

#: Rows of a layer that are kept, at most, and the bytes that they may take.
MOST_ROWS: Final = 8192
MOST_BYTES: Final = 96 << 20
#: Bytes of values that wait between layers, over all batches and both networks.
_WAITING: Final = 512 << 20
#: Samples that run together.
_BATCH: Final = 16


@dataclass(frozen=True)
class Rows:
    """Rows of one layer.

    Attributes:
        inputs: (rows, groups, k): what the layer reads in the quantized network.
        outputs: (rows, groups, channels / groups): what it answers in the float network, with its bias.
    """

    inputs: Tensor
    outputs: Tensor


class Walk:
    """A network that runs on one batch and can stop before any node."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._interpreter = fx.Interpreter(module)
        self._nodes = list(module.graph.nodes)
        self._places = {node.name: place for place, node in enumerate(self._nodes)}
        self._next = 0

    def to(self, name: str, inputs: list[Tensor]) -> None:
        """Run everything in front of the node called `name`."""
        if self._next == 0:
            self._interpreter.args_iter = iter(inputs)
        for node in self._nodes[self._next : self._places[name]]:
            self._step(node)
        self._next = max(self._next, self._places[name])

    def to_end(self, inputs: list[Tensor]) -> None:
        """Run everything that is left."""
        self.to(self._nodes[-1].name, inputs)

    def outputs(self) -> list[Tensor]:
        """The network's floating-point outputs, at its end."""
        values = [self._interpreter.env[node] for node in self._nodes[-1].all_input_nodes]
        return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]

    def reading(self, name: str) -> Tensor:
        """The data that the layer called at node `name` is about to read."""
        value: Tensor = self._interpreter.env[source_of(self._nodes[self._places[name]])]
        return value

    def fork(self) -> "Walk":
        """A walk that goes on from here by itself, on its own copies of the values."""
        other = Walk(self._module)
        other._next = self._next
        other._interpreter.env = {
            node: value.clone() if isinstance(value, Tensor) else value for node, value in self._interpreter.env.items()
        }
        return other

    def restart(self) -> None:
        """Forget all values."""
        self._next = 0
        self._interpreter.env = {}

    def bytes(self) -> int:
        """Size of the values that wait."""
        values = [value for value in self._interpreter.env.values() if isinstance(value, Tensor)]
        return sum({value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in values}.values())

    def _step(self, node: fx.Node) -> None:
        interpreter = self._interpreter
        interpreter.env[node] = interpreter.run_node(node)
        for dead in interpreter.user_to_last_uses.get(node, ()):
            del interpreter.env[dead]


class Sampler:
    """Rows of one layer after another, in graph order.

    Args:
        network: the float network.
        quantized: what `fake.fake_quantized` made of it; the weights of earlier layers may change between calls of
            `rows`, those that a call has already passed may not.
    """

    def __init__(self, network: Network, quantized: fx.GraphModule, samples: Samples, device: str, seed: int) -> None:
        self._network, self._samples, self._device = network, samples, device
        self._modules = (network.module, quantized)
        self._walks: list[tuple[Walk, Walk]] = []
        self._random = torch.Generator().manual_seed(seed)

    def _batches(self) -> Iterator[tuple[list[Tensor], tuple[Walk, Walk]]]:
        """Each batch with its walks through the float and the quantized network."""
        for index, inputs in enumerate(batches(self._network, self._samples, _BATCH, self._device)):
            if index == len(self._walks):
                first, second = self._modules
                self._walks.append((Walk(first), Walk(second)))
            yield inputs, self._walks[index]

    @torch.no_grad()
    def rows(self, calls: list[str], layer: Layer) -> Rows:
        """At most `MOST_ROWS` rows of a layer, uniform over samples and positions.

        Args:
            calls: names of the nodes that call the layer, in graph order.
            layer: in the float network.
        """
        share = row_limit(layer) / len(self._samples) / len(calls)
        found, waiting = [], 0
        for inputs, walks in self._batches():
            for walk in walks:
                walk.to(calls[0], inputs)
            # A layer that is called again is rounded before its first call: look ahead without moving.
            ahead = walks if len(calls) == 1 else tuple(walk.fork() for walk in walks)
            for call in calls:
                for walk in ahead:
                    walk.to(call, inputs)
                count = max(1, round(share * (len(inputs[0]) if inputs[0].dim() else 1)))
                found.append(self._chosen(layer, [walk.reading(call) for walk in ahead], count))
            waiting += sum(walk.bytes() for walk in walks)
            if waiting > _WAITING:
                for walk in walks:
                    waiting -= walk.bytes()
                    walk.restart()
        inputs_, outputs = (torch.cat(parts)[: row_limit(layer)] for parts in zip(*found, strict=True))
        return Rows(inputs_, outputs)

    def _chosen(self, layer: Layer, values: list[Tensor], count: int) -> tuple[Tensor, Tensor]:
        """`count` rows at random of a batch of values that `layer` reads in the float and the quantized network."""
        positions = position_count(layer, values[0])
        at = torch.randperm(positions, generator=self._random)[:count].to(values[0].device)
        before, after = (patches(layer, value, at) for value in values)
        weight = layer.weight.detach().reshape(before.shape[1], -1, before.shape[2])
        outputs = torch.einsum("rgk,gck->rgc", before, weight)
        if layer.bias is not None:
            outputs = outputs + layer.bias.detach().reshape(1, *outputs.shape[1:])
        return after, outputs


def row_limit(layer: Layer) -> int:
    """How many rows of a layer are kept, at most."""
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    width = groups * layer.weight[0].numel() + 2 * len(layer.weight)
    return max(1, min(MOST_ROWS, MOST_BYTES // (4 * width)))


def position_count(layer: Layer, value: Tensor) -> int:
    """How many rows the layer computes from `value`."""
    if isinstance(layer, nn.Linear):
        return value.numel() // value.shape[-1]
    value = _batched(layer, value)
    return len(value) * int(torch.tensor(_output_size(layer, value)).prod())


def patches(layer: Layer, value: Tensor, at: Tensor) -> Tensor:
    """The rows of `value` that the layer multiplies its weight with at output positions `at`, (rows, groups, k).

    Args:
        value: what the layer reads: (..., features), or (samples, channels, sizes...).
        at: int64, (rows,): positions, counted over samples and then over space.
    """
    if isinstance(layer, nn.Linear):
        return value.reshape(-1, 1, value.shape[-1])[at]
    value = _batched(layer, value)
    sizes = _output_size(layer, value)
    value = F.pad(value, *_padding(layer))
    indices: list[Tensor] = []
    dims = list(zip(sizes, layer.stride, layer.dilation, layer.kernel_size, strict=True))
    for axis, (size, stride, dilation, kernel) in reversed(list(enumerate(dims))):
        taps = torch.arange(kernel, device=at.device) * dilation
        spot = (at % size)[:, None] * stride + taps  # (rows, kernel)
        indices.insert(0, spot.reshape(len(at), *(kernel if other == axis else 1 for other in range(len(dims)))))
        at = at // size
    sample = at.reshape(-1, *[1] * len(dims))
    picked = value.movedim(1, -1)[(sample, *indices)]  # (rows, kernel..., channels)
    return picked.movedim(-1, 1).reshape(len(at), layer.groups, -1)


def _batched(layer: nn.Conv1d | nn.Conv2d, value: Tensor) -> Tensor:
    return value if value.dim() == layer.weight.dim() else value[None]


def _padding(layer: nn.Conv1d | nn.Conv2d) -> tuple[list[int], str]:
    return list(layer._reversed_padding_repeated_twice), (
        "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    )


def _output_size(layer: nn.Conv1d | nn.Conv2d, value: Tensor) -> list[int]:
    pads = _padding(layer)[0]
    around = [pads[i] + pads[i + 1] for i in range(0, len(pads), 2)][::-1]
    dims: Iterable[Any] = zip(value.shape[2:], around, layer.stride, layer.dilation, layer.kernel_size, strict=True)
    return [(size + pad - dilation * (k - 1) - 1) // stride + 1 for size, pad, stride, dilation, k in dims]
