"""A convolution's kernel as a small kernel between two matrices: Tucker-2 over the channels.

``W[o, i, ...] = sum_{s, t} B[o, s] K[s, t, ...] A[t, i]`` (Kim et al. 2016, https://arxiv.org/abs/1511.06530, equation
2): a 1x1 convolution from the input channels to fewer, the small convolution, a 1x1 convolution to the output channels.
A and B start as singular vectors of the two unfoldings of W and are improved in turns (HOOI), by tensorly. The squares
that they leave out are at most the sum of those that either side leaves out alone (De Lathauwer et al. 2000, property
10), so half of what may be lost goes to each side.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from worker.engine.factorized.ranks import RankRule, kept, relative
from worker.engine.factorized.vbmf import noise_rank

#: Rounds of HOOI, at most, and the change of the error at which it ends.
_ROUNDS: Final = 10
_SETTLED: Final = 1e-5


@dataclass(frozen=True)
class Tucker:
    """The factors of a kernel.

    Attributes:
        reduce: (t, inputs).
        core: (s, t, sizes...).
        expand: (outputs, s).
        error: relative error of the kernel, 0..1.
    """

    reduce: Tensor
    core: Tensor
    expand: Tensor
    error: float


def unfolded(kernel: Tensor, axis: int) -> Tensor:
    """(size of `axis`, everything else)."""
    return kernel.movedim(axis, 0).flatten(1)


def squares(kernel: Tensor, axis: int) -> Tensor:
    """Squares of the singular values of the unfolding along `axis`, falling."""
    matrix = unfolded(kernel.double(), axis)
    found: Tensor = torch.linalg.eigvalsh(matrix @ matrix.mT).flip(0).clamp(min=0)
    return found


def noise_ranks(kernel: Tensor) -> tuple[int, int]:
    """Ranks of the unfoldings along the input and output channels that stand above noise; 0: nothing does."""
    first, second = (noise_rank(unfolded(kernel.double(), axis).cpu().numpy()) for axis in (1, 0))
    return first, second


def chosen_ranks(kernel: Tensor, rule: RankRule) -> tuple[int, int]:
    """Ranks along input and output channels, by what may be lost, a share of the weights, or the noise."""
    if rule.lost is not None:
        first, second = (kept(squares(kernel, axis), rule.lost / 2) for axis in (1, 0))
        return first, second
    if rule.ratio is None:
        return noise_ranks(kernel)
    share = even_share(kernel.shape, rule.ratio)
    return max(1, round(share * kernel.shape[1])), max(1, round(share * kernel.shape[0]))


def even_share(shape: Sequence[int], ratio: float) -> float:
    """The share b of both kinds of channels at which the factors have `ratio` of the kernel's weights.

    ``b^2 k c d + b (c^2 + d^2) = ratio k c d`` with c and d channels and kernels of k positions.
    """
    outputs, inputs = shape[:2]
    size = float(np.prod(shape))
    linear = float(outputs**2 + inputs**2)
    return (math.sqrt(linear**2 + 4 * size * ratio * size) - linear) / (2 * size)


def weights(shape: Sequence[int], ranks: tuple[int, int]) -> int:
    """How many weights the factors have together; a rank of all channels needs no matrix."""
    (outputs, inputs, *sizes), (t, s) = shape, ranks
    core = s * t * int(np.prod(sizes))
    return core + (t * inputs if t < inputs else 0) + (outputs * s if s < outputs else 0)


def tucker(kernel: Tensor, ranks: tuple[int, int]) -> Tucker:
    """The factors of a kernel at these ranks.

    Args:
        kernel: (outputs, inputs, sizes...).
        ranks: of the input and the output channels, from 1 to their number.
    """
    array = kernel.double().cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of complex numbers and of rounds that were not enough
        from tensorly.decomposition import partial_tucker  # noqa: PLC0415 (a second of every job's start)

        (core, factors), _ = partial_tucker(
            array, rank=[ranks[1], ranks[0]], modes=[0, 1], n_iter_max=_ROUNDS, tol=_SETTLED, init="svd"
        )
    expand, reduce = (torch.from_numpy(np.ascontiguousarray(factor)) for factor in factors)
    small = torch.from_numpy(np.ascontiguousarray(core))
    found = torch.einsum("os,st...,it->oi...", expand, small, reduce)
    error = relative(torch.from_numpy(array) - found, torch.from_numpy(array))
    return Tucker(reduce.mT.contiguous(), small, expand, error)
