"""Batches in an order that the seed and the epoch decide, read from memory-mapped samples a batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset
from worker.engine.network import Network

#: Statistics of fewer samples than this say little about a batch norm's input.
_STATISTICS: Final = 8


@dataclass(frozen=True)
class Batch:
    """Some samples, on the device.

    Attributes:
        inputs: in the order of the network's inputs.
        labels: (samples, ...) or None; int64 where they are classes, else float32.
        share: of the samples of the optimizer's step that they are a part of, 0..1.
    """

    inputs: list[Tensor]
    labels: Tensor | None
    share: float = 1.0

    def __len__(self) -> int:
        return len(self.inputs[0])


class Batches:
    """The batches of every epoch.

    An epoch is cut into batches of nearly equal size, so that no last one is too small for a batch norm. A network
    with a fixed first dimension runs that many samples at a time, and a batch is several such runs; samples that
    fill no run wait for another epoch.

    Args:
        size: samples per batch, at most; or one run.
    Raises:
        InvalidDataset: ``too_few_samples`` where they do not fill one run.
    """

    def __init__(self, network: Network, samples: Samples, *, size: int, seed: int, device: str = "cpu") -> None:
        self._network, self._samples, self._seed, self._device = network, samples, seed, device
        fixed = [spec.shape[0] for spec in network.inputs if spec.shape and isinstance(spec.shape[0], int)]
        self.run = 1 if network.batched or not fixed else int(fixed[0])
        self._fixed = not network.batched
        runs = len(samples) // self.run
        if runs == 0:
            raise InvalidDataset(
                "too_few_samples",
                f"there are {len(samples)} training samples, and the model takes {self.run} at a time",
            )
        self._runs, self._count = runs, -(-runs // max(size // self.run, 1))

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return self._count

    @property
    def statistics(self) -> bool:
        """Whether enough samples run at a time for a batch norm to compute on their statistics."""
        return (self.run if self._fixed else self._runs // self._count) >= _STATISTICS

    def epoch(self, number: int) -> Iterator[list[Batch]]:
        """The batches of epoch `number`, each in as many parts as the network needs runs for it."""
        order = np.random.default_rng((self._seed, number)).permutation(len(self._samples)).astype(np.intp)
        rows = order[: self._runs * self.run].reshape(self._runs, self.run)
        for part in np.array_split(rows, self._count):
            runs = list(part) if self._fixed else [part.reshape(-1)]
            yield [self._batch(indices, len(indices) / part.size) for indices in runs]

    def _batch(self, indices: NDArray[np.intp], share: float) -> Batch:
        """Read in ascending order, as the disk likes it: the order within a batch makes no difference."""
        taken = self._samples.take(np.sort(indices))
        inputs = [
            torch.from_numpy(np.ascontiguousarray(taken.inputs[spec.name])).to(self._device)
            for spec in self._network.inputs
        ]
        labels = None if taken.labels is None else torch.from_numpy(np.array(taken.labels)).to(self._device)
        if labels is not None:
            labels = labels.float() if labels.is_floating_point() else labels.long()
        return Batch(inputs, labels, share)
