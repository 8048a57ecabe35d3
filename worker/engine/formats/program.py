"""The flat form between a file and a network: one FX graph of aten calls whose weights are placeholders.

`torch.export` makes it (`from_exported`), and so does the ``.pt2`` reader without running anything of the file.
`lift` turns it into a `Network`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from worker.engine.errors import Unsupported
from worker.engine.formats import codes
from worker.engine.network import Dim, TensorSpec

_SYMBOL = re.compile(r"\b[suz]\d+\b")

#: Buffers that a model in training mode counts with: nothing that inference needs.
COUNTERS = ("num_batches_tracked", "running_mean", "running_var")


@dataclass(frozen=True)
class State:
    """A parameter, buffer or constant.

    Attributes:
        name: fully qualified, such as ``layer1.0.conv1.weight``.
        tensor: its value.
        trainable: whether it is a parameter.
    """

    name: str
    tensor: Tensor
    trainable: bool


@dataclass
class Program:
    """A model as one flat graph.

    Attributes:
        graph: placeholders and calls; ``meta["rank"]`` of a node is its number of dimensions, ``meta["owner"]``
            the name and the class of the module that made the call, where known. Output: a tuple.
        states: what the weight placeholders stand for.
        inputs: the specs of the placeholders that the user fills in. Other placeholders are constants, unused.
        outputs: one spec for each element of the output tuple; None: that element is not a result.
        subgraphs: graphs that are called from the main one, by the name of their ``get_attr``.
        tensors: all weights by all their names, where `states` knows shared ones by one name only.
        notes: for the user.
    """

    graph: fx.Graph
    states: Mapping[fx.Node, State]
    inputs: Mapping[fx.Node, TensorSpec]
    outputs: tuple[TensorSpec | None, ...]
    subgraphs: Mapping[str, fx.Graph] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def dtype_name(dtype: torch.dtype) -> str:
    """``torch.float32`` -> ``float32``: numpy's name where numpy has the type."""
    return str(dtype).removeprefix("torch.")


def refuse_stateful(buffer: str) -> None:
    """Refuse a model that writes into a buffer, unless it only counts training batches."""
    if buffer.rpartition(".")[2] not in COUNTERS:
        raise Unsupported(
            codes.STATEFUL_MODEL,
            f"The model changes its own buffer {buffer!r} while it runs, so its answer depends on earlier calls. "
            "Pass such state as an input and return it as an output.",
        )


def leaf_names(spec: Any, prefix: str = "") -> list[str]:
    """Names of the leaves of a serialized tree of outputs (the JSON of `torch.utils._pytree.treespec_dumps`).

    A dictionary gives its keys, anything else the position; nested ones are joined by ``_``.
    """
    if not isinstance(spec, dict):
        return [prefix]
    children = spec.get("children_spec") or []
    if not children:
        return [prefix] if spec.get("type") is None else []
    keys = _dictionary_keys(spec, len(children)) or [str(i) for i in range(len(children))]
    return [
        name
        for key, child in zip(keys, children, strict=True)
        for name in leaf_names(child, f"{prefix}_{key}" if prefix else key)
    ]


def _dictionary_keys(spec: Mapping[str, Any], count: int) -> list[str] | None:
    context = spec.get("context")
    try:
        keys = json.loads(context) if isinstance(context, str) else context
    except ValueError:
        return None
    if isinstance(keys, list) and len(keys) == 2 and isinstance(keys[1], list):
        keys = keys[1]  # defaultdict, OrderedDict variants keep their type first
    usable = isinstance(keys, list) and len(keys) == count and all(isinstance(key, str) for key in keys)
    return keys if usable else None


def output_names(spec: Any, count: int) -> list[str]:
    """Names of `count` outputs: the keys of a returned dictionary, else ``output`` or ``output_0``, ...."""
    names = leaf_names(spec) if isinstance(spec, dict) else []
    if len(names) != count or len(set(names)) != count:
        names = [str(i) for i in range(count)]
    if count == 1 and names[0] in ("", "0"):
        return ["output"]
    return [f"output_{name}" if name[:1].isdigit() else name for name in names]


def name_dimensions(inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec | None]) -> dict[str, str]:
    """What each symbol is called: the one of the first symbolic dimension 0 is ``batch``."""
    for spec in inputs:
        if spec.batched and _SYMBOL.fullmatch(str(spec.shape[0])):
            return {str(spec.shape[0]): "batch"}
    return {}


def rename(spec: TensorSpec, names: Mapping[str, str]) -> TensorSpec:
    """`spec` with the symbols in its dimensions renamed."""

    def substitute(dim: Dim) -> Dim:
        return dim if isinstance(dim, int) else _SYMBOL.sub(lambda m: names.get(m.group(), m.group()), dim)

    return TensorSpec(spec.name, spec.dtype, tuple(map(substitute, spec.shape)), spec.sizes)


def from_exported(exported: ExportedProgram) -> Program:
    """The program of a model that this process exported itself; never of a file (see the ``.pt2`` reader)."""
    graph = exported.graph
    nodes = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            node.meta["rank"] = value.dim()
        stack = node.meta.get("nn_module_stack")
        if stack:
            name, kind = list(stack.values())[-1]
            node.meta["owner"] = (str(name).partition("@")[0], str(kind))
    signature = exported.module_call_graph[0].signature
    return Program(
        graph,
        _states(exported, nodes),
        _inputs(exported, nodes, signature.forward_arg_names if signature else None),
        _outputs(exported, nodes, json.loads(pytree.treespec_dumps(exported.call_spec.out_spec))[1]),
        {name: module.graph for name, module in exported.graph_module.named_children() if hasattr(module, "graph")},
    )


def _states(exported: ExportedProgram, nodes: Mapping[str, fx.Node]) -> dict[fx.Node, State]:
    states: dict[fx.Node, State] = {}
    for spec in exported.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR) and spec.target:
            value = exported.state_dict.get(spec.target, exported.constants.get(spec.target))
            if not isinstance(value, Tensor):
                raise Unsupported(codes.UNSUPPORTED_INPUT, f"{spec.target!r} is not a tensor.")
            trainable = spec.kind is InputKind.PARAMETER and value.dtype.is_floating_point
            states[nodes[spec.arg.name]] = State(spec.target, value.detach(), trainable)
        elif spec.kind in (InputKind.CUSTOM_OBJ, InputKind.TOKEN):
            raise Unsupported(codes.UNSUPPORTED_INPUT, f"The model holds a custom object {spec.target!r}.")
    return states


def _inputs(
    exported: ExportedProgram, nodes: Mapping[str, fx.Node], names: list[str] | None
) -> dict[fx.Node, TensorSpec]:
    user = [spec.arg.name for spec in exported.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    named = dict(zip(user, names, strict=True)) if names and len(names) == len(user) else {}
    inputs: dict[fx.Node, TensorSpec] = {}
    for name in user:
        node = nodes[name]
        if isinstance(node.meta.get("val"), Tensor):
            inputs[node] = _spec(named.get(name, str(node.target)), node)
        elif node.users:
            raise Unsupported(codes.UNSUPPORTED_INPUT, f"Input {name!r} is not a tensor.")
    return inputs


def _outputs(exported: ExportedProgram, nodes: Mapping[str, fx.Node], tree: Any) -> tuple[TensorSpec | None, ...]:
    outputs: list[TensorSpec | None] = []
    specs = exported.graph_signature.output_specs
    names = iter(output_names(tree, sum(spec.kind is OutputKind.USER_OUTPUT for spec in specs)))
    for spec in specs:
        if spec.kind is OutputKind.BUFFER_MUTATION and spec.target:
            refuse_stateful(spec.target)
        if spec.kind is not OutputKind.USER_OUTPUT:
            outputs.append(None)
            continue
        name, node = next(names), nodes.get(getattr(spec.arg, "name", ""))
        is_tensor = node is not None and isinstance(node.meta.get("val"), Tensor)
        outputs.append(_spec(name, node) if is_tensor and node is not None else None)
    return tuple(outputs)


def _spec(name: str, node: fx.Node) -> TensorSpec:
    value = node.meta["val"]
    shape: list[Dim] = []
    sizes: list[int] = []
    for size in value.shape:
        symbolic = isinstance(size, torch.SymInt)
        shape.append(str(size.node.expr) if symbolic else int(size))
        hint = size.node.hint if symbolic else size
        sizes.append(int(hint) if hint is not None else 2)
    return TensorSpec(name, dtype_name(value.dtype), tuple(shape), tuple(sizes))
