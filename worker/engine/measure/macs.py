"""Counts what one sample costs by running the network once: multiply-accumulates and bytes of values."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from worker.engine.network import Network

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Costs:
    """What one sample costs.

    Attributes:
        macs: multiply-accumulates by node: the path of a layer, or the name of another call.
        value_bytes: results of all nodes, as they lie in memory while the network trains.
        live_bytes: the most of them that are needed at once where it does not.
    """

    macs: Mapping[str, int]
    value_bytes: int
    live_bytes: int


def count_macs(network: Network) -> dict[str, int]:
    """Multiply-accumulates of one sample, by node: the path of a layer, or the name of another call.

    A layer that is called twice counts twice. Convolutions, linear layers and matrix products count; what is
    element-wise does not.
    """
    return dict(count_costs(network).macs)


def count_costs(network: Network) -> Costs:
    """What one sample costs, see `Costs`."""
    batch = 2 if network.batched else 1
    counter = _Counter(network.module)
    with torch.no_grad():
        counter.run(*random_inputs(network, batch))
    macs = {name: count // batch for name, count in counter.counts.items()}
    return Costs(macs, counter.value_bytes // batch, counter.live_bytes // batch)


def random_inputs(network: Network, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Inputs that the network accepts: normal numbers where it takes floats, zeros elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        example.normal_(generator=generator) if example.is_floating_point() else example
        for example in network.examples(batch)
    )


class _Counter(fx.Interpreter):
    """Runs the graph node by node and counts."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.counts: Counter[str] = Counter()
        self.value_bytes = self.live_bytes = self._held = 0
        self._sizes: dict[fx.Node, int] = {}

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        result = super().call_module(target, args, kwargs)
        layer = self.fetch_attr(target)
        if isinstance(layer, _CONVOLUTIONS):
            self.counts[target] += result.numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
        elif isinstance(layer, _TRANSPOSED):
            self.counts[target] += args[0].numel() * layer.out_channels // layer.groups * math.prod(layer.kernel_size)
        elif isinstance(layer, nn.Linear):
            self.counts[target] += result.numel() * layer.in_features
        return result

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op in ("placeholder", "call_module", "call_function", "call_method"):
            self._weigh(n, result)
        product = PRODUCTS.get(n.target) if n.op == "call_function" else None
        if product is not None and isinstance(result, Tensor):
            args, _ = self.fetch_args_kwargs_from_env(n)
            self.counts[n.name] += result.numel() * int(args[product].shape[-1])
        return result

    def _weigh(self, node: fx.Node, result: Any) -> None:
        parts = result if isinstance(result, (tuple, list)) else [result]
        self._sizes[node] = sum(part.nbytes for part in parts if isinstance(part, Tensor))
        self.value_bytes += self._sizes[node]
        self._held += self._sizes[node]
        self.live_bytes = max(self.live_bytes, self._held)
        self._held -= sum(self._sizes.pop(dead, 0) for dead in self.user_to_last_uses.get(node, ()))


_aten = torch.ops.aten
#: Matrix product -> position of the argument whose last dimension is summed over.
PRODUCTS: dict[Callable[..., Any] | str, int] = {
    _aten.mm.default: 0,
    _aten.bmm.default: 0,
    _aten.matmul.default: 0,
    _aten.addmm.default: 1,
    _aten.baddbmm.default: 1,
    _aten.linear.default: 0,
}
