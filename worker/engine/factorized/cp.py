"""A convolution's kernel as a sum of outer products of vectors, one per axis (CP).

``W[o, i, y, x] = sum_r a_r[o] b_r[i] c_r[y] d_r[x]`` (Lebedev et al. 2015, https://arxiv.org/abs/1412.6553, equation
2): a 1x1 convolution to r channels, a depthwise one along each axis, a 1x1 convolution to the outputs. The best sum of
a rank need not exist: alternating least squares, by tensorly, may follow components that grow without bound and cancel
each other. So there are several starts, and a result is refused where its components are far larger than what they add
up to (Phan et al. 2020, https://arxiv.org/abs/2008.05441), or where it still moves at the end.
"""

import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from tensorly.cp_tensor import cp_to_tensor
from tensorly.decomposition import parafac
from torch import Tensor

from worker.engine.factorized.ranks import relative

#: Change of the relative error in one round: below it ALS ends, and above the second it has not come to rest.
_SETTLED: Final = 1e-6
_MOVING: Final = 5e-3
#: Squares of the components over those of their sum.
_CANCELLING: Final = 1e2


@dataclass(frozen=True)
class Cp:
    """The factors of a kernel.

    Attributes:
        factors: one for each axis, (size, ranks).
        error: relative error of the kernel, 0..1.
    """

    factors: tuple[Tensor, ...]
    error: float


def weights(shape: tuple[int, ...], rank: int) -> int:
    """How many weights the factors have together."""
    return rank * sum(shape)


def cp(kernel: Tensor, rank: int, *, seed: int, restarts: int, iterations: int) -> Cp | None:
    """The best of several starts; None where all of them diverge or still move at the end.

    Args:
        kernel: of any number of axes.
        restarts: the first start is from singular vectors, the others from random numbers.
        iterations: rounds of least squares for each start, at most.
    """
    array = kernel.double().cpu().numpy()
    size = float(np.linalg.norm(array))
    if size == 0:
        return Cp(tuple(torch.zeros(axis, rank, dtype=torch.float64) for axis in kernel.shape), 0.0)
    found = [
        _start(array / size, rank, "svd" if attempt == 0 else "random", seed + attempt, iterations)
        for attempt in range(restarts)
    ]
    good = [each for each in found if each is not None]
    if not good:
        return None
    best = min(good, key=lambda each: each.error)
    return Cp((best.factors[0] * size, *best.factors[1:]), best.error)


def _start(array: np.ndarray, rank: int, init: str, seed: int, iterations: int) -> Cp | None:
    """One run of alternating least squares on a tensor of norm 1."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of more components than an axis has singular vectors
            result, errors = parafac(
                array, rank, n_iter_max=iterations, init=init, tol=_SETTLED, random_state=seed,
                normalize_factors=True, return_errors=True,
            )  # fmt: skip
    except np.linalg.LinAlgError:
        return None
    sizes, factors = result
    parts = [torch.from_numpy(np.ascontiguousarray(factor)) for factor in factors]
    whole = torch.from_numpy(np.ascontiguousarray(cp_to_tensor(result)))
    error = relative(torch.from_numpy(array) - whole, torch.from_numpy(array))
    moving = len(errors) < 2 or abs(float(errors[-2]) - float(errors[-1])) > _MOVING
    if not np.isfinite(error) or error >= 1 or moving or float(np.sum(np.square(sizes))) > _CANCELLING:
        return None
    return Cp((parts[0] * torch.from_numpy(np.asarray(sizes)), *parts[1:]), error)


def smallest(
    kernel: Tensor, most_error: float, most_rank: int, *, seed: int, restarts: int, iterations: int
) -> Cp | None:
    """The factors of the smallest rank that is found to keep an error; None where `most_rank` does not.

    By bisection: the error of what ALS finds falls with the rank, nearly always.
    """

    def tried(rank: int) -> Cp | None:
        found = cp(kernel, rank, seed=seed, restarts=restarts, iterations=iterations)
        return found if found is not None and found.error <= most_error else None

    best = tried(most_rank)
    low, high = 0, most_rank
    while best is not None and high - low > max(1, high // 16):
        middle = (low + high) // 2
        found = tried(middle)
        if found is None:
            low = middle
        else:
            best, high = found, middle
    return best
