"""What candidates cost, without making them: exact multiply-accumulates and parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.engine.search.space import Genes, Space
from worker.engine.structure import Term


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


class Costs:
    """Counts for the candidates of a space, as `count_macs` and `Network.parameters` would."""

    def __init__(self, space: Space) -> None:
        self.space = space
        module, structure = space.network.module, space.structure
        nodes = [node for node in module.graph.nodes if node.op != "root"]
        self._nodes: dict[str, tuple[Term, str]] = {
            node.name: (structure.costs[node.name], str(node.target)) for node in nodes if node.name in structure.costs
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
                term,
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
        keep, live, kernels = self._given(genes)
        return {
            name: term(keep) * kernels.get(target, 1) // self._full.get(target, 1)
            for name, (term, target) in self._nodes.items()
            if name in live
        }

    def parameters(self, genes: Genes) -> int:
        """Trainable scalars."""
        keep, live, kernels = self._given(genes)
        total = 0
        for term, owners, kernel in self._sizes:
            if owners and not any(user in live for owner in owners for user in self._users[owner]):
                continue
            total += term(keep) * kernels.get(kernel, 1) // self._full.get(kernel, 1)
        return total

    def _given(self, genes: Genes) -> tuple[Any, frozenset[str], dict[str, int]]:
        space = self.space
        module = space.network.module
        kernels = {
            name: size ** _dims(module.get_submodule(name)) for name, size in space.chosen(genes, "kernel").items()
        }
        return space.keep(genes), space.live(space.skipped(genes)), kernels

    def soft_macs(self, soft: Soft, weights: Mapping[str, float] | None = None) -> Tensor:
        """The multiply-accumulates that a mixture comes to, as if its decisions were independent.

        Args:
            weights: node -> what one of them counts; 1 without.
        """
        total = torch.zeros((), dtype=torch.float64)
        for name, (term, target) in self._nodes.items():
            share = self._stays([name], soft) * self._shrunk(target, soft)
            total = total + _soft(term, soft) * share * (1.0 if weights is None else weights[name])
        return total

    def soft_parameters(self, soft: Soft) -> Tensor:
        """The parameters that a mixture comes to."""
        total = torch.zeros((), dtype=torch.float64)
        for term, owners, kernel in self._sizes:
            users = [user for owner in owners for user in self._users[owner]]
            total = total + _soft(term, soft) * self._stays(users, soft) * self._shrunk(kernel, soft)
        return total

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


def _soft(term: Term, soft: Soft) -> Tensor:
    found = torch.full((), term.constant / term.divisor, dtype=torch.float64)
    for factor in term.factors:
        units = torch.from_numpy(factor.units)
        found = found * (factor.fixed + soft.keep[units].double().sum())
    return found


def _dims(layer: Any) -> int:
    return len(layer.kernel_size)


def _kernel_of(owners: list[str]) -> str:
    """Path of the layer whose kernel a parameter is: empty where it is none."""
    return next((o.removesuffix(".weight") for o in owners if o.endswith(".weight")), "")
