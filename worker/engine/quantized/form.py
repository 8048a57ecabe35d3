"""The quantized form: which values and weights of a network are integers, and on which grids.

It is data beside the float graph and never a second graph: `fake.fake_quantized` gives the same numbers in float,
and each target writes it in the way that its runtime fuses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, fx

from worker.engine.network import Network
from worker.engine.quantized.affine import Affine

Scheme = Literal["static", "dynamic"]


@dataclass(frozen=True, eq=False)
class Weight:
    """A layer's weight as integers around zero: ``w ~ values * scale``.

    Attributes:
        values: int8, the shape of the layer's weight; output channels first.
        scale: float32, (channels,), or (1,) for one scale per tensor.
        bias: float32, (channels,): the layer's bias, corrected where that was asked; None where it has none.
        bits: width that `values` needs.
    """

    values: Tensor
    scale: Tensor
    bias: Tensor | None
    bits: int = 8

    def dequantized(self) -> Tensor:
        """The weight in float32, in its own shape."""
        return self.values.float() * self.scale.reshape(-1, *[1] * (self.values.dim() - 1))


@dataclass(frozen=True, eq=False)
class Quantization:
    """What is integer in a network, for one numeric grid.

    Attributes:
        network: the float network that all names below belong to; batch norms are folded.
        scheme: ``static``: grids of activations are fixed. ``dynamic``: the inputs of the layers in `integer` are
            quantized over the whole tensor while running, and `activations` is empty.
        weights: path of a layer -> its weight. Layers whose calls are not in `integer` compute in float from
            integer storage.
        activations: name of an FX node -> grid of its value.
        integer: names of the FX nodes that compute on integers.
        absorbed: name of a node in `integer` -> name of the ReLU-like node after it that its output grid makes
            superfluous; the value of the pair is quantized under the latter's name.
    """

    network: Network
    scheme: Scheme
    weights: Mapping[str, Weight]
    activations: Mapping[str, Affine] = field(default_factory=dict)
    integer: frozenset[str] = frozenset()
    absorbed: Mapping[str, str] = field(default_factory=dict)

    def tail(self, name: str) -> str:
        """The name under which the result of node `name` is quantized."""
        return self.absorbed.get(name, name)

    def reads_integers(self, consumer: fx.Node, value: fx.Node) -> bool:
        """Whether `consumer` sees the quantized form of `value`.

        A result of integer arithmetic exists in no other form; a float one is quantized for those who need it.
        """
        if self.scheme != "static" or value.name not in self.activations:
            return False
        owners = {self.tail(name) for name in self.integer}
        return consumer.name in self.integer or value.name in owners
