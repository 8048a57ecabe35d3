"""Weights by the numbers of centroids, and the layers that train on them.

**Straight-through**: what is trained is a float weight; the layer computes with the weight's projection onto its
codebook, found anew at each step, and the gradient of the projection is passed on as if it were the weight's own
(Courbariaux et al. 2015, https://arxiv.org/abs/1511.00363; Li and Liu 2016, https://arxiv.org/abs/1605.04711).

**Fine-tuning**: the numbers stay, and the centroids are trained: each gets the sum of the gradients of its weights (Han
et al. 2015, https://arxiv.org/abs/1510.00149, section 3.3). They are trained in units of their book's spread, so that
one learning rate serves weights of any size.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from worker.engine.quantized.form import Weight, centroid_rows, looked_up
from worker.engine.quantized.placement import Layer
from worker.engine.quantized.trained import TrainedLayer

#: Finds centroids (books, 2^bits, vector) and codes, uint8, (books, n / vector), of books (books, n).
Finder = Callable[[Tensor], tuple[Tensor, Tensor]]


@torch.no_grad()
def by_numbers(weight: Tensor, bias: Tensor | None, *, whole: bool, bits: int, find: Finder) -> Weight:
    """The weight by codebooks.

    Args:
        weight: float32, (channels, ...).
        whole: one codebook for all channels, else one for each.
        bits: width of the numbers that `find` gives.
    """
    rows = weight.reshape(len(weight), -1)
    centroids, codes = find(rows.reshape(1, -1) if whole else rows)
    return Weight(
        values=codes.reshape(len(rows), -1),
        scale=torch.ones(1, device=weight.device),
        bias=bias,
        bits=bits,
        centroids=centroids,
        size=tuple(weight.shape),
    )


class _LookUp(torch.autograd.Function):
    """`looked_up`; its own backward is 40 times faster than that of an embedding where few rows get many gradients."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor, centroids: Tensor) -> Tensor:
        ctx.save_for_backward(codes)
        ctx.shape = centroids.shape
        return looked_up(codes, centroids)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, Tensor]:
        (codes,) = ctx.saved_tensors
        books, k, vector = ctx.shape
        rows = centroid_rows(codes, books, k).reshape(-1).long()
        parts = gradients[0].reshape(-1, vector)
        sums = [torch.zeros(books * k, device=codes.device).scatter_add_(0, rows, part) for part in parts.T]
        return None, torch.stack(sums, 1).reshape(books, k, vector)


class StraightLayer(TrainedLayer):
    """A layer that computes with the projection of its weight.

    Args:
        project: gives a weight and its bias by numbers. In front of norms it looks at channels one by one: only then
            does it commute with the factor that folding them gives each channel.
    """

    def __init__(
        self, layer: Layer, norms: Sequence[nn.Module], project: Callable[[Tensor, Tensor | None], Weight]
    ) -> None:
        super().__init__(layer, norms)
        self._project = project

    def weight(self) -> Tensor:
        """The projection, with the gradient of the weight."""
        weight = self.layer.weight
        return weight + (self._project(weight.detach(), None).dequantized() - weight).detach()

    def stored(self, weight: Tensor, bias: Tensor | None, input_scale: float) -> Weight:
        """The projection of the folded weight."""
        return self._project(weight, bias)


class TunedLayer(TrainedLayer):
    """A layer whose centroids train.

    Attributes:
        centroids: (books, 2^bits, vector), in units of `spread`.
        codes: numbers that stay, (channels, weights of a channel / vector).
        spread: standard deviation of each book's centroids, (books, 1, 1).
    """

    codes: Tensor
    spread: Tensor

    def __init__(self, layer: Layer, norms: Sequence[nn.Module], start: Weight) -> None:
        if start.centroids is None or norms:
            raise ValueError("codebooks of folded weights are what is tuned")
        super().__init__(layer, norms)
        layer.weight.requires_grad_(False)
        self._start = start
        spread = start.centroids.std((1, 2), correction=0, keepdim=True).clamp(min=1e-12)
        self.centroids = nn.Parameter(start.centroids / spread)
        # They follow from the weights: what is kept of a training need not hold them, nor be trusted with them.
        self.register_buffer("codes", start.values, persistent=False)
        self.register_buffer("spread", spread, persistent=False)

    def weight(self) -> Tensor:
        """Centroids in place of their numbers."""
        weight: Tensor = _LookUp.apply(self.codes, self.centroids * self.spread)  # type: ignore[no-untyped-call]
        return weight.reshape(self._start.size)

    @torch.no_grad()
    def stored(self, weight: Tensor, bias: Tensor | None, input_scale: float) -> Weight:
        """The numbers, and the centroids as they are now."""
        return replace(self._start, values=self.codes, centroids=self.centroids * self.spread, bias=bias).to("cpu")
