"""Scales that can move between layers without changing what a network computes.

For a channel-wise f with ``f(s x) = s f(x)`` for s > 0 (ReLU, leaky ReLU, pooling, reshaping) the channels of a
producer can be divided by any positive s, and the input channels of all its consumers multiplied by it:

    W2 f(W1 x + b1) = (W2 S) f(S^-1 W1 x + S^-1 b1)

A group is a producer and its consumers. That the i-th channel of the one is the i-th input channel of the others is not
read off the shapes, which can deceive: it is tried, by sending a ramp over the channels through whatever lies between.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from app.recipes.methods import LayerFilter
from worker.engine.network import Network
from worker.engine.quantized.placement import LAYERS, MOVING, Layer, layer_calls, operation, source_of

#: Operations that are positively homogeneous and keep channels apart.
HOMOGENEOUS: Final = MOVING | {
    "relu", "leaky_relu", "ReLU", "LeakyReLU", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "_adaptive_avg_pool2d", "mean",
}  # fmt: skip
Producer = Layer | nn.LayerNorm


@dataclass(frozen=True)
class Group:
    """A producer and all that reads it; names of FX nodes, each of which calls a layer of its own."""

    producer: str
    consumers: tuple[str, ...]


def groups(network: Network, layers: LayerFilter, kinds: tuple[type[nn.Module], ...]) -> list[Group]:
    """The groups whose producer is one of `kinds`, in graph order.

    Left alone are layers outside of the filter, those that are called twice or share a weight with another, and
    producers that anything but a layer reads: an addition, say, or a clip such as ReLU6, which is not homogeneous.
    """
    module = network.module
    calls = Counter(str(node.target) for node, _ in layer_calls(module))
    owners = Counter(id(p) for part in module.modules() for p in part._parameters.values() if p is not None)
    own = {
        node.name
        for node, layer in layer_calls(module)
        if calls[str(node.target)] == 1
        and all(owners[id(p)] == 1 for p in layer.parameters())
        and layers.matches(str(node.target))
    }
    found = []
    for node, layer in layer_calls(module):
        readers = _readers(module, node) if node.name in own and isinstance(layer, kinds) and _scalable(layer) else None
        if readers and all(reader.name in own for reader in readers):
            found.append(Group(node.name, tuple(reader.name for reader in readers)))
    if not found:
        return []
    nodes = {node.name: layer for node, layer in layer_calls(module)}
    probes = _probes(network, frozenset(group.producer for group in found))
    return [group for group in found if _arrives(nodes, group, *probes)]


def _scalable(layer: nn.Module) -> bool:
    if isinstance(layer, nn.LayerNorm):
        return layer.elementwise_affine and len(layer.normalized_shape) == 1
    return isinstance(layer, LAYERS)


def _readers(module: fx.GraphModule, node: fx.Node) -> list[fx.Node] | None:
    """The layers that read `node`, through homogeneous operations; None where something else does."""
    found: list[fx.Node] = []
    for user in node.users:
        called = module.get_submodule(str(user.target)) if user.op == "call_module" else None
        if isinstance(called, LAYERS) and source_of(user) is node:
            found.append(user)
        elif operation(module, user) in HOMOGENEOUS and user.args[0] is node:
            below = _readers(module, user)
            if below is None:
                return None
            found += below
        else:
            return None
    return found


def channels(layer: nn.Module) -> int:
    """Output channels of a producer."""
    return int(layer.weight.shape[0]) if isinstance(layer, (*LAYERS, nn.LayerNorm)) else 0


def input_channels(layer: nn.Module) -> int:
    """Input channels of a consumer."""
    return layer.in_features if isinstance(layer, nn.Linear) else int(getattr(layer, "in_channels", 0))


class _Probing(fx.Interpreter):
    """Runs a network with the outputs of some layers replaced, and keeps what layers read."""

    def __init__(self, module: fx.GraphModule, producers: frozenset[str], *, ramp: bool) -> None:
        super().__init__(module)
        self._producers, self._ramp = producers, ramp
        self.read: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_module" and n.args and isinstance(n.args[0], fx.Node):
            value = self.env[n.args[0]]
            if isinstance(value, Tensor):
                self.read[n.name] = value
        result = super().run_node(n)
        if n.name not in self._producers:
            return result
        axis = channel_axis(self.fetch_attr(str(n.target)), result)
        shape = [-1 if position == axis % result.dim() else 1 for position in range(result.dim())]
        return torch.ones_like(result) * (ramp(result.shape[axis]).to(result).reshape(shape) if self._ramp else 1)


def ramp(count: int) -> Tensor:
    """A different positive number for each channel."""
    return torch.arange(1, count + 1, dtype=torch.float32)


def channel_axis(layer: nn.Module, value: Tensor) -> int:
    """The dimension of the channels in what a layer reads or makes."""
    return -1 if isinstance(layer, (nn.Linear, nn.LayerNorm)) else value.dim() - len(layer.kernel_size) - 1  # type: ignore[arg-type]


def _arrives(
    nodes: Mapping[str, nn.Module], group: Group, ones: Mapping[str, Tensor], ramps: Mapping[str, Tensor]
) -> bool:
    """Whether the channels of the producer are those of its consumers, by what they read of ones and of a ramp."""
    count = channels(nodes[group.producer])
    for name in group.consumers:
        layer, one, other = nodes[name], ones[name], ramps[name]
        axis = channel_axis(layer, one)
        if input_channels(layer) != count or one.shape[axis] != count:
            return False
        shape = [-1 if position == axis % one.dim() else 1 for position in range(one.dim())]
        if not torch.allclose(other, one * ramp(count).to(one).reshape(shape), rtol=1e-4, atol=1e-5):
            return False
    return True


@torch.no_grad()
def _probes(network: Network, producers: frozenset[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    read = []
    module = network.module
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    for as_ramp in (False, True):
        probing = _Probing(module, producers, ramp=as_ramp)
        probing.run(*(example.to(device) for example in network.examples()))
        read.append(probing.read)
    return read[0], read[1]


def input_range(layer: nn.Module) -> Tensor:
    """The largest magnitude of the weights of each input channel, (input channels,)."""
    return _by_input(layer).abs().amax((1, 3)).reshape(-1)


def _by_input(layer: nn.Module) -> Tensor:
    """A view of the weight as (groups, output channels / groups, input channels / groups, positions)."""
    weight: Any = layer.weight
    count = int(getattr(layer, "groups", 1))
    view: Tensor = weight.detach().reshape(count, weight.shape[0] // count, weight.shape[1], -1)
    return view


@torch.no_grad()
def divide(network: Network, group: Group, scale: Tensor) -> None:
    """Divide the producer's channels by `scale`, (channels,), and multiply the consumers' inputs by it; in place."""
    nodes = {node.name: layer for node, layer in layer_calls(network.module)}
    producer = nodes[group.producer]
    for parameter in producer.parameters(recurse=False):
        parameter.div_(scale.reshape(-1, *[1] * (parameter.dim() - 1)))
    for name in group.consumers:
        view = _by_input(nodes[name])
        view.mul_(scale.reshape(view.shape[0], 1, view.shape[2], 1))


def changeable(network: Network) -> Network:
    """A copy whose weights can be changed in place; contiguous, so that views of them are the weights themselves."""
    module = copy.deepcopy(network.module)
    for layer in module.modules():
        for name, parameter in layer._parameters.items():
            if parameter is not None:
                layer._parameters[name] = nn.Parameter(parameter.detach().contiguous(), parameter.requires_grad)
    return replace(network, module=module, notes=list(network.notes))


def layers_of(network: Network, group: Group) -> Iterator[nn.Module]:
    """The producer, then the consumers."""
    nodes = {node.name: layer for node, layer in layer_calls(network.module)}
    return (nodes[name] for name in (group.producer, *group.consumers))
