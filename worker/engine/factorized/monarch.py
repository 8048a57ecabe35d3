"""A matrix as two block-diagonal ones with a permutation between and behind them.

``W[(l, j), (k, i)] = sum_r L[j, l, k, r] R[k, j, r, i]`` (Dao et al. 2022, https://arxiv.org/abs/2204.00595, section
3.1, there square and of rank 1): input block k is mapped to one value (or r) for every output block j, and output block
j reads one from every input block. With k and j fixed this is a block of rank r, so the nearest one comes from a
singular value decomposition of each block (theorem 1). Sides need not be equal: ``r (J inputs + K outputs)`` weights
and products in place of ``inputs outputs``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from worker.engine.factorized.grouped import as_channels, groups_of
from worker.engine.factorized.ranks import relative
from worker.engine.factorized.replace import Replacement, Wiring

_aten = torch.ops.aten


@dataclass(frozen=True)
class Monarch:
    """The two block-diagonal factors, of rank r.

    Attributes:
        first: (K, J, r, I): of each input block what every output block reads.
        second: (J, L, K, r).
        error: relative error of the matrix, 0..1.
    """

    first: Tensor
    second: Tensor
    error: float

    def matrix(self) -> Tensor:
        """(L J, K I)."""
        dense = torch.einsum("jlkr,kjri->ljki", self.second, self.first)
        return dense.reshape(dense.shape[0] * dense.shape[1], -1)


def blocks(weight: Tensor, cuts: tuple[int, int]) -> Tensor:
    """The blocks of (L J, K I) that are of low rank, (K, J, L, I); `cuts` are J and K."""
    (outputs, inputs), (j, k) = weight.shape, cuts
    return weight.reshape(outputs // j, j, k, inputs // k).permute(2, 1, 0, 3)


def squares(weight: Tensor, cuts: tuple[int, int]) -> Tensor:
    """What each rank adds to the squares, over all blocks, falling."""
    values: Tensor = torch.linalg.svdvals(blocks(weight.double(), cuts))
    return values.square().sum((0, 1))


def monarch(weight: Tensor, cuts: tuple[int, int], rank: int) -> Monarch:
    """The nearest matrix; `cuts` as for `blocks`."""
    weight = weight.double()
    left, values, right = torch.linalg.svd(blocks(weight, cuts), full_matrices=False)
    root = values[..., :rank].sqrt()
    second = (left[..., :rank] * root[..., None, :]).permute(1, 2, 0, 3)  # (K, J, L, r) -> (J, L, K, r)
    found = Monarch(right[..., :rank, :] * root[..., None], second, 0.0)
    return Monarch(found.first, found.second, relative(weight - found.matrix(), weight))


def replacement(found: Monarch, bias: Tensor | None, axis: int, dims: int) -> Replacement:
    """Two 1x1 convolutions in groups; `axis` and `dims` as for `grouped.as_channels`."""
    k, j, rank, _ = found.first.shape
    size = found.second.shape[1]
    # Behind the second, channels are (j, l); the layer's are (l, j).
    own = None if bias is None else bias.reshape(size, j).mT.reshape(-1)
    parts: dict[str, nn.Module | nn.Parameter] = {
        "first": groups_of(found.first.flatten(1, 2), dims),
        "second": groups_of(found.second.flatten(2, 3), dims, own),
    }

    def wire(wiring: Wiring, value: fx.Node) -> fx.Node:
        def inner(channels: fx.Node) -> fx.Node:
            mixed = _swapped(wiring, wiring.layer("first", channels), [k, j, rank])
            return _swapped(wiring, wiring.layer("second", mixed), [j, size])

        return as_channels(wiring, value, axis, dims, inner)

    return Replacement(parts, wire, (rank, j, k), found.error)


def _swapped(wiring: Wiring, value: fx.Node, sizes: list[int]) -> fx.Node:
    """The channels, seen as these sizes, with the first two of them changed places."""
    value = wiring.call(_aten.transpose.int, wiring.call(_aten.unflatten.int, value, 1, sizes), 1, 2)
    return wiring.call(_aten.flatten.using_ints, value, 1, len(sizes))
