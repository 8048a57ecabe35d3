"""A matrix whose blocks are the same along each diagonal, applied with fewer products than it has blocks.

The nearest block Toeplitz matrix has the mean of each diagonal's blocks. Cut in two it is ``[[T0, T1], [T2, T0]]``, and

    y0 = T0 (x0 + x1) + (T1 - T0) x1        y1 = T0 (x0 + x1) + (T2 - T0) x0

takes three products of half the size in place of four (two-way split; Fan and Hasan 2007,
https://doi.org/10.1109/TC.2007.19). All three are Toeplitz again, so with 2^n blocks a side 3^n blocks are stored and
multiplied in place of 4^n: all by one 1x1 convolution in groups, between additions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from worker.engine.factorized.grouped import as_channels, groups_of
from worker.engine.factorized.ranks import relative
from worker.engine.factorized.replace import Replacement, Wiring

_aten = torch.ops.aten


@dataclass(frozen=True)
class Toeplitz:
    """A block Toeplitz matrix.

    Attributes:
        diagonals: (2 n - 1, p, q): the block of each diagonal, from the upper right corner to the lower left one.
        error: relative error of the matrix, 0..1.
    """

    diagonals: Tensor
    error: float

    def matrix(self) -> Tensor:
        """(n p, n q)."""
        count = (len(self.diagonals) + 1) // 2
        at = torch.arange(count)
        spread = self.diagonals[at[:, None] - at[None, :] + count - 1]  # (n, n, p, q)
        return spread.transpose(1, 2).reshape(count * spread.shape[2], -1)


def toeplitz(weight: Tensor, count: int) -> Toeplitz:
    """The nearest matrix with `count` blocks a side."""
    weight = weight.double()
    outputs, inputs = weight.shape
    parts = weight.reshape(count, outputs // count, count, inputs // count).transpose(1, 2)
    means = [parts.diagonal(-offset).mean(-1) for offset in range(1 - count, count)]
    found = Toeplitz(torch.stack(means), 0.0)
    return Toeplitz(found.diagonals, relative(weight - found.matrix(), weight))


def products(diagonals: Tensor) -> Tensor:
    """The blocks that are multiplied, (3^n, p, q), of a matrix of 2^n blocks a side."""
    count = (len(diagonals) + 1) // 2
    if count == 1:
        return diagonals
    half = count // 2
    upper, middle, lower = (diagonals[start : start + 2 * half - 1] for start in (0, half, count))
    return torch.cat([products(part) for part in (middle, upper - middle, lower - middle)])


def replacement(found: Toeplitz, bias: Tensor | None, axis: int, dims: int) -> Replacement:
    """One 1x1 convolution in groups between additions; `axis` and `dims` as for `grouped.as_channels`."""
    blocks = products(found.diagonals)
    count = (len(found.diagonals) + 1) // 2
    halvings = count.bit_length() - 1
    size, own = blocks.shape[1], blocks.shape[2]
    spread = None if bias is None else _spread(bias.reshape(count, size)).reshape(-1)
    parts: dict[str, nn.Module | nn.Parameter] = {"products": groups_of(blocks, dims, spread)}

    def wire(wiring: Wiring, value: fx.Node) -> fx.Node:
        def inner(channels: fx.Node) -> fx.Node:
            for level in range(halvings):
                sizes = [3**level, 2, own << (halvings - level - 1)]
                one, two = _parts(wiring, channels, sizes)
                both = wiring.call(_aten.add.Tensor, one, two)
                channels = _joined(wiring, [both, two, one])
            channels = wiring.layer("products", channels)
            for level in reversed(range(halvings)):
                sizes = [3**level, 3, size << (halvings - level - 1)]
                both, one, two = _parts(wiring, channels, sizes)
                sums = [wiring.call(_aten.add.Tensor, both, each) for each in (one, two)]
                channels = _joined(wiring, sums)
            return channels

        return as_channels(wiring, value, axis, dims, inner)

    return Replacement(parts, wire, (count, len(blocks)), found.error)


def _spread(bias: Tensor) -> Tensor:
    """Biases of the products that add up to those of the output blocks, (3^n, p) of (2^n, p)."""
    if len(bias) == 1:
        return bias
    upper, lower = bias.chunk(2)
    return torch.cat([torch.zeros_like(_spread(upper)), _spread(upper), _spread(lower)])


def _parts(wiring: Wiring, value: fx.Node, sizes: list[int]) -> list[fx.Node]:
    """The channels seen as these sizes: one value for each index of the second."""
    split = wiring.call(_aten.unflatten.int, value, 1, sizes)
    return [wiring.call(_aten.select.int, split, 2, index) for index in range(sizes[1])]


def _joined(wiring: Wiring, values: list[fx.Node]) -> fx.Node:
    """The other way around."""
    return wiring.call(_aten.flatten.using_ints, wiring.call(_aten.stack.default, values, 2), 1, 3)
