"""The quantized network beside the float one, layer by layer, on a few samples."""

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, fx

from worker.engine.data.samples import Samples
from worker.engine.quantized.form import Quantization
from worker.engine.quantized.observe import batches
from worker.engine.quantized.placement import layer_calls
from worker.engine.quantized.weights import sqnr_db

#: Samples that a layer's output is compared on: ratios of energies settle fast.
_SAMPLES: Final = 8


class _Keeping(fx.Interpreter):
    """Runs a network and keeps what its modules return."""

    def __init__(self, module: fx.GraphModule, wanted: frozenset[str]) -> None:
        super().__init__(module)
        self._wanted = wanted
        self.kept: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "call_module" and n.target in self._wanted:
            first = result[0] if isinstance(result, tuple) else result
            self.kept.setdefault(str(n.target), first)
        return result


@torch.no_grad()
def output_sqnr(
    quantization: Quantization, fake: fx.GraphModule, samples: Samples, device: str = "cpu"
) -> dict[str, float]:
    """Signal-to-quantization-noise ratio of the output of each layer that `quantization` stores, in dB.

    The signal is the layer's output in the float network, the noise its difference in the quantized one, with what
    quantization did in front of the layer; a layer that is called twice is judged at its first call.

    Args:
        fake: `quantization` as `fake_quantized` makes it.
    Returns:
        path of the layer -> dB.
    """
    network = quantization.network
    keys = list(quantization.weights)
    wanted = frozenset(str(node.target) for node, _ in layer_calls(network.module) if _stored(str(node.target), keys))
    few = samples.take(np.arange(min(len(samples), _SAMPLES)))
    inputs = next(batches(network, few, _SAMPLES, device), None)
    if inputs is None:
        return {}
    before, after = (_Keeping(module, wanted) for module in (network.module, fake))
    before.run(*inputs)
    after.run(*inputs)
    return {path: round(sqnr_db(value, after.kept[path] - value), 2) for path, value in before.kept.items()}


def _stored(path: str, keys: list[str]) -> bool:
    return any(key == path or key.rpartition(".")[0] == path for key in keys)
