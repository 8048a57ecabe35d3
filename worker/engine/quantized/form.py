"""The quantized form: which values and weights of a network are integers, and on which grids.

It is data beside the float graph and never a second graph: `fake.fake_quantized` gives the same numbers in float,
and each target writes it in the way that its runtime fuses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, fx, nn

from worker.engine.network import Network
from worker.engine.quantized.affine import Affine


@dataclass(frozen=True, eq=False)
class Weight:
    """A layer's weight in few bits: ``w ~ values * scale``.

    Attributes:
        values: the shape of the layer's weight, output channels (rows of a table) first; int8 for integers around
            zero of up to 8 bits, else the floating-point format that is stored.
        scale: float32, (channels,), or (1,) for one scale per tensor.
        bias: float32, (channels,): the layer's bias, corrected where that was asked; None where it has none.
        bits: width that a value is stored in.
    """

    values: Tensor
    scale: Tensor
    bias: Tensor | None
    bits: int = 8

    def dequantized(self) -> Tensor:
        """The weight in float32, in its own shape."""
        return self.values.float().mul_(self.scale.reshape(-1, *[1] * (self.values.dim() - 1)))

    def to(self, device: str) -> "Weight":
        """The same on another device."""
        bias = None if self.bias is None else self.bias.to(device)
        return Weight(self.values.to(device), self.scale.to(device), bias, self.bits)

    @property
    def integers(self) -> bool:
        """Whether the values are integers, not floating-point numbers."""
        return not self.values.is_floating_point()


@dataclass(frozen=True, eq=False)
class Quantization:
    """What is stored and computed in few bits in a network, for one numeric grid.

    Attributes:
        network: the float network that all names below belong to; batch norms are folded.
        weights: path of a layer -> its weight; a recurrent layer has several, under the paths of its parameters.
            Layers whose calls are not in `integer` compute in float from what is stored.
        activations: name of an FX node -> grid of its value, fixed.
        integer: names of the FX nodes that compute on integers.
        absorbed: name of a node in `integer` -> name of the ReLU-like node after it that its output grid makes
            superfluous; the value of the pair is quantized under the latter's name.
        dynamic: the nodes in `integer` whose input is quantized while running, over the range that it then has.
    """

    network: Network
    weights: Mapping[str, Weight]
    activations: Mapping[str, Affine] = field(default_factory=dict)
    integer: frozenset[str] = frozenset()
    absorbed: Mapping[str, str] = field(default_factory=dict)
    dynamic: frozenset[str] = frozenset()

    def tail(self, name: str) -> str:
        """The name under which the result of node `name` is quantized."""
        return self.absorbed.get(name, name)

    def reads_integers(self, consumer: fx.Node, value: fx.Node) -> bool:
        """Whether `consumer` sees the quantized form of `value`.

        A result of integer arithmetic exists in no other form; a float one is quantized for those who need it.
        """
        if value.name not in self.activations:
            return False
        owners = {self.tail(name) for name in self.integer}
        return consumer.name in self.integer - self.dynamic or value.name in owners

    def to(self, device: str) -> "Quantization":
        """The same with its weights on another device; the network moves itself."""
        weights = {key: weight.to(device) for key, weight in self.weights.items()}
        return replace(self, network=self.network.to(device), weights=weights)

    def beside(self, earlier: "Quantization | None") -> "Quantization":
        """This quantization and an `earlier` one of other layers of the same network, as one.

        A value that both have a grid for keeps the earlier one; a ReLU that it cannot stand in for stays.
        """
        if earlier is None:
            return self
        activations = {**self.activations, **earlier.activations}
        absorbed = {**self.absorbed, **earlier.absorbed}
        return Quantization(
            network=self.network,
            weights={**earlier.weights, **self.weights},
            activations=activations,
            integer=earlier.integer | self.integer,
            absorbed={name: tail for name, tail in absorbed.items() if activations[tail].range[0] >= 0},
            dynamic=(earlier.dynamic - self.integer) | self.dynamic,
        )


def stored_in(module: nn.Module, key: str) -> tuple[Any, str]:
    """The layer and the name of its parameter that a key of `Quantization.weights` stands for."""
    path, _, name = key.rpartition(".")
    owner = module.get_submodule(path)
    if isinstance(owner, nn.RNNBase):
        return owner, name
    return module.get_submodule(key), "weight"


def original(module: nn.Module, key: str) -> Tensor:
    """The float weight that a key of `Quantization.weights` stands for."""
    layer, name = stored_in(module, key)
    weight: Tensor = getattr(layer, name).detach().float()
    return weight
