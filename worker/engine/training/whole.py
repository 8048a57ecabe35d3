"""A float network that trains as it is: every weight, batch norms included."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx, nn

from app.recipes.methods import LayerFilter
from worker.engine.formats.fold import NORMS
from worker.engine.network import Network

_aten = torch.ops.aten


@dataclass(frozen=True)
class Whole:
    """A network in training.

    Attributes:
        network: the copy that trains.
        module: the same layers in a graph that takes values in any memory order.
        layers: what trains of it.
        zero_points: none: nothing is quantized.
    """

    network: Network
    module: fx.GraphModule
    layers: LayerFilter
    zero_points: Mapping[str, int] = field(default_factory=dict)

    def settle(self, frozen: bool) -> None:
        """Train mode; batch norms on the statistics of the batch, or on their own (`frozen`)."""
        self.module.train()
        for path, part in self.module.named_modules():
            if isinstance(part, NORMS):
                part.train(not frozen and self.layers.matches(path))


def whole(network: Network, layers: LayerFilter) -> Whole:
    """A copy of `network`, of which the parameters of `layers` are ready to be trained.

    Images go through in channels-last order, which convolutions train about twice as fast in, on a CPU and on a GPU.
    """
    working = replace(network, module=copy.deepcopy(network.module))
    for part in working.module.modules():
        if type(part) is nn.Conv2d and part.kernel_size == (1, 1) != part.stride and part.padding == (0, 0):
            part.__class__ = _Subsampled
    for name, parameter in working.module.named_parameters():
        path = name.rpartition(".")[0] or name
        parameter.requires_grad_(parameter.is_floating_point() and layers.matches(path))
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return Whole(working, any_order(working.module), layers)


class _Subsampled(nn.Conv2d):
    """A convolution that looks at every so many positions alone, and skips the others before it computes.

    Left to itself oneDNN writes past its workspace in the gradient of such a kernel, where images are in channels-last
    order and have few channels: it crashes, or the gradient is wrong (https://github.com/uxlfoundation/oneDNN/issues/6035).
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows, columns = self.stride
        return nn.functional.conv2d(input[..., ::rows, ::columns], weight, bias, groups=self.groups)


def any_order(module: fx.GraphModule) -> fx.GraphModule:
    """The same layers in a graph whose views also take values that do not lie in memory in the order of dimensions."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    for node in graph.nodes:
        if node.target in (_aten.view.default, _aten._unsafe_view.default):
            node.target = _aten.reshape.default
    return fx.GraphModule(module, graph)


def graduated(pupil: Whole) -> Network:
    """The trained network: on CPU, in evaluation mode, in the usual memory order.

    What was written in the user's own file can be written back where only layers and batch norms have trained.
    """
    network = pupil.network.to("cpu")
    network.module.eval().zero_grad()
    for part in network.module.modules():
        if type(part) is _Subsampled:
            part.__class__ = nn.Conv2d  # type: ignore[assignment]
    for parameter in network.module.parameters():
        parameter.data = parameter.data.contiguous()
    return network
