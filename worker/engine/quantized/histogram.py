"""A histogram that streams: fixed memory however many values it sees, exact minimum and maximum.

Bins are ``width`` wide and start at a multiple of it, so 0 is always an edge. When a value falls outside, neighbouring
bins are merged, which doubles the width, until all fit.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 4096
#: Values taken from one tensor of a batch for the bins; the minimum and maximum are of all values.
SAMPLED = 1 << 15

#: Magnitudes beyond this leave no room for a float32 scale and its multiples.
LARGEST = 2.0**120

Floats = NDArray[np.float64]


class Histogram:
    """Counts of the non-zero values of a stream of tensors, in at most `BINS` bins, and the number of zeros.

    Zeros are counted apart because every grid represents them exactly: a rectified value must not pay for them.

    Attributes:
        low / high: exact range of everything seen.
        zeros: how many exact zeros were among the values counted.
    """

    def __init__(self) -> None:
        self.low = float("inf")
        self.high = float("-inf")
        self.zeros = 0.0
        self._width = 0.0
        self._first = 0
        self._counts: Floats = np.zeros(BINS)

    def update(self, values: Tensor) -> None:
        """Add a tensor of any shape; non-finite values raise ValueError."""
        if values.numel() == 0:
            return
        values = values.detach()
        if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
            values = values.permute(0, 2, 3, 1)  # reading and flattening are fastest in this order
        minimum, maximum = (float(end) for end in torch.aminmax(values))
        if not (-LARGEST < minimum <= maximum < LARGEST):  # false for NaN too
            raise ValueError("the network computed a value that is not finite, or too large to quantize")
        self.low, self.high = min(self.low, minimum), max(self.high, maximum)
        self._make_room()
        flat = values.reshape(-1)
        step = max(flat.numel() // SAMPLED, 1) | 1  # odd: does not keep hitting the same channel or column
        # A copy: what follows reads it twice, and strided reads cost as much as reading everything.
        self._count(flat[::step].to(torch.float32, memory_format=torch.contiguous_format, copy=True))

    def _count(self, sample: Tensor) -> None:
        zeros = sample.numel() - int(torch.count_nonzero(sample))
        start, stop = self._first * self._width, (self._first + BINS) * self._width
        counts = torch.histc(sample, BINS, start, stop).double().cpu().numpy()
        if zeros and 0 <= -self._first < BINS:
            counts[-self._first] -= zeros
        self.zeros += zeros
        self._counts += counts

    def _make_room(self) -> None:
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if self._width == 0.0:
            # A power of two, with room to grow; a constant zero needs any width at all.
            self._width = 2.0 ** math.ceil(math.log2(max(high - low, 2.0**-60) * 1.25 / BINS))
            self._first = math.floor(low / self._width)
        width, shift = self._width, 0
        while math.floor(high / width) - math.floor(low / width) >= BINS:
            width, shift = width * 2, shift + 1
        first = math.floor(low / width)
        if shift or first < self._first or math.floor(high / width) >= self._first + BINS:
            self._move(shift, first)

    def _move(self, shift: int, first: int) -> None:
        """Make the bins ``2^shift`` wider and start at bin `first`."""
        counts: Floats = np.zeros(BINS)
        kept = np.flatnonzero(self._counts)
        np.add.at(counts, ((kept + self._first) >> shift) - first, self._counts[kept])
        self._width, self._first, self._counts = self._width * 2.0**shift, first, counts

    def bins(self) -> tuple[Floats, Floats]:
        """Centres and counts of the bins that hold something, in order of value."""
        kept = self._counts > 0
        centres = (np.arange(self._first, self._first + BINS) + 0.5) * self._width
        # The outermost centres may lie past the exact range.
        return np.clip(centres[kept], self.low, self.high), self._counts[kept]
