"""Sends labels through a network: forward, again and again, until nothing more is tied or frozen.

First labels go through with as little tied as operators demand. What is then left of values whose labels differ along
several dimensions (heads and what is in them, groups and their channels) is tied along all but one, so that any choice
of classes leaves every value a box: some indices of each dimension.
"""

from typing import Any, Final

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, fx, nn

from worker.engine.formats.layers import named_arguments
from worker.engine.measure.macs import random_inputs
from worker.engine.network import Network
from worker.engine.structure.call import Call, Labels, alive, flat, nobody, shadow
from worker.engine.structure.labels import empty, essential, tie_along, varying
from worker.engine.structure.layers import Records, Visit, visit
from worker.engine.structure.movement import MAKERS, MOST_LABELS
from worker.engine.structure.operators import RULES, unknown
from worker.engine.structure.ties import Ties

_RESULT: Final = "they are the model's results"
_SINGLE: Final = "a value consists of one of them alone"
_PASSES: Final = 1000
_NAMES: Final = ("weight", "bias")
_SIZES: Final = ("sym_size", "sym_numel")


class Flow:
    """The labels of a network.

    Attributes:
        values: node -> what it computed, as rules need it (see `shadow`).
        labels: node -> labels of that.
        records: of the weights.
    """

    def __init__(self, network: Network) -> None:
        self.ties = Ties()
        self.records = Records(self.ties)
        self.labels: dict[fx.Node, Labels] = {}
        self.module = network.module
        self.values = _Values(network.module).all(random_inputs(network, 2 if network.batched else 1))

    def settle(self) -> None:
        """Go through the graph until nothing changes."""
        self._repeat()
        while self._close():
            self._repeat()

    def _repeat(self) -> None:
        for _ in range(_PASSES):
            before = self._changes()
            self._pass()
            if self._changes() == before:
                return
        raise RuntimeError("labels do not come to rest")

    def _changes(self) -> int:
        self.ties.roots()
        return self.ties.changes

    def _pass(self) -> None:
        self.records = Records(self.ties)
        self.labels = {}
        for node in self.module.graph.nodes:
            labels = self._node(node)
            self.labels[node] = labels
        for one in flat(list(self.labels.values())):
            if not empty(one) and not varying(self.ties, one):
                self.ties.freeze(essential(one), _SINGLE)

    def _node(self, node: fx.Node) -> Labels:
        if node.op == "output":
            for labels in flat(fx.map_arg(node.args[0], self.labels.__getitem__)):
                self.ties.freeze(essential(labels), _RESULT)
            return None
        result = self.values[node]
        if node.op == "get_attr":
            return self._attribute(node, result)
        if node.op == "call_module":
            given: Any = fx.map_arg((*node.args, *node.kwargs.values()), self.labels.__getitem__)
            first, *rest = given
            path = str(node.target)
            return visit(Visit(self.records, path, self.module.get_submodule(path), first, rest, result))
        if node.op == "call_function":
            return self._call(node, result)
        return nobody(result)

    def _attribute(self, node: fx.Node, value: Any) -> Labels:
        if not isinstance(value, Tensor) or not value.is_floating_point() or not 1 < value.numel() <= MOST_LABELS:
            return nobody(value)
        tensor = attribute(self.module, str(node.target))
        if id(tensor) in self._weights():
            path, _, name = str(node.target).rpartition(".")
            for dim, size in enumerate(tensor.shape):
                owner = self.module.get_submodule(path)
                self.records.add(path, owner, name, dim, "parameter", torch.zeros(size, dtype=torch.int64))
            return nobody(value)
        return self.ties.fresh(("attribute", id(tensor)), value.numel()).reshape(value.shape)

    def _weights(self) -> set[int]:
        """Tensors that layers compute with; a reader may keep others of the graph under a layer's name."""
        paths = {str(node.target) for node in self.module.graph.nodes if node.op == "call_module"}
        parts = [self.module.get_submodule(path) for path in paths]
        return {
            id(tensor)
            for part in parts
            for name, tensor in part.named_parameters(recurse=False)
            if name in _NAMES or isinstance(part, nn.RNNBase)
        }

    def _call(self, node: fx.Node, result: Any) -> Labels:
        given: Any = fx.map_arg((node.args, node.kwargs), self.labels.__getitem__)
        if not isinstance(node.target, torch._ops.OpOverload):
            if node.target.__name__ == "getitem" and not isinstance(given[0][0], Tensor):  # type: ignore[union-attr]
                return None if given[0][0] is None else given[0][0][node.args[1]]
            for one in flat(given):
                self.ties.freeze(essential(one), "they are computed with in Python")
            return nobody(result)
        name = operator_name(node)
        if name in _SIZES:  # computed again, from what is left
            return None
        arguments = named_arguments(node, node.target)
        labels = _tensors_only(fx.map_arg(arguments, self.labels.__getitem__))
        rule = RULES.get(name, unknown) if alive(list(labels.values())) else MAKERS.get(name)
        if rule is None:
            return nobody(result)
        values = fx.map_arg(arguments, self.values.__getitem__)
        found = rule(Call(self.ties, node, values, labels, result))
        if [tuple(one.shape) for one in flat(found)] != [tuple(one.shape) for one in flat(nobody(result))]:
            raise RuntimeError(f"the labels of {node.name} have another shape than its value")
        return found

    def _close(self) -> bool:
        """Tie values whose labels differ along several dimensions; whether there were any."""
        before = self._changes()
        for node in self.module.graph.nodes:
            for labels in flat(self.labels[node]):
                differ = varying(self.ties, labels)
                if len(differ) > 1:
                    kept = max(differ, key=lambda dim: (self._left(labels, dim), dim))
                    tie_along(self.ties, labels, [dim for dim in differ if dim != kept], _SINGLE)
        return self._changes() != before

    def _left(self, labels: Tensor, kept: int) -> int:
        """How many classes that can be removed are left where all is tied but along `kept`."""
        found = self.ties.resolved(essential(labels)).movedim(kept, 0).flatten(1).numpy()
        members, places = np.unique(found, return_inverse=True)
        places = places.reshape(found.shape)
        pairs = np.stack([np.broadcast_to(places[:, :1], places.shape).reshape(-1), places.reshape(-1)])
        size = len(members)
        links = coo_array((np.ones(pairs.shape[1], np.int8), (pairs[0], pairs[1])), shape=(size, size))
        _, component = connected_components(links, directed=False)
        solid = np.isin(members, self.ties.removable())
        return len(set(component[solid]) - set(component[members == 0]))


class _Values(fx.Interpreter):
    """What every node computes."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[fx.Node, Any] = {}

    @torch.no_grad()
    def all(self, inputs: tuple[Tensor, ...]) -> dict[fx.Node, Any]:
        """Node -> shadow of its value."""
        self.run(*inputs)
        return self.seen

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.seen[n] = shadow(result)
        return result


def operator_name(node: fx.Node) -> str:
    """``relu`` for ``aten.relu.default`` and ``aten.relu_.default``."""
    name = str(node.target._schema.name).split("::")[1]  # type: ignore[union-attr]
    return name if name.startswith("_") or not name.endswith("_") else name[:-1]


def attribute(module: nn.Module, path: str) -> Tensor:
    """The parameter or buffer at a dotted path."""
    owner, _, name = path.rpartition(".")
    found = getattr(module.get_submodule(owner), name)
    if not isinstance(found, Tensor):
        raise TypeError(f"{path} is no tensor")
    return found


def _tensors_only(labels: Any) -> dict[str, Any]:
    """Arguments with None in place of what is no tensor."""
    return {name: _only(value) for name, value in labels.items()}


def _only(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value
    return [_only(part) for part in value] if isinstance(value, (list, tuple)) else None
