"""Samples in memory-mapped arrays: what methods calibrate and train on, and what artifacts are measured on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


class Chosen:
    """Some rows of an array, read when they are asked for: it may be mapped from a file larger than memory."""

    def __init__(self, array: Array, rows: NDArray[np.intp]) -> None:
        self._array, self._rows = array, rows
        self.dtype = array.dtype
        self.shape = (len(rows), *array.shape[1:])
        self.ndim, self.nbytes = array.ndim, len(rows) * array[:1].nbytes

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Array:
        found: Array = self._array[self._rows[key]]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self._array[self._rows], dtype)


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

    def view(self, indices: NDArray[np.intp]) -> "Samples":
        """As `take`, but nothing is read before it is asked for."""

        def chosen_of(array: Array) -> Array:
            return cast(Array, Chosen(array, indices))

        labels = None if self.labels is None else chosen_of(self.labels)
        inputs, more = ({name: chosen_of(array) for name, array in part.items()} for part in (self.inputs, self.more))
        return Samples(inputs, labels, more, tuple(map(chosen_of, self.answers)))

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Inputs in order, `size` samples at a time; the last batch may be smaller. Copies: writable."""
        for start in range(0, len(self), size):
            yield {name: np.array(array[start : start + size], order="C") for name, array in self.inputs.items()}


def divided(samples: Samples, one_in: int, most: int, seed: int) -> tuple[Samples, Samples]:
    """Samples to learn from, and one in so many, `most` at most and one at least, that are held back from that.

    The choice depends on `seed`, `one_in` and the number of samples alone. Views: nothing is read yet.
    """
    order = np.random.default_rng((seed, one_in)).permutation(len(samples)).astype(np.intp)
    count = min(max(len(samples) // one_in, 1), most)
    return samples.view(np.sort(order[count:])), samples.view(np.sort(order[:count]))


def chosen(samples: Samples, count: int, seed: int) -> Samples:
    """At most `count` of the samples, the same for the same seed, in their order."""
    if len(samples) <= count:
        return samples
    order = np.random.default_rng(seed).permutation(len(samples))
    return samples.take(np.sort(order[:count]).astype(np.intp))
