"""Batches in an order that the seed and the epoch decide, read from memory-mapped samples a batch at a time."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.data.samples import Array, Samples
from worker.engine.errors import InvalidDataset
from worker.engine.network import Network

#: Statistics of fewer samples than this say little about a batch norm's input.
_STATISTICS: Final = 8
#: Batches that wait for a GPU.
_AHEAD: Final = 2
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Some samples, on the device.

    Attributes:
        inputs: in the order of the network's inputs.
        labels: (samples, ...) or None; int64 where they are classes, else float32.
        share: of the samples of the optimizer's step that they are a part of, 0..1.
        more: labels of further outputs, by their position.
        answers: of the teacher, where it was asked before.
    """

    inputs: list[Tensor]
    labels: Tensor | None
    share: float = 1.0
    more: Mapping[int, Tensor] = field(default_factory=dict)
    answers: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs[0])


class Batches:
    """The batches of every epoch.

    An epoch is cut into batches of nearly equal size, so that no last one is too small for a batch norm. A network
    with a fixed first dimension runs that many samples at a time, and a batch is several such runs; samples that
    fill no run wait for another epoch.

    Args:
        size: samples per batch, at most; or one run.
        order: of images in memory.
        repeats: how many times each part of a batch runs, as that many equal shares of the optimizer's step.
    Raises:
        InvalidDataset: ``too_few_samples`` where they do not fill one run.
    """

    def __init__(
        self,
        network: Network,
        samples: Samples,
        *,
        size: int,
        seed: int,
        device: str = "cpu",
        order: torch.memory_format = torch.contiguous_format,
        repeats: int = 1,
    ) -> None:
        self._network, self._samples, self._seed, self._device = network, samples, seed, device
        self._order, self._repeats = order, repeats
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
        """The batches of epoch `number`, each in as many parts as the network needs runs for it.

        On a GPU they are read and sent while it computes on those before.
        """
        batches = self._epoch(number)
        return batches if self._device == "cpu" else ahead(batches)

    def _epoch(self, number: int) -> Iterator[list[Batch]]:
        order = np.random.default_rng((self._seed, number)).permutation(len(self._samples)).astype(np.intp)
        rows = order[: self._runs * self.run].reshape(self._runs, self.run)
        for part in np.array_split(rows, self._count):
            runs = list(part) if self._fixed else [part.reshape(-1)]
            shares = [self._batch(indices, len(indices) / part.size / self._repeats) for indices in runs]
            yield [share for share in shares for _ in range(self._repeats)]

    def _batch(self, indices: NDArray[np.intp], share: float) -> Batch:
        """Read in ascending order, as the disk likes it: the order within a batch makes no difference."""
        taken = self._samples.take(np.sort(indices))
        inputs = [self._sent(taken.inputs[spec.name]) for spec in self._network.inputs]
        inputs = [value.contiguous(memory_format=self._order) if value.dim() == 4 else value for value in inputs]
        labels = None if taken.labels is None else self._labels(taken.labels)
        places = {spec.name: index for index, spec in enumerate(self._network.outputs)}
        more = {places[name]: self._labels(values) for name, values in taken.more.items()}
        return Batch(inputs, labels, share, more, tuple(self._sent(values) for values in taken.answers))

    def _sent(self, values: Array) -> Tensor:
        """A copy on the device."""
        tensor = torch.from_numpy(np.array(values, order="C"))
        return tensor if self._device == "cpu" else tensor.pin_memory().to(self._device, non_blocking=True)

    def _labels(self, values: Array) -> Tensor:
        labels = self._sent(values)
        return labels.float() if labels.is_floating_point() else labels.long()


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, made in a thread a little before they are asked for."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, items, end) for _ in range(_AHEAD))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item  # type: ignore[misc]
