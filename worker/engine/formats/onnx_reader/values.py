"""What an ONNX value can be while a graph is imported, and the graph under construction.

A value is a constant (`Tensor`), a tensor of the network (`fx.Node`), a list of sizes (`Sizes`), or absent (None).
Whatever depends on constants alone is computed at once. Every node carries three *shadows* in ``meta["shadows"]``:
what it gives, on the meta device, for three different sizes of the symbolic dimensions. They tell ranks, types, and
which sizes are fixed: those that are equal in all. The third are as small as the model takes them: the first ten steps
of a sequence are ten under two long ones, and fewer under a short one.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from worker.engine.errors import InvalidModel, Unsupported
from worker.engine.formats import codes
from worker.engine.formats.mapped import Mapped
from worker.engine.formats.names import Tree
from worker.engine.formats.program import State

Size = int | fx.Node


@dataclass(frozen=True)
class Sizes:
    """A tensor of integers that are sizes, at least one of them symbolic; `scalar` ones have no dimension."""

    values: tuple[Size, ...]
    scalar: bool = False


Value = Tensor | fx.Node | Sizes | None

_SHADOWS: Final = "shadows"
#: The shadows of a node.
WHICH: Final = (0, 1, 2)
#: Most elements of a constant that is computed while reading: a line of a file could ask for terabytes.
MAX_CONSTANT: Final = 1 << 27


def unsupported(what: str) -> Unsupported:
    """The refusal of an operator's rare form."""
    return Unsupported(codes.UNSUPPORTED_ATTRIBUTE, f"The ONNX model uses {what}, which is not supported.")


class Builder:
    """The FX graph and the module tree of one import.

    Args:
        initializers: name of each initializer by the identity of its tensor.
        mapped: the map that large ones lie in.
        widened: types in whose place the network computes in float32.
    """

    def __init__(
        self,
        initializers: dict[int, str],
        mapped: Mapped | None = None,
        widened: frozenset[torch.dtype] = frozenset(),
    ) -> None:
        self._mapped = mapped
        self.graph = fx.Graph()
        self.tree = Tree((), {})
        self.root = self.tree.root
        self.initializers = initializers
        self.widened = widened
        self.notes: list[str] = []
        self._attributes: dict[int, fx.Node] = {}
        self._kept: list[Tensor] = []  # ids stay unique while their tensors live
        self._sizes: dict[tuple[int, int], fx.Node] = {}
        self._derived: dict[tuple[object, ...], Tensor] = {}

    # -- facts ---------------------------------------------------------------------------------------------------

    def shadow(self, value: Any, which: int) -> Any:
        """What `value` is under the `which`-th sizes, on the meta device."""
        if isinstance(value, fx.Node):
            return value.meta[_SHADOWS][which]
        return value.to("meta") if isinstance(value, Tensor) else value

    def rank(self, value: Value) -> int:
        """Number of dimensions."""
        if isinstance(value, Sizes):
            return 0 if value.scalar else 1
        return int(self.shadow(value, 0).dim())

    def dtype(self, value: Value) -> torch.dtype:
        """Element type."""
        return torch.int64 if isinstance(value, Sizes) else self.shadow(value, 0).dtype

    def size(self, value: Value, axis: int) -> Size:
        """One size: a number where it is fixed, else the node that computes it."""
        seen = {int(self.shadow(value, which).shape[axis]) for which in WHICH}
        if len(seen) == 1:
            return seen.pop()
        key = (id(value), axis % self.rank(value))
        if key not in self._sizes:
            self._sizes[key] = self.call(torch.ops.aten.sym_size.int, value, key[1])
        return self._sizes[key]

    def shape(self, value: Value) -> tuple[Size, ...]:
        """All sizes."""
        return tuple(self.size(value, axis) for axis in range(self.rank(value)))

    def fixed(self, value: Value, axis: int, what: str) -> int:
        """One size that has to be a number."""
        size = self.size(value, axis)
        if isinstance(size, int):
            return size
        raise unsupported(f"{what} with a symbolic size")

    # -- construction --------------------------------------------------------------------------------------------

    def placeholder(self, name: str, shadows: tuple[Tensor, ...]) -> fx.Node:
        """An input of the network."""
        node = self.graph.placeholder(name)
        node.meta[_SHADOWS] = shadows
        return node

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `target`: at once where all arguments are constant, else as a node."""
        if not _has_node((args, kwargs)):
            self._refuse_large(target, args, kwargs)
            with torch.no_grad():
                return target(*args, **kwargs)
        shadows = tuple(self._shadow_call(target, args, kwargs, which) for which in WHICH)
        node = self.graph.call_function(target, _map(args, self.attribute), _map(kwargs, self.attribute))
        node.meta[_SHADOWS] = shadows
        return node

    def _refuse_large(self, target: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            shadow = self._shadow_call(target, args, kwargs, 0)
        except (NotImplementedError, RuntimeError):
            return  # without a meta form, or wrong: the call itself tells
        values = shadow if isinstance(shadow, (list, tuple)) else [shadow]
        self.bounded(sum(value.numel() for value in values if isinstance(value, Tensor)))

    def _shadow_call(self, target: Callable[..., Any], args: Any, kwargs: Any, which: int) -> Any:
        def shadow(value: Any) -> Any:
            return self.shadow(value, which)

        # What is made on the CPU is made on the meta device here.
        meta = {k: torch.device("meta") if k == "device" else _map(v, shadow) for k, v in kwargs.items()}
        return target(*_map(args, shadow), **meta)

    def count(self, start: Size, stop: Size, step: int = 1) -> Any:
        """The integers of a range: a constant of bounded length where it is fixed."""
        return self.call(torch.ops.aten.arange.start_step, start, stop, step, device=torch.device("cpu"))

    def bounded(self, elements: int) -> None:
        """Refuse a constant that a few bytes of the file say how to make, but that fills the memory."""
        if elements > MAX_CONSTANT:
            raise InvalidModel(
                codes.ARCHIVE_TOO_LARGE,
                f"A constant that the model computes has {elements} elements; at most {MAX_CONSTANT} are made.",
            )

    def item(self, node: Any, index: int) -> Any:
        """One result of a call that returns several."""
        return self.call(operator.getitem, node, index) if isinstance(node, fx.Node) else node[index]

    def attribute(self, value: Any) -> Any:
        """Constants become ``get_attr`` nodes of a parameter (float initializers) or a buffer."""
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._attributes:
            name = self.initializers.get(id(value))
            trainable = name is not None and value.dtype.is_floating_point
            state = State(name or f"constants.c{len(self._attributes)}", value, trainable)
            node = self.graph.get_attr(self.tree.keep(state))
            node.meta[_SHADOWS] = (value.to("meta"),) * len(WHICH)
            if name:
                node.meta["onnx_value"] = name
            self._attributes[id(value)] = node
            self._kept.append(value)
        return self._attributes[id(value)]

    def derived(self, tensor: Tensor, how: str, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute(tensor)`, the same object each time, so that shared weights stay shared."""
        key = (id(tensor), how)
        if key not in self._derived:
            self._kept.append(tensor)
            self._derived[key] = compute(tensor)
            if self._mapped is not None:
                self._mapped.release(tensor)
        return self._derived[key]

    def layer(
        self, module: nn.Module, weights: dict[str, Tensor], data: Value, origin: "Origin", *more: Any
    ) -> fx.Node:
        """Put a module into the tree and call it.

        Args:
            module: built on the meta device.
            weights: its parameters and buffers.
            data: the tensor it is called with.
            origin: where the layer is in the file.
            more: further arguments of the call, such as initial states.
        """
        states = {
            attribute: State(f"{origin.layer}.{attribute}", tensor, tensor.dtype.is_floating_point)
            for attribute, tensor in weights.items()
        }
        for attribute in ("running_mean", "running_var"):
            if attribute in states:
                states[attribute] = State(states[attribute].name, weights[attribute], trainable=False)
        run = _brief(module.eval()) if isinstance(module, nn.RNNBase) else module.eval()
        shadows = tuple(self._shadow_call(run, (data, *more), {}, which) for which in WHICH)
        path = self.tree.place(module, states, (origin.layer, ""), origin.layer, repr((type(module), str(module))))
        node = self.graph.call_module(path, tuple(_map((data, *more), self.attribute)))
        node.meta.update({_SHADOWS: shadows, "onnx_node": origin.node, "onnx_weight": origin.weight})
        node.name = self.graph._graph_namespace.create_name(path.replace(".", "_"), node)
        return node

    # -- conversions ---------------------------------------------------------------------------------------------

    def tensor(self, value: Value) -> Tensor | fx.Node:
        """`value` as a tensor; sizes are put into one."""
        if isinstance(value, Sizes):
            make, cpu = torch.ops.aten.scalar_tensor.default, torch.device("cpu")
            parts = [self.call(make, size, dtype=torch.int64, device=cpu) for size in value.values]
            joined: Tensor | fx.Node = parts[0] if value.scalar else self.call(torch.ops.aten.stack.default, parts)
            return joined
        if value is None:
            raise unsupported("an absent value where one is needed")
        return value

    def sizes(self, value: Value, what: str) -> list[Size]:
        """`value` as a list of sizes, for operators that take them as numbers."""
        if isinstance(value, Sizes):
            return list(value.values)
        if isinstance(value, Tensor):
            return [int(v) for v in value.reshape(-1).tolist()]
        raise unsupported(f"{what} that is computed from data")

    def numbers(self, value: Value, what: str) -> list[int]:
        """`value` as a list of plain integers."""
        sizes = self.sizes(value, what)
        if all(isinstance(size, int) for size in sizes):
            return sizes  # type: ignore[return-value]
        raise unsupported(f"{what} that depends on a symbolic size")

    def pack(self, values: Sequence[Size], scalar: bool = False) -> Value:
        """Sizes as a value: a constant where all are numbers."""
        if all(isinstance(value, int) for value in values):
            return torch.tensor(values[0] if scalar else list(values), dtype=torch.int64)
        return Sizes(tuple(values), scalar)


@dataclass(frozen=True)
class Origin:
    """Where a layer is in the file.

    Attributes:
        node: the ONNX node.
        weight: the initializer of its weight.
        layer: what to call the module.
    """

    node: str
    weight: str
    layer: str


def _brief(module: nn.RNNBase) -> Callable[..., Any]:
    """A recurrent layer for shapes alone: torch would trace each of hundreds of steps, and one tells as much."""

    def run(x: Tensor, *states: Any) -> Any:
        y, last = module(x[:1], *states)
        return y.new_empty(x.shape[0], *y.shape[1:]), last

    return run


def _has_node(value: Any) -> bool:
    found: list[fx.Node] = []
    map_arg(value, lambda node: found.append(node))
    return bool(found)


def _map(value: Any, function: Callable[[Any], Any]) -> Any:
    """Apply `function` to the nodes and tensors inside lists, tuples and dictionaries."""
    if isinstance(value, (list, tuple)):
        return type(value)(_map(inner, function) for inner in value)
    if isinstance(value, dict):
        return {key: _map(inner, function) for key, inner in value.items()}
    return function(value) if isinstance(value, (fx.Node, Tensor)) else value
