"""What may be removed from a network, and what it would cost then."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.structure.labels import essential

Keep = NDArray[np.bool_]
Units = NDArray[np.int64]


class Unfit(ValueError):
    """What is left of a value does not fit the graph: `node` names it, `what` says how."""

    def __init__(self, node: str, what: str) -> None:
        super().__init__(f"{node}: {what}")
        self.node, self.what = node, what


@dataclass(frozen=True)
class Place:
    """One dimension of one weight.

    Attributes:
        path: of the layer that has it; empty for parameters that the graph itself reads.
        name: of the parameter or buffer in it.
        role: ``out``: the layer computes these channels; ``in``: it reads them; ``norm``: a gain, an offset or
            statistics of them; ``parameter``: anything else, such as positions.
        units: (size of the dimension,): the unit that each index belongs to, -1 for those that stay.
    """

    path: str
    name: str
    dim: int
    role: str
    units: Units

    @property
    def key(self) -> str:
        """Path of the parameter or buffer."""
        return f"{self.path}.{self.name}" if self.path else self.name

    def indices(self, unit: int) -> Units:
        """Of the dimension, those that go with a unit."""
        return np.flatnonzero(self.units == unit)


@dataclass(frozen=True)
class Family:
    """Units that are alike: they occur in the same places. At least one of them stays.

    Attributes:
        layers: paths of the layers that compute them.
        start / stop: its units are the numbers ``start .. stop - 1``.
        width: channels that they are together, in the first of `layers`.
    """

    layers: tuple[str, ...]
    start: int
    stop: int
    width: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def units(self) -> slice:
        """Where they are in an array over all units."""
        return slice(self.start, self.stop)

    @property
    def each(self) -> int:
        """Channels of a unit."""
        return self.width // len(self)


@dataclass(frozen=True)
class Factor:
    """A count that depends on what is kept: `fixed` and one for each of `units` that stays."""

    fixed: int
    units: Units

    def __call__(self, keep: Keep) -> int:
        """How many there are."""
        return self.fixed + int(keep[self.units].sum())


@dataclass(frozen=True)
class Term:
    """A number that is proportional to all of its factors."""

    constant: int
    factors: tuple[Factor, ...]
    divisor: int = 1

    def __call__(self, keep: Keep) -> int:
        """What it comes to."""
        found = self.constant
        for factor in self.factors:
            found *= factor(keep)
        return found // self.divisor


@dataclass(frozen=True)
class Structure:
    """What may be removed from a network.

    A choice (`keep`) is a boolean array over all units. Every choice that leaves each family at least one unit can be
    removed by `remove`.

    Attributes:
        families: in the order of the graph; their units follow one another.
        places: every weight that units touch.
        left: path of a layer -> why none of its outputs can be removed.
        costs: node -> its multiply-accumulates for one sample, as `count_macs` counts them.
        sizes: numbers of trainable scalars.
        labels: node name -> labels of its value (see `ties`).
        unit_of: label -> its unit, -1 for what stays.
    """

    families: tuple[Family, ...]
    places: tuple[Place, ...]
    left: Mapping[str, str]
    costs: Mapping[str, Term]
    sizes: tuple[Term, ...]
    labels: Mapping[str, Any]
    unit_of: Units

    @property
    def units(self) -> int:
        """How many there are."""
        return self.families[-1].stop if self.families else 0

    def everything(self) -> Keep:
        """The choice that removes nothing."""
        return np.ones(self.units, np.bool_)

    def macs(self, keep: Keep) -> int:
        """Multiply-accumulates of one sample with a choice, without making the network."""
        return sum(term(keep) for term in self.costs.values())

    def parameters(self, keep: Keep) -> int:
        """Trainable scalars with a choice."""
        return sum(term(keep) for term in self.sizes)

    def channels(self, keep: Keep) -> int:
        """Channels that are left of those that may be removed."""
        return sum(family.each * int(keep[family.units].sum()) for family in self.families)

    def removed(self, keep: Keep) -> int:
        """Channels that a choice removes."""
        return self.channels(~keep)

    def kept(self, labels: Tensor, keep: Keep) -> list[Units]:
        """For each dimension of a value with `labels`, the indices that are left.

        Raises:
            ValueError: what is left is no box.
        """
        found = essential(labels)
        units = self.unit_of[found.numpy()]
        stays = np.where(units < 0, True, np.append(keep, True)[units])
        box = np.ones([1] * found.dim(), np.bool_)
        indices = []
        for dim, size in enumerate(labels.shape):
            rest = tuple(other for other in range(found.dim()) if other != dim)
            there = stays.any(axis=rest)
            box = box & there.reshape([-1 if other == dim else 1 for other in range(found.dim())])
            indices.append(np.flatnonzero(np.broadcast_to(there, (size,))))
        if not np.array_equal(box, stays):
            raise ValueError("what is left of a value is no box")
        return indices
