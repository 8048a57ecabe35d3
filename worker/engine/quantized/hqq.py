"""HQQ, half-quadratic quantization (Badri and Shaji 2023, https://mobiusml.github.io/hqq_blog/): zero points that make
many errors small and let a few be large, found without data.

With the scale s held, ``min_{z, e} ||e||_p^p + beta/2 ||w - s (q - z) - e||^2`` is solved in turns, p = 0.7:

    e = sign(r) max(|r| - |r|^(p - 1) / beta, 0),  r = w - s (q - z)
    z = mean(q - (w - e) / s)

over the weights of a group, beta growing by 1 % a turn. Zero points are real numbers.
"""

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from worker.engine.quantized.groups import AT_ONCE, Grids, GroupForm, grids_of

_TURNS: Final = 20
_BETA: Final = 10.0
_GROWTH: Final = 1.01
_NORM: Final = 0.7


@torch.no_grad()
def half_quadratic(rows: Tensor, form: GroupForm) -> Grids:
    """Grids of `rows`, (channels, groups, weights); a group keeps the zero point with which its ``||r||_p`` is least.

    A symmetric grid has no zero point to move: it is the one of least squared error.
    """
    if form.symmetric:
        return grids_of(rows, form)
    parts = [_solved(part, form) for part in torch.split(rows, max(1, AT_ONCE // rows[0].numel()))]
    return Grids(torch.cat([scale for scale, _ in parts]), torch.cat([point for _, point in parts]), form.bits)


def _solved(rows: Tensor, form: GroupForm) -> tuple[Tensor, Tensor]:
    grids = grids_of(rows, form, tried=1)
    if grids.zero_point is None:
        raise TypeError("a symmetric grid has no zero point")
    found, least, beta = grids.zero_point, _norm(rows, grids), _BETA
    for _ in range(_TURNS):
        integers = grids.nearest(rows)
        error = rows - grids.value(integers)
        size = error.abs()
        kept = error.sign() * (size - size.clamp(min=1e-8).pow(_NORM - 1) / beta).clamp(min=0)
        point = (integers - (rows - kept) / grids.scale[..., None]).mean(2)
        grids = replace(grids, zero_point=point)
        beta *= _GROWTH
        now = _norm(rows, grids)
        better = now < least
        least = torch.where(better, now, least)
        found = torch.where(better, point, found)
    return grids.scale, found


def _norm(rows: Tensor, grids: Grids) -> Tensor:
    return (grids.value(grids.nearest(rows)) - rows).abs().clamp(min=1e-8).pow(_NORM).sum(2)
