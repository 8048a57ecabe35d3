"""Affine quantization: ``q = clamp(round(x / scale) + zero_point, low, high)`` and ``x' = (q - zero_point) scale``.

Zero is always one of the representable numbers, so that padding and rectified zeros stay exact, and a value inside
the range moves by at most ``scale / 2`` (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 2.1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

#: Scales below this are not told apart from zero by the runtimes' single-precision reciprocals.
SMALLEST_SCALE = 2.0**-100


@dataclass(frozen=True)
class Affine:
    """One integer grid for a whole tensor.

    Attributes:
        scale: distance between neighbouring numbers, positive; exactly a float32.
        zero_point: the integer that stands for 0.
        low / high: the smallest and largest integer.
    """

    scale: float
    zero_point: int
    low: int
    high: int

    @property
    def dtype(self) -> str:
        """``uint8``, ``int8``, ``uint16`` or ``int16``: the smallest type of numpy that holds the integers."""
        return f"{'int' if self.low < 0 else 'uint'}{8 if self.bits <= 8 else 16}"

    @property
    def bits(self) -> int:
        """Width of the integers."""
        return (self.high - self.low).bit_length()

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and largest number that can be represented."""
        return (self.low - self.zero_point) * self.scale, (self.high - self.zero_point) * self.scale

    def quantize(self, x: Tensor) -> Tensor:
        """Integers for `x`, in its float type and shape."""
        return torch.clamp(torch.round(x / self.scale) + self.zero_point, self.low, self.high)

    def dequantize(self, q: Tensor) -> Tensor:
        """Numbers for the integers `q`."""
        return (q - self.zero_point) * self.scale


def integer_range(bits: int, signed: bool) -> tuple[int, int]:
    """The smallest and largest integer of that width."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def affine(low: float, high: float, *, bits: int = 8, signed: bool = False, symmetric: bool = False) -> Affine:
    """The grid that covers ``[low, high]``, widened so that it contains 0.

    Args:
        symmetric: put the zero point in the middle of the integers and widen the range to ``[-m, m]``; a range
            without negative numbers keeps all integers for the positive ones where they are unsigned.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    first, last = integer_range(bits, signed)
    if symmetric and (low < 0 or signed):
        middle = (first + last + 1) // 2
        scale = _float32(max(-low, high) / (last - middle))
        return Affine(scale, middle, first, last)
    scale = _float32((high - low) / (last - first))
    zero_point = min(max(round(first - low / scale), first), last)
    return Affine(scale, zero_point, first, last)


def _float32(scale: float) -> float:
    return float(torch.tensor(max(scale, SMALLEST_SCALE), dtype=torch.float32)) if scale > 0 else 1.0
