"""Weights of two or three values, with one scale.

**Ternary** (TWN, Li and Liu 2016, https://arxiv.org/abs/1605.04711): ``-s, 0, s``, with 0 where ``|w| <= d``,
``d = 0.7 mean |w|``, and ``s = mean of |w| over |w| > d`` (equations 5 and 6).
**Binary** (BWN of XNOR-Net, Rastegari et al. 2016, https://arxiv.org/abs/1603.05279): ``-s, s``, ``s = mean |w|``
(equation 6). Both are stored as codebooks of four and two centroids.
"""

from typing import Final

import torch
from torch import Tensor

#: Threshold over the mean of absolute weights (TWN, section 2.2).
_THRESHOLD: Final = 0.7


def ternary(books: Tensor) -> tuple[Tensor, Tensor]:
    """Centroids ``-s, 0, s, 0``, (books, 4, 1), and codes, uint8, of books (books, n)."""
    size = books.abs()
    large = size > _THRESHOLD * size.mean(1, keepdim=True)
    scale = (size * large).sum(1) / large.sum(1).clamp(min=1)
    zero = torch.zeros_like(scale)
    codes = 1 + books.sign() * large
    return torch.stack([-scale, zero, scale, zero], 1)[..., None], codes.to(torch.uint8)


def binary(books: Tensor) -> tuple[Tensor, Tensor]:
    """Centroids ``-s, s``, (books, 2, 1), and codes, uint8, of books (books, n); 0 counts as positive."""
    scale = books.abs().mean(1)
    return torch.stack([-scale, scale], 1)[..., None], (books >= 0).to(torch.uint8)
