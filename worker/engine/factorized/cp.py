"""A convolution's kernel as a sum of outer products of vectors, one per axis (CP).

``W[o, i, y, x] = sum_r a_r[o] b_r[i] c_r[y] d_r[x]`` (Lebedev et al. 2015, https://arxiv.org/abs/1412.6553, equation
2): a 1x1 convolution to r channels, a depthwise one along each axis, a 1x1 convolution to the outputs. A sum of r terms
lives in r dimensions of each axis, so the kernel is first cut to as many singular vectors of each unfolding (Bro and
Andersson 1998, https://doi.org/10.1016/S0169-7439(98)00011-2), and alternating least squares see that small core.

The best sum of a rank need not exist: they may follow components that grow without bound and cancel each other. So a
result is refused where its components are far larger than what they add up to (Phan et al. 2020,
https://arxiv.org/abs/2008.05441), or where it still moves at the end, and another start is tried.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

import torch
from torch import Tensor

from worker.engine.factorized.ranks import kept, relative

#: Change of the relative error in one round: below it ALS ends, and above the second it has not come to rest.
_SETTLED: Final = 1e-6
_MOVING: Final = 5e-3
#: Squares of the components over those of their sum.
_CANCELLING: Final = 1e2
#: Multiply-accumulates for one kernel, at most: some minutes on one core.
_MOST_WORK: Final = 2e12
#: Random numbers beside singular vectors, which alone may be a saddle point.
_ASIDE: Final = 0.1
#: Share of the mean diagonal that is added to normal equations, so that equal components have a solution.
_DAMPING: Final = 1e-12


class TooLong(Exception):
    """It would take more than `_MOST_WORK`."""


@dataclass(frozen=True)
class Cp:
    """The factors of a kernel.

    Attributes:
        factors: one for each axis, (size, ranks).
        error: relative error of the kernel, 0..1.
    """

    factors: tuple[Tensor, ...]
    error: float


@dataclass(frozen=True)
class Als:
    """How least squares run.

    Attributes:
        seed: of the random numbers.
        restarts: starts, at most; the first whose result stands counts. The first is from singular vectors.
        iterations: rounds for each start, at most.
        progress: called with 0..1.
    """

    seed: int
    restarts: int
    iterations: int
    progress: Callable[[float], None] = lambda fraction: None


def weights(shape: tuple[int, ...], rank: int) -> int:
    """How many weights the factors have together."""
    return rank * sum(shape)


def work(shape: Sequence[int], rank: int, als: Als) -> float:
    """Multiply-accumulates of one start, at most: products with the core, and normal equations, for each axis."""
    core = math.prod(min(size, rank) for size in shape)
    return float(als.iterations * len(shape) * (core * rank + rank**3 / 3))


def cp(kernel: Tensor, rank: int, als: Als) -> Cp | None:
    """The first start that stands; None where all of them diverge or still move at the end.

    Args:
        kernel: of any number of axes.
    Raises:
        TooLong: one start would take too much work.
    """
    kernel = kernel.double()
    size = float(kernel.norm())
    if size == 0:
        return Cp(tuple(kernel.new_zeros(axis, rank) for axis in kernel.shape), 0.0)
    if work(kernel.shape, rank, als) > _MOST_WORK:
        raise TooLong
    core, bases = _core(kernel / size, rank)
    for attempt in range(als.restarts):
        found = _start(core, _begun(core, rank, als.seed + attempt, random=attempt > 0), als)
        if found is None:
            continue
        factors = [basis @ factor for basis, factor in zip(bases, found, strict=True)]
        error = relative(kernel / size - _whole(factors), kernel / size)
        if error < 1:
            return Cp((factors[0] * size, *factors[1:]), error)
    return None


def _core(kernel: Tensor, rank: int) -> tuple[Tensor, list[Tensor]]:
    """The kernel in the first `rank` singular vectors of each unfolding, and these, (size, at most `rank`)."""
    bases = []
    for axis in range(kernel.dim()):
        rows = kernel.movedim(axis, 0).flatten(1)
        bases.append(torch.linalg.eigh(rows @ rows.mT)[1].flip(1)[:, :rank])
    core = kernel
    for axis, basis in enumerate(bases):
        core = torch.tensordot(core, basis, ([axis], [0])).movedim(-1, axis)
    return core, bases


def _begun(core: Tensor, rank: int, seed: int, *, random: bool) -> list[Tensor]:
    """Factors to start with: the core's axes are singular vectors already, so theirs is the identity."""
    numbers = torch.Generator().manual_seed(seed)
    begun = [torch.randn(size, rank, generator=numbers, dtype=core.dtype).to(core.device) for size in core.shape]
    if not random:
        for factor in begun:
            count = min(factor.shape)
            factor[:, :count] = torch.eye(len(factor), count).to(factor) + _ASIDE * factor[:, :count]
    return [factor / factor.norm(dim=0) for factor in begun]


def _start(core: Tensor, factors: list[Tensor], als: Als) -> list[Tensor] | None:
    """One run of alternating least squares on a tensor of norm 1, at most; None where its result does not stand."""
    whole, errors, sizes = float(core.square().sum()), [math.inf], factors[0].new_zeros(0)
    for number in range(als.iterations):
        for axis in range(core.dim()):
            others = [factor for at, factor in enumerate(factors) if at != axis]
            products = _products(core, factors, axis)
            gram = reduce(torch.mul, [factor.mT @ factor for factor in others])
            gram = gram + _DAMPING * torch.eye(len(gram)).to(gram) * gram.diagonal().mean()
            solved = torch.linalg.solve_ex(gram, products.mT).result.mT
            sizes = solved.norm(dim=0)
            factors[axis] = solved / sizes.clamp(min=1e-150)
        # |core - sum|^2, where the last axis is the least-squares one: what it takes away is its product with the core.
        errors.append(math.sqrt(max(0.0, whole - float((products * solved).sum()))))
        als.progress((number + 1) / als.iterations)
        if not math.isfinite(errors[-1]) or abs(errors[-2] - errors[-1]) < _SETTLED:
            break
    moving = not abs(errors[-2] - errors[-1]) <= _MOVING
    if moving or not bool(sizes.isfinite().all()) or float(sizes.square().sum()) > _CANCELLING:
        return None
    return [*factors[:-1], factors[-1] * sizes]


def _products(core: Tensor, factors: list[Tensor], axis: int) -> Tensor:
    """The unfolding along `axis` times the columnwise Kronecker product of the other factors, (size, ranks).

    The largest axis goes first: what it leaves is small.
    """
    order = sorted((at for at in range(core.dim()) if at != axis), key=lambda at: -core.shape[at])
    left = [at for at in range(core.dim()) if at != order[0]]
    found: Tensor = torch.tensordot(core, factors[order[0]], ([order[0]], [0]))  # (the axes left..., ranks)
    for at in order[1:]:
        place = left.index(at)
        shape = [1] * found.dim()
        shape[place], shape[-1] = factors[at].shape
        found = (found * factors[at].reshape(shape)).sum(place)
        left.remove(at)
    return found


def _whole(factors: Sequence[Tensor]) -> Tensor:
    """The sum of outer products."""
    *first, last = factors
    rows = reduce(lambda left, right: (left[:, None] * right).flatten(0, 1), first)  # (sizes..., ranks)
    return (rows @ last.mT).reshape([len(factor) for factor in factors])


def smallest(kernel: Tensor, most_error: float, most_rank: int, als: Als) -> Cp | None:
    """The factors of the smallest rank that is found to keep an error; None where `most_rank` does not.

    No sum keeps it with fewer terms than the unfolding along any axis needs. From there the rank grows by half, and is
    bisected once it is enough: the error of what ALS finds falls with the rank, nearly always.

    Raises:
        TooLong: before a rank is found.
    """
    unfolded = [kernel.double().movedim(axis, 0).flatten(1) for axis in range(kernel.dim())]
    squares = [torch.linalg.eigvalsh(rows @ rows.mT).flip(0).clamp(min=0) for rows in unfolded]
    low = max(kept(each, most_error**2) for each in squares) - 1  # the largest rank that is known to be too small
    best, high, rank, spent, tries = None, most_rank + 1, low + 1, 0.0, 0
    while low + 1 < high if best is None else high - low > max(1, high // 16):
        spent += work(kernel.shape, rank, als)
        if spent > _MOST_WORK:
            if best is None:
                raise TooLong
            return best
        part = Als(als.seed, als.restarts, als.iterations, lambda f, n=tries: als.progress(1 - 0.5 ** (n + f)))  # type: ignore[misc]
        found = cp(kernel, rank, part)
        tries += 1
        if found is not None and found.error <= most_error:
            best, high = found, rank
        else:
            low = rank
        rank = (low + high) // 2 if best is not None else min(rank + max(1, rank // 2), most_rank)
    return best
