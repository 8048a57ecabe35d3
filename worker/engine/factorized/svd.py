"""A matrix as the product of two thin ones.

Of all matrices of rank r, ``W' = U U^T W`` with U the first r left singular vectors is nearest to W (Eckart and Young
1936). What matters is the output: with C the covariance of the inputs x and C = S S^T (Cholesky), the relative error
``E|W' x + b' - W x - b|^2 / E|W x - E W x|^2`` is least where U holds the left singular vectors of ``W S``
(DRONE, Chen et al. 2021; SVD-LLM, Wang et al. 2024, https://arxiv.org/abs/2403.07378, section 3.1). SVD-LLM writes the
answer as ``U diag(s) V^T S^-1``; that is ``U U^T W``, without the inverse of a matrix that is often singular. Here C
is centred, not ``E[x x^T]``: the mean goes through unharmed, by ``b' = b + (W - W') E[x]``, which lowers the error.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from worker.engine.factorized.moments import Moments

#: Share of the mean diagonal that is added where a covariance has no Cholesky factor; tenfold on each attempt.
_DAMPING: Final = 1e-12
_ATTEMPTS: Final = 12


@dataclass(frozen=True)
class Spectrum:
    """Of a weight, or of the outputs that it makes.

    Attributes:
        left: left singular vectors, (outputs, n), float64, n the smaller side.
        squares: of the singular values, (n,), falling.
    """

    left: Tensor
    squares: Tensor


@dataclass(frozen=True)
class LowRank:
    """``W x`` as ``expand (reduce x) + shift``.

    Attributes:
        reduce: (rank, inputs).
        expand: (outputs, rank).
        shift: (outputs,): what the mean of the inputs would lose; None where nothing is known of inputs.
        error: relative error of the output around its mean, or of the weight; 0..1.
    """

    reduce: Tensor
    expand: Tensor
    shift: Tensor | None
    error: float


def spectrum(weight: Tensor, moments: Moments | None = None) -> Spectrum:
    """Singular vectors of a weight, (outputs, inputs), or of it times the Cholesky factor of its inputs' covariance.

    The weight's own where the covariance is not known. From the eigenvectors of the smaller Gram matrix, in double
    precision: values above 1e-8 of the largest are right.
    """
    weight = weight.double()
    outputs, inputs = weight.shape
    covariance = None if moments is None else moments.covariance
    if outputs <= inputs:
        covered = weight if covariance is None else weight @ covariance
        squares, vectors = torch.linalg.eigh(covered @ weight.mT)
        return Spectrum(vectors.flip(1), squares.flip(0).clamp(min=0))
    whitened = weight if covariance is None else weight @ factor(covariance)
    squares, right = torch.linalg.eigh(whitened.mT @ whitened)
    # Orthonormal also where singular values vanish, which dividing by them would not be.
    return Spectrum(torch.linalg.qr(whitened @ right.flip(1)).Q, squares.flip(0).clamp(min=0))


def factor(covariance: Tensor) -> Tensor:
    """The lower Cholesky factor, (inputs, inputs); of a nearby matrix where that of a singular one fails."""
    unit = float(covariance.diagonal().mean())
    if unit <= 0:
        return torch.zeros_like(covariance)
    damped = covariance.clone()
    for attempt in range(_ATTEMPTS):
        found: tuple[Tensor, Tensor] = torch.linalg.cholesky_ex(damped)
        if not int(found[1]):
            return found[0]
        damped.diagonal().add_(_DAMPING * unit * 10.0**attempt)
    return torch.diag(covariance.diagonal().clamp(min=0).sqrt())


def low_rank(weight: Tensor, found: Spectrum, rank: int, moments: Moments | None = None) -> LowRank:
    """The nearest matrix of this rank, in two factors whose inner values are of like size.

    Args:
        weight: (outputs, inputs).
        found: its spectrum, with the same `moments`.
        rank: at least 1.
    """
    weight = weight.double()
    left = found.left[:, :rank]
    reduce = left.mT @ weight
    lost = weight - left @ reduce
    total = float(found.squares.sum())
    covariance = None if moments is None else moments.covariance
    rest = lost.square().sum() if covariance is None else ((lost @ covariance) * lost).sum()
    error = (max(float(rest), 0.0) / total) ** 0.5 if total > 0 else 0.0
    # Of all outputs that such a weight can make of such inputs: what it does not tell apart needs no other size.
    most = float(weight.square().sum()) * (1.0 if covariance is None else float(covariance.trace()))
    scale = found.squares[:rank].clamp(min=1e-12 * most).pow(0.25) if most > 0 else torch.ones(rank).to(left)
    shift = None if moments is None else lost @ moments.mean
    return LowRank(reduce / scale[:, None], left * scale, shift, error)
