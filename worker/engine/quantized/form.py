"""The quantized form: which values and weights of a network are integers, and on which grids.

It is data beside the float graph and never a second graph: `fake.fake_quantized` gives the same numbers in float,
and each target writes it in the way that its runtime fuses.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from worker.engine.errors import Unsupported
from worker.engine.network import Network
from worker.engine.quantized.affine import Affine


@dataclass(frozen=True, eq=False)
class Weight:
    """A layer's weight in few bits: ``w ~ (values - zero_point) * scale``, or the centroids whose numbers are stored.

    Attributes:
        values: the shape of the layer's weight, output channels (rows of a table) first; int8 for integers of up to 8
            bits, -2^(bits - 1) and more; a floating-point format that is stored; or, beside `centroids`, their numbers
            as uint8, (channels, weights of a channel / vector).
        scale: float32, (channels,), or (1,) for one scale per tensor, or (channels, groups): one for each of as many
            equal runs of a channel's weights in memory order.
        bias: float32, (channels,): the layer's bias, corrected where that was asked; None where it has none.
        bits: width that a value is stored in.
        zero_point: the shape of `scale`, int8, or float32 where it lies between integers; None: 0 throughout.
        centroids: float32, (books, 2^bits, vector): one book for the layer or one for each channel, of centroids that
            stand for `vector` neighbouring weights of a channel. None: values are numbers.
        size: shape of the layer's weight where there are centroids.
    """

    values: Tensor
    scale: Tensor
    bias: Tensor | None
    bits: int = 8
    zero_point: Tensor | None = None
    centroids: Tensor | None = None
    size: tuple[int, ...] = ()

    def dequantized(self) -> Tensor:
        """The weight in float32, in its own shape."""
        if self.centroids is not None:
            return looked_up(self.values, self.centroids).reshape(self.shape)
        values = self.values.float()
        if self.zero_point is not None:
            values = values.sub_(spread(self.zero_point, self.shape))
        return values.mul_(spread(self.scale, self.shape))

    def to(self, device: str) -> "Weight":
        """The same on another device."""
        parts = {name: None if part is None else part.to(device) for name, part in self.tensors().items()}
        return replace(self, **parts)  # type: ignore[arg-type]

    def tensors(self) -> dict[str, Tensor | None]:
        """All of its tensors, by name."""
        return {name: getattr(self, name) for name in ("values", "scale", "bias", "zero_point", "centroids")}

    @property
    def shape(self) -> torch.Size:
        """Of the layer's weight."""
        return torch.Size(self.size) if self.centroids is not None else self.values.shape

    @property
    def low(self) -> int:
        """The smallest integer of this width."""
        return -(1 << (self.bits - 1))

    def codes(self) -> Tensor:
        """The values as integers from 0: the numbers of centroids, or integers less `low`."""
        return self.values if self.centroids is not None else self.values.int() - self.low

    @property
    def stored_bits(self) -> int:
        """What the values take, with all that it takes to read them."""
        floats = self.scale if self.centroids is None else self.centroids
        points = self.zero_point
        zeros = 0 if points is None else points.numel() * (32 if points.is_floating_point() else self.bits)
        return self.values.numel() * self.bits + zeros + floats.numel() * 32

    @property
    def smaller(self) -> bool:
        """Whether that is less than its float32 weight takes."""
        return self.stored_bits < 32 * self.shape.numel()

    @property
    def integers(self) -> bool:
        """Whether the values are integers on a grid, not floating-point numbers or the numbers of centroids."""
        return self.centroids is None and not self.values.is_floating_point()


def spread(part: Tensor, shape: torch.Size) -> Tensor:
    """A `scale` or `zero_point` of a weight of `shape`, in a shape that broadcasts against it."""
    if part.dim() == 1:
        return part.reshape(-1, *[1] * (len(shape) - 1))
    return part.repeat_interleave(math.prod(shape[1:]) // part.shape[1], 1).reshape(shape)


def looked_up(codes: Tensor, centroids: Tensor) -> Tensor:
    """Centroids (books, k, vector) in place of codes (channels, vectors): (channels, vectors * vector)."""
    books, k, vector = centroids.shape
    rows = centroid_rows(codes, books, k)
    return nn.functional.embedding(rows, centroids.reshape(books * k, vector)).reshape(len(codes), -1)


def centroid_rows(codes: Tensor, books: int, k: int) -> Tensor:
    """int32: codes (channels, vectors) as rows of all books below each other, `k` rows to a book."""
    rows = codes.int()
    return rows if books == 1 else rows + torch.arange(books, device=codes.device, dtype=torch.int32)[:, None] * k


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

        Raises:
            Unsupported: ``invalid_order`` where both store the same layer.
        """
        if earlier is None:
            return self
        check_apart(self.weights, earlier.weights)
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


def check_apart(keys: Collection[str], earlier: Collection[str]) -> None:
    """Refuse to store a layer twice.

    Args:
        keys / earlier: of `Quantization.weights`.
    Raises:
        Unsupported: ``invalid_order``.
    """
    twice = sorted(set(keys) & set(earlier))
    if twice:
        raise Unsupported(
            "invalid_order",
            f"{', '.join(twice)}: quantized by an earlier step already; keep the layers of two steps apart with "
            "include/exclude",
        )


def stored_in(module: nn.Module, key: str) -> tuple[Any, str]:
    """The layer and the name of its parameter that a key of `Quantization.weights` stands for."""
    path, _, name = key.rpartition(".")
    owner = module.get_submodule(path)
    if isinstance(owner, nn.RNNBase):
        return owner, name
    return module.get_submodule(key), "weight"


def bias_beside(layer: nn.Module, name: str) -> Tensor | None:
    """A copy of the bias that is stored with the parameter `name` of a layer; recurrent layers keep theirs."""
    bias = getattr(layer, "bias", None) if name == "weight" else None
    return bias.detach().float().clone() if isinstance(bias, Tensor) else None


def original(module: nn.Module, key: str) -> Tensor:
    """The float weight that a key of `Quantization.weights` stands for."""
    layer, name = stored_in(module, key)
    weight: Tensor = getattr(layer, name).detach().float()
    return weight
