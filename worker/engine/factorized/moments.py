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

#: Bytes of covariances that are collected in one pass over the samples, and are in memory together.
_BYTES: Final = 1 << 30
#: A layer that reads more values than this has no covariance: 2 GiB, of which judging it takes several.
_INPUTS: Final = 16_384
#: Variance over the square of the mean that is rounding of float32 alone.
_CONSTANT: Final = 1e-13
#: Share of a pass's time in which samples run.
_SEEING: Final = 0.3
#: Samples that run together.
_BATCH: Final = 16


@dataclass(frozen=True)
class Moments:
    """Of the vectors that a layer reads.

    Attributes:
        mean: (inputs,), float64.
        covariance: (inputs, inputs), float64, over all vectors of all samples; None: not known.
        unknown: why it is not.
    """

    mean: Tensor
    covariance: Tensor | None
    unknown: str = ""


class _Sums:
    """Running sums, around the mean of the first batch: large means cost no precision.

    The products are summed for vectors of at most `_INPUTS` values.
    """

    def __init__(self) -> None:
        self.count, self.shift = 0, torch.zeros(0)
        self.total, self.products = torch.zeros(0), torch.zeros(0)

    def add(self, rows: Tensor) -> None:
        """More vectors, (rows, inputs)."""
        rows = rows.float()
        if not self.count:
            self.shift = rows.mean(0)
            self.total = torch.zeros_like(self.shift, dtype=torch.float64)
            size = len(self.total) if len(self.total) <= _INPUTS else 0
            self.products = self.total.new_zeros(size, size)
        rows = rows - self.shift
        self.total += rows.sum(0, dtype=torch.float64)
        if len(self.products):
            self.products += rows.mT @ rows
        self.count += len(rows)

    def moments(self) -> Moments:
        """Of everything that was added."""
        mean = self.total / self.count
        if not len(self.products):
            return Moments(self.shift + mean, None, f"it reads more than {_INPUTS:,} values")
        covariance = self.products.div_(self.count).addr_(mean, mean, alpha=-1)
        whole = self.shift + mean
        if float(covariance.trace()) <= _CONSTANT * float(whole.square().sum()):
            return Moments(whole, None, "what it reads is the same in all samples")
        return Moments(whole, covariance)


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


def moments(
    network: Network,
    samples: Samples,
    found: Sequence[Site],
    *,
    device: str = "cpu",
    progress: Callable[[float], None] = lambda fraction: None,
) -> Iterator[tuple[Site, Moments]]:
    """Moments of what each layer reads, over all of its calls; pass by pass, so that few are in memory at a time.

    Layers that read the same value follow each other and share one object. Everything is in float32, sums in float64.

    Args:
        found: linear layers, and convolutions of size 1.
        progress: called with 0..1 of the layers: those of a pass count for `_SEEING` once the samples have run.
    Raises:
        InvalidDataset: ``too_few_samples`` for the network's fixed batch; ``not_finite``.
    """
    readers: dict[tuple[object, ...], list[Site]] = {}
    for site in found:
        readers.setdefault(_reading(site), []).append(site)
    done = 0
    for part in _passes([sites[0] for sites in readers.values()]):
        size = sum(len(readers[_reading(site)]) for site in part)

        def tell(fraction: float, done: int = done, size: int = size) -> None:
            progress((done + fraction * size) / len(found))

        sums = _collect(network, samples, part, device, lambda fraction, tell=tell: tell(_SEEING * fraction))  # type: ignore[misc]
        given = 0
        for reader in part:
            known = sums.pop(reader.path).moments()
            for value in (known.mean, known.covariance):
                if value is not None:
                    check_finite(reader.path, value)
            for site in readers[_reading(reader)]:
                yield site, known
                given += 1
                tell(_SEEING + (1 - _SEEING) * given / size)
        done += size


def _reading(site: Site) -> tuple[object, ...]:
    """Equal for layers that read the same vectors."""
    names = ("stride", "_reversed_padding_repeated_twice", "padding_mode")
    return (site.sources, *(str(getattr(site.layer, name, None)) for name in names))


def _passes(found: Sequence[Site]) -> Iterator[list[Site]]:
    """The layers in parts whose covariances have room in memory together."""
    part: list[Site] = []
    used = 0
    for site in found:
        size = 8 * site.inputs**2 if site.inputs <= _INPUTS else 0
        if part and used + size > _BYTES:
            yield part
            part, used = [], 0
        part.append(site)
        used += size
    if part:
        yield part


@torch.no_grad()
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
