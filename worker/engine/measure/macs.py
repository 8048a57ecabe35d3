"""Counts multiply-accumulates by running the network once; the counts of the layers are those of the estimator."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from worker.engine.network import Network

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def count_macs(network: Network) -> dict[str, int]:
    """Multiply-accumulates of one sample, by node: the path of a layer, or the name of another call.

    A layer that is called twice counts twice. Convolutions, linear layers and matrix products count; what is
    element-wise does not.
    """
    batch = 2 if network.batched else 1
    counter = _Counter(network.module)
    with torch.no_grad():
        counter.run(*random_inputs(network, batch))
    return {name: count // batch for name, count in counter.counts.items()}


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
        product = PRODUCTS.get(n.target) if n.op == "call_function" else None
        if product is not None and isinstance(result, Tensor):
            args, _ = self.fetch_args_kwargs_from_env(n)
            self.counts[n.name] += result.numel() * int(args[product].shape[-1])
        return result


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
