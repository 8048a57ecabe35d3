"""Tensors of labels: the shape of a value, in as little memory as its labels differ.

Dimensions along which the labels are the same have stride 0, so what is computed on `essential` costs next to nothing
however large the value is.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from worker.engine.structure.ties import Ties


def blank(shape: Sequence[int]) -> Tensor:
    """Nobody's channels."""
    return torch.zeros([1] * len(shape), dtype=torch.int64).expand(tuple(shape))


def essential(labels: Tensor) -> Tensor:
    """The same with size 1 in place of each dimension along which all is equal; empty ones stay."""
    for dim, (size, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True)):
        if size > 1 and stride == 0:
            labels = labels.narrow(dim, 0, 1)
    return labels


def compact(labels: Tensor) -> Tensor:
    """The same labels, with stride 0 along every dimension along which they are equal."""
    shape, found = labels.shape, essential(labels)
    for dim in range(found.dim()):
        if found.shape[dim] > 1 and bool((found == found.narrow(dim, 0, 1)).all()):
            found = found.narrow(dim, 0, 1)
    return found.clone().expand(shape)


def empty(labels: Tensor) -> bool:
    """Whether there is no label in it."""
    return not bool(essential(labels).any())


def varying(ties: Ties, labels: Tensor) -> tuple[int, ...]:
    """The dimensions along which classes of labels differ."""
    found = ties.resolved(essential(labels))
    return tuple(
        dim for dim in range(found.dim()) if found.shape[dim] > 1 and bool((found != found.narrow(dim, 0, 1)).any())
    )


def along(labels: Tensor, dim: int) -> Tensor:
    """The labels at index 0 of all dimensions but `dim`, (size,)."""
    for other in range(labels.dim()):
        if other != dim % labels.dim():
            labels = labels.narrow(other, 0, 1)
    return labels.reshape(-1)


def tie_along(ties: Ties, labels: Tensor, dims: Iterable[int], reason: str) -> None:
    """Tie what differs along `dims`."""
    found = first = essential(labels)
    for dim in dims:
        first = first.narrow(dim, 0, 1)
    ties.tie(found, first, reason)


def settle(ties: Ties, labels: Tensor, dims: Iterable[int], reason: str) -> None:
    """See to it that labels do not differ along `dims`: tied where they differ along others too, else frozen."""
    wanted = {dim % labels.dim() for dim in dims} if labels.dim() else set()
    differ = set(varying(ties, labels))
    if differ & wanted and differ - wanted:
        tie_along(ties, labels, sorted(differ & wanted), reason)
    elif differ & wanted:
        ties.freeze(essential(labels), reason)


def channels(ties: Ties, labels: Tensor, dim: int, reason: str) -> Tensor:
    """The labels along `dim`, (size,), which do not differ along the others from here on."""
    dim = dim % labels.dim()
    settle(ties, labels, [other for other in range(labels.dim()) if other != dim], reason)
    return along(labels, dim)


def combine(ties: Ties, operands: Sequence[Tensor], shape: Sequence[int], reason: str) -> Tensor:
    """The labels of a value that is computed element by element from `operands`, broadcast to `shape`.

    Labels that meet are tied. An operand may be one and the same along a dimension in which another's labels differ. A
    gate over space has nothing to follow then: its own labels are frozen. Where the other's labels differ along a
    shared dimension too, as those of heads and what is in them, whole heads are tied: a gate per head follows them,
    positions that all heads share are frozen.
    """
    aligned = [essential(o[(None,) * (len(shape) - o.dim()) + (...,)]) for o in operands]
    sizes = [(1,) * (len(shape) - o.dim()) + tuple(o.shape) for o in operands]
    differ = [set(varying(ties, labels)) for labels in aligned]
    met: list[Tensor] = []
    for index, (labels, size) in enumerate(zip(aligned, sizes, strict=True)):
        alive = bool(ties.resolved(labels).any())
        stretched = {dim for dim in range(len(shape)) if size[dim] == 1 and shape[dim] > 1}
        follows = alive
        for other, others in enumerate(differ):
            if other == index or not others:
                continue
            shared, lost = others - stretched, others & stretched
            if lost and shared and alive and len(shape) - 1 not in shared:
                tie_along(ties, aligned[other], sorted(lost), reason)
            elif lost and shared:
                tie_along(ties, aligned[other], sorted(shared), reason)
            elif shared and not alive:
                _held(ties, aligned[other], labels, reason)
            follows = follows and not (lost and (not shared or len(shape) - 1 in shared))
        if alive and not follows:
            ties.freeze(labels, reason)
        if follows:
            met.append(labels)
    found = torch.zeros([1] * len(shape), dtype=torch.int64)
    for labels in met:
        ties.tie(labels, met[0], reason)
        found = torch.where(ties.resolved(found) == 0, labels, found)
    if not met:  # what is frozen keeps its label, and with it the reason
        found = next((labels for labels in aligned if bool(labels.any())), found)
    return compact(found.expand(tuple(shape)))


def _held(ties: Ties, labels: Tensor, by: Tensor, reason: str) -> None:
    """Labels meet values that cannot be removed along all dimensions that they differ along."""
    if bool(by.any()):
        ties.tie(labels, by, reason)
    ties.freeze(labels, reason)


def multiply(ties: Ties, one: Tensor, other: Tensor, shape: Sequence[int], reason: str) -> Tensor:
    """The labels of a matrix product, (..., i, k) x (..., k, j) -> (..., i, j).

    What is summed over is tied pairwise and gone afterwards. Where labels differ over batches too, as those of heads
    do, all of a batch are tied: it is heads that can be removed.
    """
    rank = len(shape)
    one, other = (value[(None,) * (rank - value.dim()) + (...,)] for value in (one, other))
    differ = varying(ties, one), varying(ties, other)
    if rank - 1 in differ[0] or rank - 2 in differ[1]:
        ties.tie(essential(one).unsqueeze(-1), essential(other).unsqueeze(-3), reason)
        if any(dim < rank - 2 for dim in (*differ[0], *differ[1])):
            tie_along(ties, one, [rank - 1], reason)
            tie_along(ties, other, [rank - 2], reason)
    left = _without(ties, one, rank - 1)
    right = _without(ties, other, rank - 2)
    return combine(ties, [left, right], shape, reason)


def _without(ties: Ties, labels: Tensor, dim: int) -> Tensor:
    """With size 1 along `dim`; nobody's where labels still differ there."""
    short = labels.narrow(dim, 0, 1)
    return blank(short.shape) if dim in varying(ties, labels) else short
