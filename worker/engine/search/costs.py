"""What candidates cost, without making them: exact multiply-accumulates and parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.engine.search.space import Genes, Space
from worker.engine.structure import Factor, Structure, Term


@dataclass(frozen=True)
class Soft:
    """A mixture of candidates, for the gradient of what it costs.

    Attributes:
        keep: (units,): share of the mixture in which a unit stays.
        gates: name of a block's sum -> share in which it stays.
        kernels: path of a convolution -> mean number of the kernel's elements.
    """

    keep: Tensor
    gates: Mapping[str, Tensor]
    kernels: Mapping[str, Tensor]


@dataclass(frozen=True)
class _Product:
    """A `Term`, by the places of its factors in `_Factors`."""

    constant: int
    factors: tuple[int, ...]
    divisor: int

    def __call__(self, counts: list[int]) -> int:
        found = self.constant
        for factor in self.factors:
            found *= counts[factor]
        return found // self.divisor

    def soft(self, counts: Tensor) -> Tensor:
        """The same of counts that are no integers, (factors,)."""
        return counts[list(self.factors)].prod() * (self.constant / self.divisor)


class _Factors:
    """The counts that terms are products of, each once: what is fixed, and so much for each unit of a family."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._known: dict[tuple[int, bytes], int] = {}
        self.fixed: list[int] = []
        self.each: list[list[int]] = []

    def product(self, term: Term) -> _Product:
        """The term, in these factors."""
        return _Product(term.constant, tuple(self._index(factor) for factor in term.factors), term.divisor)

    def _index(self, factor: Factor) -> int:
        key = (factor.fixed, factor.units.tobytes())
        if key not in self._known:
            times = np.bincount(factor.units, minlength=self._structure.units)
            parts = [times[family.units] for family in self._structure.families]
            if any((part != part[0]).any() for part in parts):
                raise ValueError("units of a family occur differently often")
            self._known[key] = len(self.fixed)
            self.fixed.append(factor.fixed)
            self.each.append([int(part[0]) for part in parts])
        return self._known[key]


class Costs:
    """Counts for the candidates of a space, as `count_macs` and `Network.parameters` would."""

    def __init__(self, space: Space) -> None:
        self.space = space
        module, structure = space.network.module, space.structure
        nodes = [node for node in module.graph.nodes if node.op != "root"]
        factors = _Factors(structure)
        self._nodes: dict[str, tuple[_Product, str]] = {
            node.name: (factors.product(structure.costs[node.name]), str(node.target))
            for node in nodes
            if node.name in structure.costs
        }
        self._users: dict[str, list[str]] = {}
        for node in nodes:
            if node.op in ("call_module", "get_attr"):
                self._users.setdefault(str(node.target), []).append(node.name)
        owners: dict[int, list[str]] = {}
        for path, part in module.named_modules(remove_duplicate=False):
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    owners.setdefault(id(parameter), []).append(path or name)
                    owners[id(parameter)].append(f"{path}.{name}" if path else name)
        # What no node names itself is a part of a module that one names, or is read by nothing and stays.
        self._sizes = [
            (
                factors.product(term),
                [owner for owner in owners[id(parameter)] if owner in self._users],
                _kernel_of(owners[id(parameter)]),
            )
            for term, parameter in zip(structure.sizes, module.parameters(), strict=True)
        ]
        self._full = {
            decision.name: decision.options[-1] ** _dims(module.get_submodule(decision.name))
            for decision in space.decisions
            if decision.kind == "kernel"
        }
        self._fixed = np.array(factors.fixed, np.int64)
        self._each = np.array(factors.each, np.int64).reshape(len(factors.fixed), len(structure.families))
        self._families = {family.start: index for index, family in enumerate(structure.families)}
        self._whole = self.macs(space.largest), self.parameters(space.largest)

    @property
    def whole(self) -> tuple[int, int]:
        """Multiply-accumulates and parameters of the network as it is."""
        return self._whole

    def macs(self, genes: Genes) -> int:
        """Multiply-accumulates of one sample."""
        return sum(self.by_node(genes).values())

    def by_node(self, genes: Genes) -> dict[str, int]:
        """Node -> its multiply-accumulates, of those that run."""
        counts, live, kernels = self._given(genes)
        return {
            name: term(counts) * kernels.get(target, 1) // self._full.get(target, 1)
            for name, (term, target) in self._nodes.items()
            if name in live
        }

    def parameters(self, genes: Genes) -> int:
        """Trainable scalars."""
        counts, live, kernels = self._given(genes)
        total = 0
        for term, owners, kernel in self._sizes:
            if owners and not any(user in live for owner in owners for user in self._users[owner]):
                continue
            total += term(counts) * kernels.get(kernel, 1) // self._full.get(kernel, 1)
        return total

    def _given(self, genes: Genes) -> tuple[list[int], frozenset[str], dict[str, int]]:
        space = self.space
        kept = np.array([len(family) for family in space.structure.families], np.int64)
        for decision, gene in zip(space.decisions, genes, strict=True):
            if decision.family is not None:
                kept[self._families[decision.family.start]] = decision.options[gene]
        counts: list[int] = (self._fixed + self._each @ kept).tolist()
        module = space.network.module
        kernels = {
            name: size ** _dims(module.get_submodule(name)) for name, size in space.chosen(genes, "kernel").items()
        }
        return counts, space.live(space.skipped(genes)), kernels

    def soft_macs(self, soft: Soft, weights: Mapping[str, float] | None = None) -> Tensor:
        """The multiply-accumulates that a mixture comes to, as if its decisions were independent.

        Args:
            weights: node -> what one of them counts; 1 without.
        """
        total, counts = torch.zeros((), dtype=torch.float64), self._soft_counts(soft)
        for name, (term, target) in self._nodes.items():
            share = self._stays([name], soft) * self._shrunk(target, soft)
            total = total + term.soft(counts) * share * (1.0 if weights is None else weights[name])
        return total

    def soft_parameters(self, soft: Soft) -> Tensor:
        """The parameters that a mixture comes to."""
        total, counts = torch.zeros((), dtype=torch.float64), self._soft_counts(soft)
        for term, owners, kernel in self._sizes:
            users = [user for owner in owners for user in self._users[owner]]
            total = total + term.soft(counts) * self._stays(users, soft) * self._shrunk(kernel, soft)
        return total

    def _soft_counts(self, soft: Soft) -> Tensor:
        """(factors,)"""
        kept = [soft.keep[family.units].double().sum() for family in self.space.structure.families]
        fixed, each = torch.from_numpy(self._fixed).double(), torch.from_numpy(self._each).double()
        return fixed + each @ torch.stack(kept) if kept else fixed

    def _stays(self, nodes: list[str], soft: Soft) -> Tensor:
        """Share of the mixture in which one of the nodes is there: in all but those that skip a block with all."""
        share = torch.ones((), dtype=torch.float64)
        for name, gate in soft.gates.items():
            live = self.space.live(frozenset({name}))
            if nodes and not any(node in live for node in nodes):
                share = share * gate.double()
        return share

    def _shrunk(self, path: str, soft: Soft) -> Tensor | float:
        return soft.kernels[path].double() / self._full[path] if path in soft.kernels else 1.0


def _dims(layer: Any) -> int:
    return len(layer.kernel_size)


def _kernel_of(owners: list[str]) -> str:
    """Path of the layer whose kernel a parameter is: empty where it is none."""
    return next((o.removesuffix(".weight") for o in owners if o.endswith(".weight")), "")
