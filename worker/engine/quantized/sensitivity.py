"""How much each layer's rounding costs at the network's output, and how many bits each gets.

The cost of storing layer l in b bits is measured: the float network runs up to the layer once, and from there on with
that one layer rounded, for every b (activations in front of a layer are never computed twice). Costs of layers are
added up, as errors that do not know of each other are:

    min sum_l c(l, b_l)   with   sum_l size(l, b_l) <= budget

a multiple-choice knapsack, which `scipy.optimize.milp` (HiGHS, branch and cut) solves to a proven optimum.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor

from worker.engine.data.samples import Samples
from worker.engine.network import Network
from worker.engine.quantized.fake import put
from worker.engine.quantized.form import Weight, original
from worker.engine.quantized.observe import batches
from worker.engine.quantized.placement import called
from worker.engine.quantized.rows import Walk

#: Samples that costs are measured on, and how many run together.
_SAMPLES: Final = 64
_BATCH: Final = 16
#: Share of the optimum that the solver may miss it by.
_GAP: Final = 1e-6

#: Path of a layer -> bits -> value.
Table = Mapping[str, Mapping[int, float]]


@torch.no_grad()
def costs(
    network: Network,
    samples: Samples,
    candidates: Mapping[str, Mapping[int, Weight]],
    device: str = "cpu",
    progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, dict[int, float]]:
    """Path -> bits -> energy of the error of the outputs over that of the outputs.

    Args:
        network: with its batch norms folded.
        candidates: path -> bits -> the layer's weight in so many bits.
    """
    module = copy.deepcopy(network.module).to(device)
    few = samples.take(np.arange(min(len(samples), _SAMPLES)))
    noise = {path: dict.fromkeys(weights, 0.0) for path, weights in candidates.items()}
    signal, done = 0.0, 0
    for inputs in batches(network, few, _BATCH, device):
        whole = Walk(module)
        whole.to_end(inputs)
        expected = whole.outputs()
        signal += sum(_energy(value) for value in expected)
        walk = Walk(module)
        for path, _, calls in called(module, candidates):
            walk.to(calls[0], inputs)
            exact = original(module, path)
            for bits, weight in candidates[path].items():
                put(module, path, weight.dequantized().to(device), None)
                branch = walk.fork()
                branch.to_end(inputs)
                found = zip(branch.outputs(), expected, strict=True)
                noise[path][bits] += sum(_energy(one - other) for one, other in found)
            put(module, path, exact, None)
        done += len(inputs[0]) if inputs[0].dim() else 1
        progress(min(done / len(few), 1.0))
    return {
        path: {bits: value / max(signal, 1e-30) for bits, value in by_bits.items()} for path, by_bits in noise.items()
    }


def _energy(value: Tensor) -> float:
    return float(value.double().square().sum())


def allotted(costs_: Table, sizes: Table, budget: float) -> dict[str, int]:
    """Path -> bits of least total cost whose total size is at most `budget`.

    Raises:
        ValueError: even the smallest sizes are more.
    """
    options = [(path, bits) for path, by_bits in costs_.items() for bits in by_bits]
    cost = np.array([costs_[path][bits] for path, bits in options])
    size = np.array([sizes[path][bits] for path, bits in options])
    paths = list(costs_)
    one_each = np.zeros((len(paths), len(options)))
    for column, (path, _) in enumerate(options):
        one_each[paths.index(path), column] = 1.0
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415 (a second of every job's start)

    solved = milp(
        cost / max(float(cost.max()), 1e-300),  # the solver's tolerances are absolute
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(size[None] / budget, -np.inf, 1)],
        integrality=np.ones(len(options)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": _GAP},
    )
    if solved.x is None:
        least = sum(min(by_bits.values()) for by_bits in sizes.values())
        raise ValueError(f"the smallest choice of each layer adds up to {least:g}, the budget is {budget:g}")
    return {path: bits for (path, bits), taken in zip(options, solved.x, strict=True) if taken > 0.5}
