"""Program -> Network: every aten call that is a layer becomes its module again.

The call's weights must be parameters or buffers of the program; the module takes the name that the uploader gave
it. Everything else stays as an aten call, with other parameters and buffers as ``get_attr``. In-place calls become
plain ones where nothing else sees the memory, and checks that an exporter wrote down are left out.
"""

import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram, export

from worker.engine.errors import Unsupported
from worker.engine.formats import aten, codes, recurrent
from worker.engine.formats.layers import RULES, Call, Path, named_arguments
from worker.engine.formats.names import Tree, identifier
from worker.engine.formats.program import Program, State, from_exported, name_dimensions, refuse_stateful, rename
from worker.engine.network import Network

_TRAINING_NOTE = "The model was exported in training mode; its dropout and batch norm layers are set to evaluation."


def network_of(module: nn.Module, example_inputs: tuple[Any, ...], dynamic_batch: bool = True) -> Network:
    """The network of a module that is at hand, through `torch.export`.

    Args:
        module: in eval mode, unless batch norm should be seen training.
        example_inputs: positional tensor inputs; a batch of 2 or more where the batch is dynamic.
        dynamic_batch: make dimension 0 of every input symbolic.
    """
    shapes = tuple({0: Dim.DYNAMIC} for _ in example_inputs) if dynamic_batch else None
    return lift(from_exported(quiet_export(module, example_inputs, shapes)), "pt2")


def quiet_export(
    module: nn.Module, example_inputs: tuple[Any, ...], shapes: Any, keywords: dict[str, Any] | None = None
) -> ExportedProgram:
    """`torch.export.export` without its remark on the recurrent layers' flat list of weights."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The tensor attributes? .*_flat_weights", category=UserWarning)
        return export(module, example_inputs, keywords, dynamic_shapes=shapes)


def lift(program: Program, format: str) -> Network:
    """The canonical form of `program`.

    Raises:
        Unsupported: an operator that networks do not have (all of them named), or a model with a state.
    """
    _check_operators(program)
    lifter = _Lifter(program)
    module = lifter.run()
    names = name_dimensions(program.inputs.values(), program.outputs)
    return Network(
        module=module.eval(),
        inputs=tuple(rename(spec, names) for spec in program.inputs.values()),
        outputs=tuple(rename(spec, names) for spec in program.outputs if spec is not None),
        format=format,
        notes=[*program.notes, *lifter.notes],
    )


def _check_operators(program: Program) -> None:
    wrapper = torch.ops.higher_order.wrap_with_set_grad_enabled
    unknown = sorted(
        {
            aten.name_of(node.target)
            for graph in (program.graph, *program.subgraphs.values())
            for node in graph.nodes
            if node.op not in ("placeholder", "output", "get_attr")
            and not (
                node.op == "call_function"
                and (aten.is_allowed(node.target) or aten.is_assertion(node.target) or node.target is wrapper)
            )
        }
    )
    if unknown:
        raise unsupported_operators(unknown)


def unsupported_operators(names: Sequence[str]) -> Unsupported:
    """The error that names every operator which a network cannot hold."""
    return Unsupported(
        codes.UNSUPPORTED_OPERATOR,
        f"The model uses operators that are not supported: {', '.join(names)}. "
        "Rewrite those parts with ordinary layers and tensor operations, and export again.",
    )


def _is_transposed(node: Any) -> bool:
    """Whether the node swaps the two dimensions of a matrix."""
    swaps: dict[object, tuple[Any, ...]] = {
        torch.ops.aten.permute.default: ([1, 0],),
        torch.ops.aten.transpose.int: (0, 1),
        torch.ops.aten.t.default: (),
    }
    return isinstance(node, fx.Node) and node.target in swaps and node.args[1:] == swaps[node.target]


class _Lifter:
    """Copies a program's graph node by node; `env` says what each old node has become."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.graph = fx.Graph()
        self.tree = Tree(program.states.values(), program.tensors)
        self.states = dict(program.states)
        self.env: dict[fx.Node, Any] = {}
        self.notes: list[str] = []
        self.results: dict[fx.Node, tuple[Path, ...]] = {}

    def run(self) -> fx.GraphModule:
        for node in self.program.inputs:
            self.env[node] = self.graph.placeholder(identifier(str(node.target)))
        results = self.copy(self.program.graph)
        kept = [r for r, spec in zip(results, self.program.outputs, strict=True) if spec is not None]
        self.graph.output(tuple(self.value(result) for result in kept))
        for old, new in self.env.items():
            if isinstance(new, fx.Node):
                new.meta = {"rank": old.meta["rank"]} if "rank" in old.meta else {}
        module = fx.GraphModule(self.tree.root, self.graph, class_name="Network")
        module.graph.eliminate_dead_code()
        module.graph.lint()
        module.recompile()
        module.delete_all_unused_submodules()
        return module

    def copy(self, graph: fx.Graph) -> Sequence[Any]:
        """Copy the calls of `graph`; returns the nodes that are its results, still the old ones."""
        for node in graph.nodes:
            if node.op == "output":
                results = node.args[0]
                return results if isinstance(results, (tuple, list)) else (results,)
            if node.op == "call_function" and not aten.is_assertion(node.target):
                self.call(node)
        return ()

    def value(self, old: Any) -> Any:
        """What `old` has become; weights appear in the graph where they are first used."""
        if not isinstance(old, fx.Node):
            return old
        if old not in self.env and old in self.states:
            self.env[old] = self.graph.get_attr(self.tree.keep(self.states[old]))
        return self.env[old]

    def call(self, node: fx.Node) -> None:
        if node.target is torch.ops.higher_order.wrap_with_set_grad_enabled:
            self.inline(node)
        elif node.target is operator.getitem and self.item(node):
            return
        elif isinstance(node.target, torch._ops.OpOverload):
            self.operator(node)
        else:
            self.env[node] = self.graph.node_copy(node, self.value)

    def inline(self, node: fx.Node) -> None:
        """A part under ``torch.no_grad()``: its graph is copied into ours."""
        _, attribute, *arguments = node.args
        subgraph = self.program.subgraphs[str(attribute.target)]  # type: ignore[union-attr]
        placeholders = [inner for inner in subgraph.nodes if inner.op == "placeholder"]
        for inner, argument in zip(placeholders, arguments, strict=True):
            if argument in self.states:
                self.states[inner] = self.states[argument]  # type: ignore[index]
            else:
                self.env[inner] = self.value(argument)
        self.env[node] = tuple(self.value(result) for result in self.copy(subgraph))

    def item(self, node: fx.Node) -> bool:
        """``getitem`` of a layer that returns several tensors, or of a part that was copied in."""
        source, index = node.args
        if not isinstance(source, fx.Node) or not isinstance(index, int):
            return False
        new = self.env.get(source)
        if isinstance(new, tuple):
            self.env[node] = new[index]
            return True
        if source not in self.results:
            return False
        for step in self.results[source][index]:
            new = self.graph.call_function(operator.getitem, (new, step))
        self.env[node] = new
        return True

    def operator(self, node: fx.Node) -> None:
        target = node.target
        if not isinstance(target, torch._ops.OpOverload):
            raise TypeError(f"{node} does not call an aten overload")
        target = aten.canonical(target)
        name = target._schema.name.split("::")[1]
        base = node.args[0] if node.args and target._schema.is_mutable else None
        if isinstance(base, fx.Node):
            if base in self.states:
                refuse_stateful(self.states[base].name)
                return  # a counter of training batches
            plain = getattr(torch.ops.aten, name[:-1], None)
            if plain is not None and target._overloadname in plain.overloads() and self.unseen(node, base):
                self.layer_or_call(node, name[:-1], getattr(plain, target._overloadname))
                self.env[base] = self.env[node]
                return
        self.layer_or_call(node, name, target)

    def unseen(self, node: fx.Node, base: fx.Node) -> bool:
        """Whether no other node looks at the memory that `node` changes in place."""
        return not aten.aliases(base) and not any(user is not node and aten.aliases(user) for user in base.users)

    def layer_or_call(self, node: fx.Node, name: str, target: torch._ops.OpOverload) -> None:
        if name in recurrent.RECURRENT and self.recurrent_layer(node, name, target):
            return
        if name in RULES and self.layer(node, name, target):
            return
        if name in ("addmm", "mm") and self.matrix_product(node, name, target):
            return
        copy = self.graph.node_copy(node, self.value)
        copy.target = target
        self.env[node] = copy

    def layer(self, node: fx.Node, name: str, target: torch._ops.OpOverload) -> bool:
        rule, arguments = RULES[name], named_arguments(node, target)
        states: dict[str, State] = {}
        for argument in rule.weights:
            value = arguments.get(argument)
            if isinstance(value, fx.Node):
                if value not in self.states:
                    return False  # a computed weight: no module can hold it
                states[argument] = self.states[value]
        if rule.weights and not states:
            return False
        results = rule.results
        if results is not None and any(user.args[1] not in range(len(results)) for user in node.users):
            return False
        data = [arguments[argument] for argument in rule.data]
        rank = data[0].meta.get("rank") if isinstance(data[0], fx.Node) else None
        with torch.device("meta"):
            module = rule.build(Call(arguments, {a: s.tensor for a, s in states.items()}, rank))
        if module is None:
            return False
        if rule.flag and arguments[rule.flag] and _TRAINING_NOTE not in self.notes:
            self.notes.append(_TRAINING_NOTE)
        settings = {k: v for k, v in arguments.items() if k not in rule.data and k not in rule.weights}
        named = {rule.weights[argument]: state for argument, state in states.items()}
        self.place(node, module, named, tuple(map(self.value, data)), repr((name, settings)))
        if results is not None:
            self.results[node] = results
        return True

    def matrix_product(self, node: fx.Node, name: str, target: torch._ops.OpOverload) -> bool:
        """A linear layer as decomposition leaves it: ``addmm(bias, x, weight transposed)`` or ``mm``."""
        arguments = named_arguments(node, target)
        bias, matrix = arguments.get("self") if name == "addmm" else None, arguments["mat2"]
        data = arguments["mat1"] if name == "addmm" else arguments["self"]
        if arguments.get("alpha", 1) != 1 or arguments.get("beta", 1) != 1 or not _is_transposed(matrix):
            return False
        given = {"weight": matrix.args[0], "bias": bias}
        states = {name: self.states[old] for name, old in given.items() if old in self.states}
        if "weight" not in states or (bias is not None and "bias" not in states):
            return False
        weight = states["weight"].tensor
        if bias is not None and tuple(states["bias"].tensor.shape) != (weight.shape[0],):
            return False
        with torch.device("meta"):
            module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        self.place(node, module, states, (self.value(data),), name)
        return True

    def recurrent_layer(self, node: fx.Node, name: str, target: torch._ops.OpOverload) -> bool:
        arguments = named_arguments(node, target)
        weights = arguments.get("params")
        if not isinstance(weights, (list, tuple)) or not all(w in self.states for w in weights):
            return False
        states = [self.states[weight] for weight in weights]
        module = recurrent.build(name, arguments, [state.tensor for state in states])
        if module is None:
            return False
        names = [attribute for attributes in module._all_weights for attribute in attributes]
        hidden = arguments["hx"]
        given = tuple(hidden) if isinstance(hidden, (list, tuple)) else (hidden,)
        data = [self.value(arguments["input"])]
        if not all(isinstance(h, fx.Node) and h.target is torch.ops.aten.zeros.default for h in given):
            data.append(tuple(map(self.value, given)) if name == "lstm" else self.value(hidden))
        self.place(node, module, dict(zip(names, states, strict=True)), tuple(data), repr((name, len(data))))
        self.results[node] = recurrent.RECURRENT[name][1]
        return True

    def place(
        self, node: fx.Node, module: nn.Module, states: Mapping[str, State], data: tuple[Any, ...], settings: str
    ) -> None:
        """Put `module` into the tree under its own name and call it."""
        path = self.tree.place(module, states, node.meta.get("owner", ("", "")), node.name, settings)
        self.env[node] = self.graph.call_module(path, data)
        self.env[node].name = self.graph._graph_namespace.create_name(path.replace(".", "_"), self.env[node])
