"""The serialized graph of a ``.pt2`` -> an FX graph, by tables: nothing of the file is looked up as Python."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import fx

from worker.engine.errors import InvalidModel, Unsupported
from worker.engine.formats import aten, codes, expressions
from worker.engine.formats.lift import unsupported_operators
from worker.engine.formats.names import identifier
from worker.engine.formats.pt2_schema import (
    Argument,
    Graph,
    Named,
    Node,
    OptionalTensor,
    SymArgument,
    SymBool,
    SymFloat,
    SymInt,
)
from worker.engine.formats.weights import dtype_of

_MEMORY_FORMATS: Final = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_LAYOUTS: Final = {7: torch.strided}
_INLINED: Final = "torch.ops.higher_order.wrap_with_set_grad_enabled"
_PLAIN: Final = frozenset(
    ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string", "as_int_lists", "as_float_lists")
)


def _invalid(what: str) -> InvalidModel:
    return InvalidModel(codes.GRAPH_INVALID, f"The graph in the file is broken: {what}.")


def unknown_operators(graph: Graph) -> set[str]:
    """Targets in `graph`, and in the graphs it calls, that a network may not contain."""
    unknown: set[str] = set()
    for node in graph.nodes:
        if node.target != _INLINED and aten.resolve(node.target) is None:
            unknown.add(node.target.removeprefix("torch.ops.").removesuffix(".default")[:80])
        for argument in node.inputs:
            if argument.arg.tag == "as_graph":
                unknown |= unknown_operators(argument.arg.as_graph.graph)
    return unknown


class GraphBuilder:
    """Builds the FX graphs of one file.

    Attributes:
        subgraphs: graphs that are arguments, by the name of their ``get_attr``.
    """

    def __init__(self) -> None:
        self.subgraphs: dict[str, fx.Graph] = {}
        self._checked: set[str] = set()

    def build(self, graph: Graph) -> tuple[fx.Graph, dict[str, fx.Node]]:
        """The FX graph and its nodes by the names that the file gives to values.

        Raises:
            Unsupported: operators that a network may not contain, all of them named.
            UnsafeFile: a shape expression that is not one.
            InvalidModel: names that are not defined, arguments that do not fit.
        """
        if unknown := unknown_operators(graph):
            raise unsupported_operators(sorted(unknown))
        self._check_expressions(graph)
        return _GraphReader(self, graph).read()

    def _check_expressions(self, graph: Graph) -> None:
        """Parse every expression, used or not, so that a file with code in it is refused as such."""
        values: list[SymInt | SymFloat | SymBool] = [
            size for meta in graph.tensor_values.values() for size in (*meta.sizes, *meta.strides, meta.storage_offset)
        ]
        values += graph.sym_int_values.values()
        values += graph.sym_bool_values.values()
        values += graph.sym_float_values.values()
        for value in values:
            if value.tag == "as_expr" and value.as_expr.expr_str not in self._checked:
                expressions.parse(value.as_expr.expr_str)
                self._checked.add(value.as_expr.expr_str)


class _GraphReader:
    """One graph: `values` maps the file's names of values to nodes."""

    def __init__(self, builder: GraphBuilder, source: Graph) -> None:
        self.builder = builder
        self.source = source
        self.graph = fx.Graph()
        self.values: dict[str, fx.Node] = {}

    def read(self) -> tuple[fx.Graph, dict[str, fx.Node]]:
        for index, argument in enumerate(self.source.inputs):
            name = f"constant_{index}"
            if argument.tag == "as_tensor":
                name = argument.as_tensor.name
            elif argument.tag == "as_sym_int" and argument.as_sym_int.tag == "as_name":
                name = argument.as_sym_int.as_name
            node = self.graph.placeholder(identifier(name))
            self.define(name, node)
        for call in self.source.nodes:
            self.call(call)
        self.graph.output(tuple(self.result(argument) for argument in self.source.outputs))
        return self.graph, self.values

    def define(self, name: str, node: fx.Node) -> None:
        if name in self.values:
            raise _invalid(f"the value {name[:80]!r} is defined twice")
        self.values[name] = node
        if name in self.source.tensor_values:
            node.meta["rank"] = len(self.source.tensor_values[name].sizes)

    def lookup(self, name: str) -> fx.Node:
        if name not in self.values:
            raise _invalid(f"the value {name[:80]!r} is used before it is defined")
        return self.values[name]

    def result(self, argument: Argument) -> Any:
        return self.lookup(argument.as_tensor.name) if argument.tag == "as_tensor" else None

    def call(self, call: Node) -> None:
        if call.target == _INLINED:
            target: Callable[..., Any] = torch.ops.higher_order.wrap_with_set_grad_enabled
        else:
            target = aten.resolve(call.target) or operator.getitem
        args, kwargs = self.arguments(call, target)
        node = self.graph.create_node(
            "call_function", target, args, kwargs, identifier(call.name or _first_result(call))
        )
        stack = call.metadata.get("nn_module_stack", "").rpartition(";")[2].split(",")
        if len(stack) == 3:
            node.meta["owner"] = (stack[1].partition("@")[0], stack[2])
        self.results(call, node)

    def arguments(self, call: Node, target: Callable[..., Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not isinstance(target, torch._ops.OpOverload):
            return tuple(self.argument(given.arg) for given in call.inputs), {}
        given = {argument.name: argument for argument in call.inputs}
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        schema = target._schema.arguments
        if len(given) != len(call.inputs) or not given.keys() <= {argument.name for argument in schema}:
            raise _invalid(f"{call.target} is called with arguments that it does not have")
        for argument in schema:
            if argument.name not in given:
                if not argument.has_default_value():
                    raise _invalid(f"{call.target} is called without {argument.name!r}")
                continue
            value = self.argument(given[argument.name].arg)
            if argument.kwarg_only or len(args) < schema.index(argument):
                kwargs[argument.name] = value
            else:
                args.append(value)
        return tuple(args), kwargs

    def argument(self, argument: Argument) -> Any:
        tag, value = argument.tag, argument.value
        if tag in _PLAIN:
            return [list(v) for v in value] if tag.endswith("_lists") else list(value) if tag.endswith("s") else value
        reader = _READERS.get(tag)
        if reader is None:
            raise Unsupported(codes.UNSUPPORTED_INPUT, f"The model has an argument of kind {tag}.")
        return reader(self, value)

    def symbolic(self, value: SymArgument) -> Any:
        return self.lookup(value.as_name) if value.tag == "as_name" else value.value

    def optional(self, value: OptionalTensor) -> fx.Node | None:
        return self.lookup(value.as_tensor.name) if value.tag == "as_tensor" else None

    def subgraph(self, value: Any) -> fx.Node:
        name = identifier(value.name)
        if name in self.builder.subgraphs:
            raise _invalid(f"the inner graph {name!r} is defined twice")
        self.builder.subgraphs[name], _ = self.builder.build(value.graph)
        return self.graph.get_attr(name)

    def results(self, call: Node, node: fx.Node) -> None:
        """Name the results; several are picked out of the tuple or list that the call returns."""
        several = call.target == _INLINED
        names: list[str | None] = []
        for output in call.outputs:
            if output.tag == "as_tensors":
                several = True
                names += [tensor.name for tensor in output.as_tensors]
            elif output.tag == "as_tensor":
                names.append(output.as_tensor.name)
            elif output.tag in ("as_sym_int", "as_sym_bool", "as_sym_float") and output.value.tag == "as_name":
                names.append(output.value.as_name)
            else:
                names.append(None)
        if not several and len(names) == 1:
            if names[0] is not None:
                self.define(names[0], node)
            return
        for index, name in enumerate(names):
            if name is not None:
                self.define(name, self.graph.call_function(operator.getitem, (node, index)))


def _first_result(call: Node) -> str:
    """What a call is named in files that name values only (before PyTorch 2.11)."""
    match [(output.tag, output.value) for output in call.outputs]:
        case [("as_tensor", Named(name=name))] | [("as_sym_int", SymArgument(as_name=str(name)))] if name:
            return name
    return "value"


def _device(_: _GraphReader, value: Any) -> torch.device:
    return torch.device("cpu")


def _from(table: Mapping[int, Any], what: str) -> Callable[[_GraphReader, int], Any]:
    def look_up(_: _GraphReader, number: int) -> Any:
        if number not in table:
            raise Unsupported(codes.UNSUPPORTED_INPUT, f"The model asks for {what} number {number}.")
        return table[number]

    return look_up


_READERS: Final[Mapping[str, Callable[[_GraphReader, Any], Any]]] = {
    "as_none": lambda reader, value: None,
    "as_tensor": lambda reader, value: reader.lookup(value.name),
    "as_tensors": lambda reader, value: [reader.lookup(tensor.name) for tensor in value],
    "as_nested_tensors": lambda reader, value: [[reader.lookup(t.name) for t in inner] for inner in value],
    "as_optional_tensor": lambda reader, value: (
        reader.lookup(value.as_tensor.name) if value.tag == "as_tensor" else None
    ),
    "as_optional_tensors": lambda reader, value: [
        reader.lookup(v.as_tensor.name) if v.tag == "as_tensor" else None for v in value
    ],
    **dict.fromkeys(("as_sym_int", "as_sym_bool", "as_sym_float"), _GraphReader.symbolic),
    **dict.fromkeys(
        ("as_sym_ints", "as_sym_bools", "as_sym_floats"), lambda reader, value: [reader.symbolic(v) for v in value]
    ),
    "as_scalar_type": lambda reader, value: dtype_of(value),
    "as_memory_format": _from(_MEMORY_FORMATS, "memory format"),
    "as_layout": _from(_LAYOUTS, "layout"),
    "as_device": _device,
    "as_graph": _GraphReader.subgraph,
}
