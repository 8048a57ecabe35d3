"""Layers that train under quantization, whatever it is that rounds their weights.

A layer in front of a batch norm keeps it while training, because batch statistics follow what quantization does to the
layer's output. What is quantized is the folded weight ``f w``, ``f = gamma / sqrt(running_var + eps)``, and the output
is scaled back by 1/f (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2; Krishnamoorthi 2018,
https://arxiv.org/abs/1806.08342, section 4.2). A rounding around 0 that follows the size of each channel commutes with
that scaling, ``Q(f w) / f = Q(w)``: nothing is divided by a gamma near 0, and a moving running variance does not move
what is stored.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from worker.engine.quantized.form import Weight
from worker.engine.quantized.placement import Layer


class TrainedLayer(nn.Module):
    """A layer, and the batch norms that will be folded into it, on a weight that is fake quantized.

    Attributes:
        layer: holds the float weight, before folding.
        norms: the batch norms behind it; they follow their own train and eval mode.
    """

    def __init__(self, layer: Layer, norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layer = layer
        self.norms: Any = nn.ModuleList(norms)

    @abstractmethod
    def weight(self) -> Tensor:
        """The weight that the layer computes with, before folding, with the gradients of its quantizer."""

    @abstractmethod
    def stored(self, weight: Tensor, bias: Tensor | None, input_scale: float) -> Weight:
        """What the layer has learned, on CPU.

        Args:
            weight / bias: float32 and detached, after folding the trained batch norms.
            input_scale: of the layer's integer input; 0 where it reads floats.
        """

    def forward(self, x: Tensor) -> Tensor:
        """As the layer and its batch norms."""
        layer = self.layer
        if isinstance(layer, nn.Linear):
            x = nn.functional.linear(x, self.weight(), layer.bias)
        else:
            x = layer._conv_forward(x, self.weight(), layer.bias)
        for norm in self.norms:
            x = norm(x)
        return x


class PlainLayer(nn.Sequential):
    """A layer that stays in float, and the batch norms that will be folded into it."""
