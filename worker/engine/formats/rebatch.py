"""A graph for another batch than the one that it was written down with (see `batch`)."""

import copy
import math
import operator
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from worker.engine.formats.apart import RECURRENT, works_along
from worker.engine.network import Network

aten = torch.ops.aten
#: The other batch is the old one times this: a prime that sizes are rarely multiples of.
_TIMES: Final = 7
_RESHAPES: Final = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)
_EXPANDS: Final = (aten.expand.default, aten.broadcast_to.default)
#: Calls that make or repeat a tensor -> position of the sizes.
_MAKERS: Final = {
    aten.zeros.default: 0,
    aten.ones.default: 0,
    aten.full.default: 0,
    aten.new_zeros.default: 1,
    aten.new_ones.default: 1,
    aten.new_full.default: 1,
    aten.repeat.default: 1,
}
_JOINS: Final = (aten.cat.default, aten.stack.default)
#: Calls whose tensors are broadcast.
_BROADCASTS: Final = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.where.self)
#: Most numbers in all values together that are computed to compare.
_MOST: Final = 1 << 28


class Rewriter:
    """Follows a copy of the graph with another batch, node by node, and mends what does not fit it.

    Every value that depends on the input keeps the batch in exactly one dimension, and no operator works along that
    one: so what is said of a sample cannot depend on the others.

    Raises:
        ValueError: a value whose shape does not follow the batch, or an operator that mixes samples.
    """

    def __init__(self, network: Network, size: int) -> None:
        self._size = size
        self._copy = fx.GraphModule(network.module, copy.deepcopy(network.module.graph))  # the weights are the same
        self._graph = self._copy.graph
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._old = _Recorder(network.module)
        self._new = _Recorder(self._copy)
        self._inputs = [spec.example() for spec in network.inputs]
        self._multiples: dict[int, fx.Node] = {}
        # Elements of a dimension in front of the batch, where the two were merged: sequences come first in some.
        self._outer: dict[str, int] = {}

    def module(self) -> fx.GraphModule:
        """The copy, mended."""
        with self._mode, torch.no_grad():
            fakes = [self._mode.from_tensor(value) for value in self._inputs]
            self._old.run(*fakes)
            if sum(tensor.numel() for value in self._old.seen.values() for tensor in _tensors(value)) > _MOST:
                raise ValueError("too large to be compared")
            larger = iter(fake.repeat(_TIMES, *[1] * (fake.dim() - 1)) for fake in fakes)
            nodes = list(self._graph.nodes)
            for node in nodes:
                if node.op == "placeholder":
                    self._new.env[node] = self._new.seen[node.name] = next(larger)
                elif node.op != "output":
                    self._mend(node)
                    self._run(node)
                    self._check(node)
                    self._keeps_apart(node)
                    self._outer.setdefault(node.name, self._inherited(node))
                elif any(not self._carries(result) for result in node.args[0]):
                    raise ValueError("a result that does not depend on the batch")
        self._graph.eliminate_dead_code()
        self._graph.lint()
        self._copy.recompile()
        return self._copy.eval()

    def _run(self, node: fx.Node) -> fx.Node:
        self._new.env[node] = self._new.run_node(node)
        return node

    def _check(self, node: fx.Node) -> None:
        """Every size is what it was, or `_TIMES` that."""
        for old, new in zip(_tensors(self._old.seen[node.name]), _tensors(self._new.seen[node.name]), strict=True):
            if old.dim() != new.dim() or any(
                n not in (o, o * _TIMES) for o, n in zip(old.shape, new.shape, strict=True)
            ):
                raise ValueError(f"{node.name} of shape {tuple(old.shape)} becomes {tuple(new.shape)}")

    def _keeps_apart(self, node: fx.Node) -> None:
        """Samples stay samples: the batch is in one dimension of every result, and the operator works along others."""
        followed = [source for source in node.all_input_nodes if self._axis(source) is not None]
        results = list(zip(_tensors(self._old.seen[node.name]), _tensors(self._new.seen[node.name]), strict=True))
        if not followed or not results:
            return
        if any(sum(o != n for o, n in zip(old.shape, new.shape, strict=True)) != 1 for old, new in results):
            raise ValueError(f"{node.name} mixes samples")
        layer = self._copy.get_submodule(str(node.target)) if node.op == "call_module" else None
        if works_along(node, layer, self._axis(followed[0]) or 0, len(self._shapes(followed[0])[0])):
            raise ValueError(f"{node.name} works along the batch")

    # -- facts ---------------------------------------------------------------------------------------------------

    def _shapes(self, value: Any) -> tuple[list[int], list[int]]:
        """Sizes with the old batch and with the new one; empty for what is no tensor."""
        if not isinstance(value, fx.Node) or not isinstance(old := self._old.seen.get(value.name), Tensor):
            return [], []
        return list(old.shape), list(self._new.seen[value.name].shape)

    def _carries(self, value: Any) -> bool:
        """Whether the first dimension of `value` is the batch."""
        old, new = self._shapes(value)
        return bool(old) and old[0] == self._size and new[0] == self._size * _TIMES

    def _axis(self, value: Any) -> int | None:
        """The dimension that the batch is in; None where it is in none."""
        old, new = self._shapes(value)
        return next((axis for axis, (o, n) in enumerate(zip(old, new, strict=True)) if o != n), None)

    def _inherited(self, node: fx.Node) -> int:
        """`_outer` of a value that has its batch where one of its arguments has it."""
        axis = self._axis(node)
        for source in node.all_input_nodes if axis is not None else ():
            own = self._axis(source)
            if own is not None and self._shapes(source)[0][own] == self._shapes(node)[0][axis or 0]:
                return self._outer.get(source.name, 1)
        return 1

    def _follows(self, value: Any) -> bool:
        old, new = self._shapes(value)
        return old != new

    def _multiple(self, factor: int) -> fx.Node:
        """The node that computes `factor` times the batch."""
        if factor not in self._multiples:
            placeholders = [node for node in self._graph.nodes if node.op == "placeholder"]
            if factor == 1:
                with self._graph.inserting_after(placeholders[-1]):
                    made = self._graph.call_function(aten.sym_size.int, (placeholders[0], 0))
            else:
                one = self._multiple(1)
                with self._graph.inserting_after(one):
                    made = self._graph.call_function(operator.mul, (one, factor))
            self._multiples[factor] = self._run(made)
        return self._multiples[factor]

    # -- rules ---------------------------------------------------------------------------------------------------

    def _mend(self, node: fx.Node) -> None:
        target: Any = node.target
        if node.op == "call_module":
            self._recurrent(node)
        elif target in _RESHAPES and self._follows(node.args[0]):
            self._reshape(node)
        elif target in _EXPANDS:
            self._expand(node)
        elif target in _MAKERS and self._size > 1:
            self._make(node, _MAKERS[target])
        elif target in _JOINS:
            self._join(node)
        elif target in _BROADCASTS and any(map(self._follows, node.args)):
            node.args = tuple(self._first(node, value) for value in node.args)

    def _reshape(self, node: fx.Node) -> None:
        """The size that has the batch in it becomes a multiple of it; -1 where the sizes leave room for that."""
        source, sizes = node.args[0], list(node.args[1])  # type: ignore[arg-type]
        old, at = self._shapes(source)[0], self._axis(source) or 0
        before = math.prod(old[:at]) * self._outer.get(getattr(source, "name", ""), 1)
        result = list(self._old.seen[node.name].shape)
        axis = _place(result, before, self._size, old[at + 1 :], merges=len(result) < len(old))
        self._outer[node.name] = max(before // math.prod(result[:axis]), 1)
        if sizes[axis] == -1:
            return
        others = [size for index, size in enumerate(sizes) if index != axis]
        inferred = all(isinstance(size, int) and size != -1 for size in others)
        sizes[axis] = -1 if inferred else self._multiple(result[axis] // self._size)
        node.args = (source, sizes, *node.args[2:])

    def _expand(self, node: fx.Node) -> None:
        source, sizes = node.args[0], list(node.args[1])  # type: ignore[arg-type]
        old, new = self._shapes(source)
        offset = len(sizes) - len(old)
        for axis, (o, n) in enumerate(zip(old, new, strict=True)):
            if o != n:
                sizes[offset + axis] = -1
        if old == new and sizes and sizes[0] == self._size and self._size > 1 and (offset or old[0] == 1):
            sizes[0] = self._multiple(1)
        node.args = (source, sizes, *node.args[2:])

    def _make(self, node: fx.Node, position: int) -> None:
        sizes = list(node.args[position])  # type: ignore[arg-type]
        if self._size in sizes and not self._follows(node.args[0]):
            sizes[sizes.index(self._size)] = self._multiple(1)
            node.args = (*node.args[:position], sizes, *node.args[position + 1 :])

    def _join(self, node: fx.Node) -> None:
        """Parts that are the same for all samples, such as a class token, are repeated for each."""
        parts = list(node.args[0])  # type: ignore[arg-type]
        if any(map(self._carries, parts)):
            node.args = ([self._repeated(node, part, 0) for part in parts], *node.args[1:])

    def _recurrent(self, node: fx.Node) -> None:
        """Initial states that were written down for the old batch."""
        if isinstance(self._copy.get_submodule(str(node.target)), RECURRENT) and len(node.args) > 1:
            given = node.args[1]
            states = given if isinstance(given, (list, tuple)) else (given,)
            mended = tuple(self._repeated(node, state, 1) for state in states)
            node.args = (node.args[0], mended if isinstance(given, (list, tuple)) else mended[0])

    def _repeated(self, node: fx.Node, part: Any, axis: int) -> Any:
        """A part that is the same for all samples, for as many as there are now."""
        old, new = self._shapes(part)
        if old != new or len(old) <= axis or old[axis] != self._size:
            return part
        sizes: list[Any] = [-1] * len(old)
        sizes[axis] = self._multiple(1)
        return self._before(node, aten.expand.default, self._first(node, part, axis), sizes)

    def _first(self, node: fx.Node, value: Any, axis: int = 0) -> Any:
        """Of a constant that was written down once for each sample, the one of the first."""
        old, new = self._shapes(value)
        if old != new or self._size == 1 or len(old) <= axis or old[axis] != self._size:
            return value
        return self._before(node, aten.slice.Tensor, value, axis, 0, 1)

    def _before(self, node: fx.Node, target: Any, *args: Any) -> fx.Node:
        with self._graph.inserting_before(node):
            return self._run(self._graph.call_function(target, args))


class _Recorder(fx.Interpreter):
    """Notes the value of each node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.seen: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.seen[n.name] = result
        return result


def _tensors(value: Any) -> list[Tensor]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [
        inner
        for item in values
        for inner in (item if isinstance(item, (list, tuple)) else [item])
        if isinstance(inner, Tensor)
    ]


def _place(result: list[int], before: int, size: int, after: list[int], *, merges: bool) -> int:
    """Which dimension of a reshape's result has the batch in it.

    A batch of 1 leaves several: (17, 1, 8) -> (17, 8) puts it in front, since the 8 stay, and (17, 1, 8) -> (17, 2, 4)
    behind, as attention splits its heads. A wrong guess gives other answers, and those are compared.

    Args:
        before: elements in front of the batch.
        after: the sizes behind it.
        merges: whether the result has fewer dimensions.

    Raises:
        ValueError: the batch is spread over several.
    """
    reach = [math.prod(result[:axis]) for axis in range(len(result) + 1)]
    exact = [axis for axis in range(len(result)) if reach[axis] == before and result[axis] == size]
    around = [axis for axis in range(len(result)) if reach[axis] <= before and reach[axis + 1] >= before * size]
    kept = [axis for axis in around if result[axis + 1 :] == after]
    if merges:
        kept = kept or [axis for axis in around if math.prod(result[axis + 1 :]) == math.prod(after)]
    if not exact and not around:
        raise ValueError("a reshape that spreads the batch over several dimensions")
    return exact[0] if exact else kept[0] if kept else around[-1]
