"""What changing a weight does to a layer's output, made good by the weights of the inputs still to come.

The optimal brain surgeon (Hassibi and Stork 1992) for the squared error of a layer's output, inputs taken in a fixed
order as in GPTQ (Frantar et al. 2022, https://arxiv.org/abs/2210.17323). With H = E[x x^T] + damping and the upper
Cholesky factor U of H^-1, changing w_j to w'_j moves the weights w_k of later inputs of the same output channel by

    w_k -= (w_j - w'_j) / U_jj * U_jk    for all k > j

which is the least-squares answer (equation 2 there), and adds (w_j - w'_j)^2 / U_jj^2 to the squared error.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

#: Share of the mean diagonal that is added to the diagonal; more where the matrix cannot be inverted.
_DAMPING: Final = 0.01
_ATTEMPTS: Final = 6
#: Inputs whose corrections are carried to the rest together.
BLOCK: Final = 128

#: Given the number of an input and the weights of it and of those after it in its block, as they are by now
#: (channels, inputs): what the weights of that input become, (channels,).
Settle = Callable[[int, Tensor], Tensor]


@torch.no_grad()
def made_good(weight: Tensor, factor: Tensor, settle: Settle) -> Tensor:
    """The weights after every input, in order, became what `settle` says, (channels, k).

    Args:
        weight: (channels, k), float32.
        factor: (k, k), see `inverse_factor`.
    """
    left, settled = weight.clone(), torch.empty_like(weight)
    for first in range(0, weight.shape[1], BLOCK):
        last = min(first + BLOCK, weight.shape[1])
        block, upper = left[:, first:last].clone(), factor[first:last, first:last]
        errors = torch.empty_like(block)
        for at in range(last - first):
            settled[:, first + at] = settle(first + at, block[:, at:])
            errors[:, at] = (block[:, at] - settled[:, first + at]) / upper[at, at]
            block[:, at + 1 :].addr_(errors[:, at], upper[at, at + 1 :], alpha=-1)
        left[:, last:].addmm_(errors, factor[first:last, last:], alpha=-1)
    return settled


def inverse_factor(moments: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of E[x x^T] with damping, (k, k); inputs that are always 0 count 1."""
    moments = moments.clone()
    diagonal = moments.diagonal()
    unit = float(diagonal.mean())
    if unit <= 0:
        return torch.eye(len(moments), device=moments.device)
    diagonal[diagonal == 0] = unit
    for attempt in range(_ATTEMPTS):
        diagonal += _DAMPING * unit * 10.0**attempt
        lower, failed = torch.linalg.cholesky_ex(moments)
        if not int(failed):
            found: tuple[Tensor, Tensor] = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not int(found[1]):
                return found[0]
    return torch.diag(diagonal.rsqrt())
