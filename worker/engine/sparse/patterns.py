"""Which weights go, told from their scores: the lowest of a layer, of all layers, of each row, two of every four.

Shares are met exactly: of n weights, ``round(share * n)`` go; among equal scores the first ones do. A mask is True
where a weight goes.
"""

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

#: Neighbouring inputs that sparse tensor cores take together, and how many of them may be other than zero.
FOUR: Final = 4
_KEPT: Final = 2


def lowest(scores: Tensor, count: int) -> Tensor:
    """The mask of the `count` lowest `scores`, of any shape."""
    flat = scores.reshape(-1)
    if count <= 0 or count >= flat.numel():
        return torch.full_like(scores, count > 0, dtype=torch.bool)
    bound = flat.kthvalue(count).values
    removed = flat < bound
    ties = (flat == bound).nonzero().reshape(-1)
    removed[ties[: count - int(removed.sum())]] = True
    return removed.reshape(scores.shape)


def lowest_share(scores: Tensor, share: float) -> Tensor:
    """The mask of that share of `scores`, of any shape."""
    return lowest(scores, round(share * scores.numel()))


def lowest_across(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Name -> mask of the lowest of all scores together."""
    flat = torch.cat([value.reshape(-1) for value in scores.values()])
    parts = torch.split(lowest_share(flat, share), [value.numel() for value in scores.values()])
    return {name: part.reshape(value.shape) for (name, value), part in zip(scores.items(), parts, strict=True)}


def lowest_in_rows(scores: Tensor, share: float) -> Tensor:
    """The mask of the lowest of each row.

    Rows lose as many each; where the share is no whole number of them, rows whose next score is lowest lose one more.

    Args:
        scores: (rows, ...).
    """
    rows = scores.reshape(len(scores), -1)
    each = math.floor(share * rows.shape[1])
    order = torch.argsort(rows, dim=1, stable=True)
    ranks = torch.empty_like(order).scatter_(
        1, order, torch.arange(rows.shape[1], device=rows.device).expand_as(order).contiguous()
    )
    next_ones = rows.gather(1, order[:, each : each + 1])
    more = lowest(next_ones, round(share * rows.numel()) - each * len(rows))
    return (ranks < each + more.int()).reshape(scores.shape)


def fits_fours(weight: Tensor) -> bool:
    """Whether the inputs of a weight (outputs, inputs, ...) fall into fours."""
    return weight.dim() > 1 and weight.shape[1] % FOUR == 0


def lowest_of_four(scores: Tensor, share: float = 0.5) -> Tensor:
    """The mask of two of every four neighbouring inputs.

    Neighbours lie along dimension 1: the inputs of a linear layer, the channels of a convolution at one tap, as the
    kernels have them, which read (outputs, taps, channels).

    Args:
        scores: (outputs, inputs, ...), see `fits_fours`.
        share: of all scores; less than a half: only the lowest of those that would go, on the way there.
    """
    inputs_last = scores.movedim(1, -1)
    fours = inputs_last.reshape(*inputs_last.shape[:-1], -1, FOUR)
    going = torch.argsort(fours, dim=-1, stable=True)[..., :_KEPT]
    mask = torch.zeros_like(fours, dtype=torch.bool).scatter_(-1, going, True)
    if share < 0.5:
        mask = lowest(fours.masked_fill(~mask, math.inf), round(share * scores.numel()))
    return mask.reshape(inputs_last.shape).movedim(-1, 1)


def follows_fours(weight: Tensor) -> bool:
    """Whether of every four neighbouring inputs two or more are zero."""
    fours = (weight.movedim(1, -1) == 0).reshape(-1, FOUR)
    return bool((fours.sum(1) >= FOUR - _KEPT).all())
