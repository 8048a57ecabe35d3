"""Samples in memory-mapped arrays: what methods calibrate and train on, and what artifacts are measured on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Samples:
    """Aligned inputs and labels.

    Attributes:
        inputs: model input name -> array of shape (samples, *sample shape); may be memory-mapped.
        labels: (samples, ...) or None: of the model's first output.
        more: name of a further output -> its labels, (samples, ...).
        answers: what a teacher answers, one array for each output; empty where it was not asked yet.
    """

    inputs: Mapping[str, Array]
    labels: Array | None = None
    more: Mapping[str, Array] = field(default_factory=dict)
    answers: tuple[Array, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, indices: NDArray[np.intp]) -> "Samples":
        """The samples at these positions, in this order."""
        labels = None if self.labels is None else self.labels[indices]
        inputs, more = ({name: array[indices] for name, array in part.items()} for part in (self.inputs, self.more))
        return Samples(inputs, labels, more, tuple(array[indices] for array in self.answers))

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Inputs in order, `size` samples at a time; the last batch may be smaller. Copies: writable."""
        for start in range(0, len(self), size):
            yield {name: np.array(array[start : start + size], order="C") for name, array in self.inputs.items()}


def chosen(samples: Samples, count: int, seed: int) -> Samples:
    """At most `count` of the samples, the same for the same seed, in their order."""
    if len(samples) <= count:
        return samples
    order = np.random.default_rng(seed).permutation(len(samples))
    return samples.take(np.sort(order[:count]).astype(np.intp))
