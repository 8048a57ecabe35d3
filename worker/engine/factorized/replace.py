"""Putting several small layers in place of a large one.

The parts live under the old layer's name (``fc`` becomes ``fc.reduce`` and ``fc.expand``) and are called one by one in
the graph, so that whatever comes later sees ordinary layers.
"""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, fx, nn

from worker.engine.measure.macs import random_inputs
from worker.engine.network import Network, owners
from worker.engine.quantized.placement import layer_calls, source_of

CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_Layer = TypeVar("_Layer", nn.Linear, nn.Conv1d, nn.Conv2d)


@dataclass(frozen=True)
class Site:
    """A layer that may be replaced.

    Attributes:
        path: its name.
        layer: convolution or linear, in the network as it is.
        calls: names of the nodes that call it, in graph order.
        sources: names of the nodes that these read.
        dims: number of dimensions of what each call reads.
        shared: another owner of its weight, or an empty string.
    """

    path: str
    layer: nn.Module
    calls: tuple[str, ...]
    sources: tuple[str, ...]
    dims: frozenset[int]
    shared: str = ""

    @property
    def weight(self) -> Tensor:
        """In double precision, (channels, inputs, sizes...)."""
        return self.layer.weight.detach().double()  # type: ignore[operator]

    @property
    def inputs(self) -> int:
        """Number of values that each output reads, of one position and group."""
        size: int = self.layer.weight.shape[1]  # type: ignore[index,assignment]
        return size

    @property
    def bias(self) -> Tensor | None:
        """In double precision, (channels,)."""
        bias = getattr(self.layer, "bias", None)
        return bias.detach().double() if isinstance(bias, Tensor) else None

    @property
    def parameters(self) -> int:
        """Number of its weights, bias included."""
        return sum(p.numel() for p in self.layer.parameters())


class Wiring:
    """Writes the calls that stand in for one call of a layer."""

    def __init__(self, graph: fx.Graph, path: str) -> None:
        self._graph, self._path = graph, path

    def layer(self, name: str, value: fx.Node) -> fx.Node:
        """Calls the part `name`."""
        return self._graph.call_module(f"{self._path}.{name}", (value,))

    def weight(self, name: str) -> fx.Node:
        """The part `name` that is a parameter."""
        return self._graph.get_attr(f"{self._path}.{name}")

    def call(self, target: Callable[..., Any], *args: Any) -> fx.Node:
        """Calls an aten overload."""
        return self._graph.call_function(target, args)


def in_turn(*names: str) -> Callable[[Wiring, fx.Node], fx.Node]:
    """Parts that read each other's results."""

    def wire(wiring: Wiring, value: fx.Node) -> fx.Node:
        for name in names:
            value = wiring.layer(name, value)
        return value

    return wire


@dataclass(frozen=True)
class Replacement:
    """What stands in for a layer.

    Attributes:
        parts: layers and parameters by name; without dots.
        wire: writes their calls; gets what the layer read, returns what it answered.
        ranks: what was chosen, for the report.
        error: relative error, 0..1: of what the method promises (its page says so).
        remark: what the user should know of how it was found.
    """

    parts: Mapping[str, nn.Module | nn.Parameter]
    wire: Callable[[Wiring, fx.Node], fx.Node]
    ranks: tuple[int, ...]
    error: float
    remark: str = ""

    @property
    def weights(self) -> list[Tensor]:
        """Those of all parts."""
        parts = self.parts.values()
        return [p for part in parts for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())]

    @property
    def parameters(self) -> int:
        """Number of weights of all parts."""
        return sum(weight.numel() for weight in self.weights)

    def fits(self, dtype: torch.dtype) -> bool:
        """Whether all weights are finite numbers of this type."""
        return all(bool(weight.detach().to(dtype).isfinite().all()) for weight in self.weights)


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer with this weight, (outputs, inputs)."""
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    return _filled(layer, weight, bias)


def convolution(weight: Tensor, bias: Tensor | None = None, **settings: Any) -> nn.Conv1d | nn.Conv2d:
    """A convolution with this weight, (channels, inputs / groups, sizes...).

    Args:
        settings: of `nn.Conv1d` and `nn.Conv2d`: stride, padding, dilation, groups, padding_mode.
    """
    kind: Any = nn.Conv1d if weight.dim() == 3 else nn.Conv2d
    inputs = weight.shape[1] * settings.get("groups", 1)
    with torch.device("meta"):
        layer = kind(inputs, weight.shape[0], tuple(weight.shape[2:]), bias=bias is not None, **settings)
    filled: nn.Conv1d | nn.Conv2d = _filled(layer, weight, bias)
    return filled


def settings_of(layer: nn.Module, *names: str) -> dict[str, Any]:
    """Stride, padding, dilation and padding mode of a convolution, or those of `names`."""
    return {name: getattr(layer, name) for name in names or ("stride", "padding", "dilation", "padding_mode")}


def _filled(layer: _Layer, weight: Tensor, bias: Tensor | None) -> _Layer:
    layer.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias.contiguous())
    return layer


def sites(network: Network, kinds: Collection[type[nn.Module]]) -> list[Site]:
    """The layers of these kinds that are called, in graph order."""
    module = network.module
    calls: dict[str, list[fx.Node]] = {}
    for node, layer in layer_calls(module):
        if isinstance(layer, tuple(kinds)):
            calls.setdefault(str(node.target), []).append(node)
    dims = _dims(network, {source_of(node).name for nodes in calls.values() for node in nodes})
    owned = owners(module)
    found = []
    for path, nodes in calls.items():
        layer = module.get_submodule(path)
        others = [owner for p in layer.parameters() for owner in owned[id(p)] if owner != path]
        sources = tuple(source_of(node).name for node in nodes)
        read = frozenset(dims[source] for source in sources)
        names = tuple(node.name for node in nodes)
        found.append(Site(path, layer, names, sources, read, others[0] if others else ""))
    return found


class _Dims(fx.Interpreter):
    """Notes of how many dimensions values are."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.dims: Counter[str] = Counter()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.dims[n.name] = result.dim()
        return result


@torch.no_grad()
def _dims(network: Network, names: Collection[str]) -> dict[str, int]:
    interpreter = _Dims(network.module)
    device = next((p.device for p in network.module.parameters()), torch.device("cpu"))
    interpreter.run(*(value.to(device) for value in random_inputs(network, 2 if network.batched else 1)))
    return {name: interpreter.dims[name] for name in names}


def replaced(network: Network, found: Mapping[str, Replacement]) -> Network:
    """A copy of `network` with other parts at the paths in `found`, in every call of the layers there.

    The file that it was read from does not have these layers, so a writer has to write the graph anew.
    """
    module = copy.deepcopy(network.module)
    for path, replacement in found.items():
        _put(module, path, replacement)
    for node in list(module.graph.nodes):
        replacement = found.get(str(node.target)) if node.op == "call_module" else None  # type: ignore[assignment]
        if replacement is None:
            continue
        with module.graph.inserting_before(node):
            result = replacement.wire(Wiring(module.graph, str(node.target)), source_of(node))
        if "rank" in node.meta:
            result.meta["rank"] = node.meta["rank"]  # folding a batch norm into what comes last asks for it
        node.replace_all_uses_with(result)
        module.graph.erase_node(node)
    module.graph.lint()
    module.recompile()
    return replace(network, module=module, source=None)


def _put(module: fx.GraphModule, path: str, replacement: Replacement) -> None:
    """Put the parts where the layer was, with its type, device, mode and whether it is trained."""
    layer = module.get_submodule(path)
    weight: Any = layer.weight
    container = nn.Module()
    for name, part in replacement.parts.items():
        if isinstance(part, nn.Parameter):
            container.register_parameter(name, part)
        else:
            container.add_module(name, part)
    container.to(weight.device, weight.dtype).requires_grad_(weight.requires_grad).train(layer.training)
    parent, _, name = path.rpartition(".")
    module.get_submodule(parent).add_module(name, container)
