"""Which channels of a network can be removed, and what goes with each of them.

The idea of following dependencies through the graph is that of DepGraph (Fang et al. 2023,
https://arxiv.org/abs/2301.12900); how they are found, by sending labels through the operators themselves, is ours (see
docs/decisions/0009-labels-for-dependency-analysis.md).
"""

import math
from typing import Any, Final

import numpy as np
from torch import Tensor, fx, nn

from worker.engine.measure.macs import PRODUCTS
from worker.engine.network import Network
from worker.engine.structure.call import flat
from worker.engine.structure.flow import Flow, attribute
from worker.engine.structure.labels import along, essential, varying
from worker.engine.structure.model import Factor, Family, Place, Structure, Term, Unfit, Units
from worker.engine.structure.remove import remove

_TOGETHER: Final = "they can only go all together"
_COUNTED: Final = (nn.Linear, nn.modules.conv._ConvNd)
_UNFIT: Final = "what is left of them does not fit"


def analyse(network: Network) -> Structure:
    """What may be removed from `network`, which is not changed.

    Raises:
        ValueError: the labels contradict each other: an error in a rule.
    """
    flow = Flow(network)
    for _ in range(len(network.module.graph.nodes) + 1):
        flow.settle()
        structure = _Builder(flow, 2 if network.batched else 1).structure()
        if not _refused(flow, network, structure):
            return structure
    raise ValueError("the structure does not come to rest")


def _refused(flow: Flow, network: Network, structure: Structure) -> bool:
    """Try to remove half of everything, in two ways; freeze what does not fit."""
    for odd in (True, False):
        keep = structure.everything()
        for family in structure.families:
            size = len(family)
            keep[family.units] = np.arange(size) % 2 == 0 if odd else np.arange(size) < (size + 1) // 2
        try:
            if structure.families:
                remove(network, structure, keep)
        except Unfit as unfit:
            node = next(node for node in network.module.graph.nodes if node.name == unfit.node)
            for near in (node, *node.all_input_nodes):
                for labels in flat(flow.labels[near]):
                    flow.ties.freeze(essential(labels), f"{_UNFIT} {unfit.what}")
            return True
    return False


class _Builder:
    """Makes the structure of labels that have come to rest."""

    def __init__(self, flow: Flow, batch: int) -> None:
        self.flow, self.ties, self.module = flow, flow.ties, flow.module
        self.roots = self.ties.roots()
        self.out = [record for record in flow.records.all.values() if record.role == "out"]
        self.unit_of = np.full(len(self.roots), -1, np.int64)
        self.families = self._families()
        self.batch = batch
        self.dims: dict[int, dict[int, Tensor]] = {}  # tensor -> dimension -> labels
        for record in flow.records.all.values():
            self.dims.setdefault(id(record.tensor), {})[record.dim] = record.labels
        for node, labels in flow.labels.items():
            if node.op == "get_attr" and isinstance(labels, Tensor):
                tensor = attribute(self.module, str(node.target))
                differ = varying(self.ties, labels)
                self.dims.setdefault(id(tensor), {dim: along(labels, dim) for dim in differ})

    def structure(self) -> Structure:
        """All of it."""
        return Structure(
            families=self.families,
            places=tuple(place for place in self._places() if (place.units >= 0).any()),
            left=self._left(),
            costs={node.name: term for node in self.module.graph.nodes if (term := self._cost(node)) is not None},
            sizes=tuple(self._size(parameter) for parameter in self.module.parameters()),
            labels={node.name: labels for node, labels in self.flow.labels.items()},
            unit_of=self.unit_of,
        )

    def _families(self) -> tuple[Family, ...]:
        """Classes that occur in the same places are a family; those of a single class stay as they are."""
        random = np.random.default_rng(0)
        signs = np.zeros(len(self.roots), np.uint64)
        vectors = [record.labels for record in self.flow.records.all.values()]
        for labels in self.flow.labels.values():
            for one in flat(labels):
                vectors += [along(one, dim) for dim in varying(self.ties, one)]
        for vector in vectors:
            signs[np.unique(self.roots[vector.numpy()])] ^= random.integers(1 << 63, dtype=np.uint64)
        alike: dict[int, list[int]] = {}
        for root in self.ties.removable():
            alike.setdefault(int(signs[root]), []).append(int(root))
        families: list[Family] = []
        for roots in alike.values():
            sources = [r for r in self.out if np.isin(self.roots[r.labels.numpy()], roots).any()]
            if len(roots) < 2 or not sources:
                continue
            start = families[-1].stop if families else 0
            width = int(np.isin(self.roots[sources[0].labels.numpy()], roots).sum())
            layers = tuple(dict.fromkeys(record.path for record in sources))
            families.append(Family(layers, start, start + len(roots), width))
            units = np.full(len(self.roots), -1, np.int64)
            units[roots] = np.arange(start, start + len(roots))
            self.unit_of = np.maximum(self.unit_of, units[self.roots])
        return tuple(families)

    def _units(self, labels: Tensor) -> Units:
        found: Units = self.unit_of[labels.numpy()]
        return found

    def _places(self) -> list[Place]:
        found = [
            Place(record.path, record.name, record.dim, record.role, self._units(record.labels))
            for record in self.flow.records.all.values()
        ]
        for node, labels in self.flow.labels.items():
            if node.op == "get_attr" and isinstance(labels, Tensor):
                path, _, name = str(node.target).rpartition(".")
                dims = varying(self.ties, labels)
                found += [Place(path, name, dim, "parameter", self._units(along(labels, dim))) for dim in dims]
        return list({(place.key, place.role, place.dim): place for place in found}.values())

    def _left(self) -> dict[str, str]:
        left = dict(self.flow.records.left)
        reasons = self.ties.reasons()
        for record in self.out:
            if (self._units(record.labels) < 0).all():
                roots = self.roots[record.labels.numpy()]
                left.setdefault(record.path, next((reasons[r] for r in roots if r in reasons), _TOGETHER))
        return left

    def _factor(self, labels: Tensor) -> Factor:
        units = self._units(labels)
        return Factor(int((units < 0).sum()), units[units >= 0])

    def _shape(self, labels: Tensor) -> list[Factor]:
        """The sizes of a value."""
        differ = varying(self.ties, labels)
        none = np.zeros(0, np.int64)
        return [
            self._factor(along(labels, dim)) if dim in differ else Factor(size, none)
            for dim, size in enumerate(labels.shape)
        ]

    def _cost(self, node: fx.Node) -> Term | None:
        """As `count_macs` counts."""
        labels = self.flow.labels
        if node.op == "call_module":
            layer: Any = self.module.get_submodule(str(node.target))
            if not isinstance(layer, _COUNTED):
                return None
            transposed = getattr(layer, "transposed", False)
            counted = labels[node.args[0] if transposed else node]  # type: ignore[index]
            summed = self._factor(self.dims[id(layer.weight)][1])
            return Term(math.prod(getattr(layer, "kernel_size", ())), (*self._shape(counted), summed), self.batch)
        if node.op != "call_function" or node.target not in PRODUCTS:
            return None
        read = labels[node.args[PRODUCTS[node.target]]]  # type: ignore[index]
        return Term(1, (*self._shape(labels[node]), self._shape(read)[-1]), self.batch)

    def _size(self, parameter: nn.Parameter) -> Term:
        known = self.dims.get(id(parameter), {})
        factors = [self._factor(known[dim]) for dim in known]
        fixed = math.prod(size for dim, size in enumerate(parameter.shape) if dim not in known)
        return Term(fixed, tuple(factors))
