"""One streaming pass over the calibration samples for everything that a static quantization needs to know."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, fx

from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset
from worker.engine.network import Network
from worker.engine.quantized.histogram import Histogram
from worker.engine.training.device import half_precision

#: Elements that the largest value of a batch may have: small enough for the caches, large enough for the kernels.
_ELEMENTS: Final = 1 << 22
_LARGEST_BATCH: Final = 64


@dataclass
class Statistics:
    """What was seen.

    Attributes:
        histograms: FX node name -> its values.
        means: FX node name -> mean, with leading dimensions of 1 in place of those that it was taken over.
        samples: how many samples ran.
    """

    histograms: dict[str, Histogram] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0


class Watching(fx.Interpreter):
    """Runs the network and shows chosen values; frees each value after its last use."""

    def __init__(self, module: fx.GraphModule, watched: Collection[str], seen: Callable[[str, Tensor], None]) -> None:
        super().__init__(module)
        self._watched = frozenset(watched)
        self._seen = seen

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, and show its value where it is watched."""
        result = super().run_node(n)
        if n.name in self._watched and isinstance(result, Tensor):
            with torch.autocast(result.device.type, enabled=False):  # what is made of values is not a layer
                self._seen(n.name, result)
        return result


def tensors(batch: Mapping[str, Any], network: Network, device: str) -> list[Tensor]:
    """The network's inputs, in its order, from arrays by name."""
    return [torch.from_numpy(np.ascontiguousarray(batch[spec.name])).to(device) for spec in network.inputs]


def batches(network: Network, samples: Samples, size: int, device: str = "cpu") -> Iterator[list[Tensor]]:
    """Batches that the network accepts: `size` samples, or as many as its fixed first dimension says."""
    if not network.batched:
        fixed = [spec.shape[0] for spec in network.inputs if spec.shape and isinstance(spec.shape[0], int)]
        size = fixed[0] if fixed else 1
    for batch in samples.batches(size):
        if network.batched or len(next(iter(batch.values()))) == size:
            yield tensors(batch, network, device)


@dataclass(frozen=True)
class _Plan:
    """How to run: samples per batch, and whether layers may compute in bfloat16."""

    size: int
    bfloat16: bool


@torch.no_grad()
def _plan(network: Network, samples: Samples, device: str) -> _Plan:
    """Try one sample: the largest value that it makes decides the size of a batch.

    Ranges are good to the 8 bits of a bfloat16 (a quarter of a step of an 8-bit grid), so layers may compute in it
    where that is faster. A network that mixes types in a way that autocast cannot follow stays in float32.
    """
    largest = 1

    def measure(_: str, value: Tensor) -> None:
        nonlocal largest
        largest = max(largest, value.numel())

    first = next(batches(network, samples, 1, device), None)
    if first is None:
        raise InvalidDataset("too_few_samples", "there are fewer calibration samples than the model's fixed batch")
    watching = Watching(network.module, [node.name for node in network.module.graph.nodes], measure)
    bfloat16 = device == "cpu" and half_precision(device) == torch.bfloat16
    if bfloat16:
        try:
            with torch.autocast(device, torch.bfloat16):
                watching.run(*first)
        except RuntimeError:
            bfloat16 = False
    if not bfloat16:
        watching.run(*first)
    return _Plan(min(max(_ELEMENTS // largest, 1), _LARGEST_BATCH), bfloat16)


def observe(
    network: Network,
    samples: Samples,
    values: Collection[str],
    means: Mapping[str, bool],
    *,
    device: str = "cpu",
    progress: Callable[[float], None] = lambda fraction: None,
) -> Statistics:
    """Run the network once over all samples.

    Args:
        values: FX node names to keep histograms of.
        means: FX node names to average: over everything but the last dimension, as linear layers read it (True), or
            over the first dimension alone, as convolutions do (False).
    Raises:
        InvalidDataset: ``not_finite`` where the network computes NaN or infinity from the samples.
    """
    statistics = Statistics(histograms={name: Histogram() for name in values})
    counts: Counter[str] = Counter()

    def seen(name: str, value: Tensor) -> None:
        if name in statistics.histograms:
            _update(statistics.histograms[name], name, value)
        if name in means:
            rows = value.reshape(-1, value.shape[-1]) if means[name] else value
            if name in statistics.means:
                statistics.means[name] += _total(rows)
            else:
                statistics.means[name] = _total(rows)
            counts[name] += len(rows)

    statistics.samples = stream(network, samples, {*values, *means}, seen, device=device, progress=progress)
    statistics.means = {name: total / counts[name] for name, total in statistics.means.items()}
    return statistics


@torch.no_grad()
def stream(
    network: Network,
    samples: Samples,
    watched: Collection[str],
    seen: Callable[[str, Tensor], None],
    *,
    device: str = "cpu",
    progress: Callable[[float], None] = lambda fraction: None,
) -> int:
    """Run the network once over all samples, in batches that memory has room for, and show values as they come.

    Args:
        watched: FX node names whose values `seen` is called with.
    Returns:
        how many samples ran.
    Raises:
        InvalidDataset: ``too_few_samples`` for the network's fixed batch.
    """
    plan = _plan(network, samples, device)
    watching, done = Watching(network.module, watched, seen), 0
    with torch.autocast(device, torch.bfloat16, enabled=plan.bfloat16):  # casts each weight once
        for inputs in batches(network, samples, plan.size, device):
            watching.run(*(_channels_last(value) for value in inputs))
            done += len(inputs[0]) if inputs[0].dim() else 1
            progress(done / len(samples))
    return done


def _channels_last(value: Tensor) -> Tensor:
    """Images in the memory order that convolution and pooling kernels are fastest in."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def _total(value: Tensor) -> Tensor:
    """Sum over samples, (1, ...), in single precision: means are good to four digits after 100 000 batches."""
    if value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last):
        return value.permute(0, 2, 3, 1).sum(0, keepdim=True, dtype=torch.float32).permute(0, 3, 1, 2)
    return value.sum(0, keepdim=True, dtype=torch.float32)


def _update(histogram: Histogram, name: str, value: Tensor) -> None:
    try:
        histogram.update(value)
    except ValueError as error:
        raise not_finite(name, str(error)) from error


def not_finite(name: str, what: str) -> InvalidDataset:
    """The error for values at `name` that nothing can be calibrated on."""
    return InvalidDataset(
        "not_finite", f"at {name!r} {what}; look for NaN, infinity or very large numbers in the calibration samples"
    )


def check_finite(name: str, value: Tensor) -> None:
    """Raises `InvalidDataset` (``not_finite``) where statistics of the values at `name` are not finite."""
    if not bool(torch.isfinite(value).all()):
        raise not_finite(name, "the network computed values whose squares are not finite")
