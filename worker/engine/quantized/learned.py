"""Quantizers that learn their step: LSQ (Esser et al. 2020, https://arxiv.org/abs/1902.08153).

``q = clamp(round(x / s), l, h)`` and ``x' = s q`` have no useful derivative; rounding is passed straight through:

    dx'/dx = 1 where l < x/s < h, else 0
    dx'/ds = round(x/s) - x/s where l < x/s < h, else l or h

so that a step grows where clipping costs more than rounding. The gradient of s is multiplied by ``1 / sqrt(n h)``, n
the number of values that share it, which makes it about as large as that of the weights (section 2.2). What is trained
is log s: a step stays positive, and the size of an update does not depend on the range of the values (Jain et al. 2019,
https://arxiv.org/abs/1903.08066, section 3.2). Left out: learned zero points (LSQ+, https://arxiv.org/abs/2004.09576).
The zero points are those of calibration, so 0 stays exact and a grid behind a ReLU keeps starting at 0.

In front of a batch norm (see `trained`) w is quantized with the step s of each channel, because
``Q(f w, |f| s) / f = Q(w, s)``; one step S for all channels becomes ``s_c = S / |f_c|``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worker.engine.quantized.affine import SMALLEST_SCALE, Affine
from worker.engine.quantized.form import Weight
from worker.engine.quantized.placement import Layer
from worker.engine.quantized.trained import TrainedLayer
from worker.engine.quantized.weights import Granularity, least_scale, quantize_weight

#: A batch norm that multiplies by less counts as this much: its channel is constant.
_SMALLEST_FACTOR = 1e-8


class _Round(torch.autograd.Function):
    """Rounds; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        gradient: Tensor = gradients[0]
        return gradient


class _ScaleGradient(torch.autograd.Function):
    """The identity; the gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def fake_quantize(x: Tensor, step: Tensor, low: int, high: int, shared: float) -> Tensor:
    """``step * clamp(round(x / step), low, high)`` with the gradients above.

    Args:
        x: any shape.
        step: positive, of a shape that broadcasts against `x`.
        low / high: the smallest and largest multiple of the step.
        shared: how many values share a step (n above).
    """
    step = _apply(_ScaleGradient, step, 1 / math.sqrt(max(shared * max(high, -low), 1.0)))
    return _apply(_Round, torch.clamp(x / step, low, high)) * step


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    result: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


class LearnedGrid(nn.Module):
    """The grid of an activation; its step is trained, its zero point and integers stay.

    Args:
        grid: where it starts.
        learned: whether the step is trained.
    """

    log_step: Tensor

    def __init__(self, grid: Affine, learned: bool) -> None:
        super().__init__()
        self.zero_point, self.low, self.high = grid.zero_point, grid.low, grid.high
        _register(self, torch.tensor(grid.scale), learned)

    def forward(self, x: Tensor) -> Tensor:
        """`x` on the grid, in its own shape."""
        shared = x.numel() / max(len(x), 1) if x.dim() else 1.0
        return fake_quantize(x, self.log_step.exp(), self.low - self.zero_point, self.high - self.zero_point, shared)

    @torch.no_grad()
    def grid(self) -> Affine:
        """The grid as it is now."""
        return Affine(max(float(self.log_step.exp()), SMALLEST_SCALE), self.zero_point, self.low, self.high)


@dataclass(frozen=True)
class WeightForm:
    """How weights are stored.

    Attributes:
        bits: width of the integers.
        avoid_saturation: see `quantize_weight`.
        learned: whether steps are trained.
    """

    bits: int
    granularity: Granularity
    avoid_saturation: bool
    learned: bool

    @property
    def top(self) -> int:
        """The largest integer."""
        return int(2 ** (self.bits - 1) - 1)


class LearnedLayer(TrainedLayer):
    """A layer on a weight with learned steps.

    Attributes:
        log_step: (channels,): steps of the weight before folding; or (1,): the step of the folded one.
    """

    log_step: Tensor

    def __init__(self, layer: Layer, norms: Sequence[nn.Module], form: WeightForm) -> None:
        super().__init__(layer, norms)
        self.form = form
        weight = layer.weight.detach()
        if form.granularity == "tensor":
            weight = weight * _along(self.factor(), weight)
        started = quantize_weight(
            weight, None, bits=form.bits, granularity=form.granularity, avoid_saturation=form.avoid_saturation
        )
        _register(self, started.scale, form.learned)

    def weight(self) -> Tensor:
        """The weight on its grid."""
        weight, top = self.layer.weight, self.form.top
        return fake_quantize(weight, _along(self.steps(), weight), -top, top, weight.numel() / self.log_step.numel())

    @torch.no_grad()
    def factor(self) -> Tensor:
        """What the batch norms multiply each channel by at evaluation, without the sign; (channels,)."""
        factor = torch.ones(len(self.layer.weight), device=self.layer.weight.device)
        for norm in self.norms:
            scale = torch.rsqrt(norm.running_var + norm.eps)
            factor = factor * scale * (1 if norm.weight is None else norm.weight.abs())
        return factor.clamp(min=_SMALLEST_FACTOR)

    def steps(self) -> Tensor:
        """The step of each channel of the weight before folding, (channels,) or (1,)."""
        step, weight, form = self.log_step.exp(), self.layer.weight.detach(), self.form
        whole = form.granularity == "tensor" and len(self.norms) > 0
        if whole:
            weight = weight * _along(self.factor(), weight)
        if form.avoid_saturation:
            step = torch.maximum(step, least_scale(weight, form.bits, form.granularity))
        return step / self.factor() if whole else step

    @torch.no_grad()
    def stored(self, weight: Tensor, bias: Tensor | None, input_scale: float) -> Weight:
        """The integers that the layer has learned."""
        step = self.log_step.exp()
        if self.form.granularity == "channel":
            step = step * self.factor()
        return quantize_weight(
            weight,
            bias,
            bits=self.form.bits,
            granularity=self.form.granularity,
            input_scale=input_scale,
            avoid_saturation=self.form.avoid_saturation,
            scale=step.cpu(),
        )


def _register(module: nn.Module, step: Tensor, learned: bool) -> None:
    log_step = step.float().clamp(min=SMALLEST_SCALE).log()
    if learned:
        module.register_parameter("log_step", nn.Parameter(log_step))
    else:
        module.register_buffer("log_step", log_step)


def _along(channels: Tensor, weight: Tensor) -> Tensor:
    """`channels` in a shape that broadcasts along the first dimension of `weight`."""
    return channels.reshape(-1, *[1] * (weight.dim() - 1))
