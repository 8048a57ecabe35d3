"""Mean and covariance of what layers read on calibration samples, in as few passes as memory allows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset
from worker.engine.factorized.replace import Site
from worker.engine.network import Network
from worker.engine.quantized.observe import Watching, batches, check_finite

#: Bytes of covariances that are collected in one pass over the samples.
_BYTES: Final = 1 << 30
#: Samples that run together.
_BATCH: Final = 16


@dataclass(frozen=True)
class Moments:
    """Of the vectors that a layer reads.

    Attributes:
        mean: (inputs,), float64.
        covariance: (inputs, inputs), float64, over all vectors of all samples.
    """

    mean: Tensor
    covariance: Tensor


class _Sums:
    """Running sums, around the mean of the first batch: large means cost no precision."""

    def __init__(self) -> None:
        self.count, self.shift = 0, torch.zeros(0)
        self.total, self.products = torch.zeros(0), torch.zeros(0)

    def add(self, rows: Tensor) -> None:
        """More vectors, (rows, inputs)."""
        rows = rows.float()
        if not self.count:
            self.shift = rows.mean(0)
            self.total = torch.zeros_like(self.shift, dtype=torch.float64)
            self.products = torch.zeros(2 * self.total.shape, dtype=torch.float64, device=rows.device)
        rows = rows - self.shift
        self.total += rows.sum(0, dtype=torch.float64)
        self.products += (rows.mT @ rows).double()
        self.count += len(rows)

    def moments(self) -> Moments:
        """Of everything that was added."""
        mean = self.total / self.count
        return Moments(self.shift + mean, self.products / self.count - torch.outer(mean, mean))


def vectors(layer: nn.Module, value: Tensor) -> Tensor:
    """The vectors that a linear layer or a convolution of size 1 multiplies its weight with, (rows, inputs).

    Args:
        value: what it reads: (..., inputs), or (samples, inputs, sizes...), the first left out or not.
    """
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        if any(layer._reversed_padding_repeated_twice):
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            value = F.pad(value, layer._reversed_padding_repeated_twice, mode)
        dims = len(layer.stride)
        for axis, stride in enumerate(layer.stride, -dims):
            value = value.index_select(axis, torch.arange(0, value.shape[axis], stride, device=value.device))
        value = value.movedim(-1 - dims, -1)
    return value.reshape(-1, value.shape[-1])


@torch.no_grad()
def moments(
    network: Network,
    samples: Samples,
    found: Sequence[Site],
    *,
    device: str = "cpu",
    progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, Moments]:
    """Path -> moments of what each layer reads, over all of its calls.

    Layers that read the same value share one object. Everything is in float32, sums in float64.

    Args:
        found: linear layers, and convolutions of size 1.
        progress: called with 0..1.
    Raises:
        InvalidDataset: ``too_few_samples`` for the network's fixed batch; ``not_finite``.
    """
    keys = {site.path: _reading(site) for site in found}
    readers = {keys[site.path]: site for site in found}
    result: dict[tuple[object, ...], Moments] = {}
    passes = list(_passes(list(readers.values())))
    for number, part in enumerate(passes):
        done = number / len(passes)
        sums = _collect(network, samples, part, device, lambda f, at=done: progress(at + f / len(passes)))  # type: ignore[misc]
        for site in part:
            result[_reading(site)] = sums[site.path].moments()
            check_finite(site.path, result[_reading(site)].covariance)
    return {path: result[key] for path, key in keys.items()}


def _reading(site: Site) -> tuple[object, ...]:
    """Equal for layers that read the same vectors."""
    names = ("stride", "_reversed_padding_repeated_twice", "padding_mode")
    return (site.sources, *(str(getattr(site.layer, name, None)) for name in names))


def _passes(found: Sequence[Site]) -> Iterator[list[Site]]:
    """The layers in parts whose covariances have room in memory together."""
    part: list[Site] = []
    used = 0
    for site in found:
        size = 8 * site.weight.shape[1] ** 2
        if part and used + size > _BYTES:
            yield part
            part, used = [], 0
        part.append(site)
        used += size
    if part:
        yield part


def _collect(
    network: Network, samples: Samples, found: Sequence[Site], device: str, progress: Callable[[float], None]
) -> dict[str, _Sums]:
    sums = {site.path: _Sums() for site in found}
    readers: dict[str, list[Site]] = {}
    for site in found:
        for source in site.sources:
            readers.setdefault(source, []).append(site)

    def seen(name: str, value: Tensor) -> None:
        for site in readers[name]:
            sums[site.path].add(vectors(site.layer, value))

    watching, done = Watching(network.module, readers, seen), 0
    for inputs in batches(network, samples, _BATCH, device):
        watching.run(*inputs)
        done += len(inputs[0]) if inputs[0].dim() else 1
        progress(done / len(samples))
    if not done:
        raise InvalidDataset("too_few_samples", "there are fewer calibration samples than the model's fixed batch")
    return sums
