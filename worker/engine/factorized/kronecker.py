"""A matrix as a sum of Kronecker products.

``W = sum_t A_t (x) B_t``, with A of (o1, i1) and B of (o2, i2): rearranged so that each block of W is a row, this is a
sum of outer products, and the nearest one comes from a singular value decomposition (Van Loan and Pitsianis 1993,
https://doi.org/10.1007/978-94-015-8196-7_17). A product with a vector x, seen as a matrix X of (i1, i2), is
``sum_t A_t X B_t^T``: ``i1 i2 o2 + i1 o1 o2`` multiplications a term in place of ``i1 i2 o1 o2``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from worker.engine.factorized.replace import Replacement, Wiring, linear
from worker.engine.factorized.svd import Spectrum, low_rank, spectrum

_aten = torch.ops.aten


@dataclass(frozen=True)
class Kronecker:
    """A sum of products.

    Attributes:
        left: (terms, o1, i1).
        right: (terms, o2, i2).
        error: relative error of the matrix, 0..1.
    """

    left: Tensor
    right: Tensor
    error: float

    def matrix(self) -> Tensor:
        """The sum, (o1 o2, i1 i2)."""
        parts = [torch.kron(a, b) for a, b in zip(self.left, self.right, strict=True)]
        return torch.stack(parts).sum(0)


def rearranged(weight: Tensor, cuts: tuple[int, int]) -> Tensor:
    """Blocks as rows: (o1 i1, o2 i2) of a weight of (o1 o2, i1 i2); `cuts` are o1 and i1."""
    (outputs, inputs), (o1, i1) = weight.shape, cuts
    return weight.reshape(o1, outputs // o1, i1, inputs // i1).transpose(1, 2).reshape(o1 * i1, -1)


def values(weight: Tensor, cuts: tuple[int, int]) -> Spectrum:
    """What each term adds: its squares are those that it adds to the sum's."""
    return spectrum(rearranged(weight, cuts))


def kronecker(weight: Tensor, cuts: tuple[int, int], terms: int, known: Spectrum | None = None) -> Kronecker:
    """The nearest sum of this many products.

    Args:
        cuts: as for `rearranged`.
        known: the `values` of the weight, where they have been computed.
    """
    (outputs, inputs), (o1, i1) = weight.shape, cuts
    rows = rearranged(weight.double(), cuts)
    found = low_rank(rows, known or values(weight, cuts), min(terms, *rows.shape))
    return Kronecker(
        found.expand.mT.reshape(-1, o1, i1), found.reduce.reshape(-1, outputs // o1, inputs // i1), found.error
    )


def replacement(found: Kronecker, bias: Tensor | None, axis: int, dims: int) -> Replacement:
    """Two linear layers, and the bias.

    Args:
        axis: of the features, counted from the end of what the layer reads.
        dims: number of dimensions of that.
    """
    terms, o1, i1 = found.left.shape
    o2, i2 = found.right.shape[1:]
    parts: dict[str, nn.Module | nn.Parameter] = {
        "right": linear(found.right.reshape(terms * o2, i2)),
        "left": linear(found.left.transpose(0, 1).reshape(o1, terms * i1)),
    }
    if bias is not None:
        parts["bias"] = nn.Parameter(bias)
    order = [at for at in range(dims) if at != dims + axis]
    last = [*order, dims + axis]
    back = [last.index(at) for at in range(dims)]

    def wire(wiring: Wiring, value: fx.Node) -> fx.Node:
        if axis != -1:
            value = wiring.call(_aten.permute.default, value, last)
        value = wiring.layer("right", wiring.call(_aten.unflatten.int, value, -1, [i1, i2]))
        value = wiring.call(_aten.unflatten.int, value, -1, [terms, o2])
        value = wiring.call(_aten.transpose.int, value, -3, -1)  # (..., o2, terms, i1)
        value = wiring.layer("left", wiring.call(_aten.flatten.using_ints, value, -2, -1))
        value = wiring.call(_aten.flatten.using_ints, wiring.call(_aten.transpose.int, value, -2, -1), -2, -1)
        if bias is not None:
            value = wiring.call(_aten.add.Tensor, value, wiring.weight("bias"))
        return value if axis == -1 else wiring.call(_aten.permute.default, value, back)

    return Replacement(parts, wire, (terms, o1, i1), found.error)
