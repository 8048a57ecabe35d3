"""Small surgery on ONNX graphs."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper, version_converter

from worker.engine.errors import RuntimeFailure

#: Opset -> the file format that came with its types.
_IR = {19: 9, 21: 10}


def rename_value(graph: GraphProto, old: str, new: str) -> None:
    """Call a value `new` wherever it is made, read or described."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for info in list(graph.value_info):
        if info.name == old:
            graph.value_info.remove(info)


def read_constants_directly(graph: GraphProto) -> None:
    """Let nodes read initializers themselves where they read an Identity of one: exporters write that for weights that
    are equal, such as biases of zeros."""
    constants = {tensor.name for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    aliases: dict[str, str] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in aliases:
                node.input[index] = aliases[name]
        if node.op_type == "Identity" and node.input[0] in constants and node.output[0] not in outputs:
            aliases[node.output[0]] = node.input[0]


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """Value name -> the node that makes it."""
    return {name: node for node in graph.node for name in node.output if name}


def region(made_by: dict[str, NodeProto], result: str, stops: Collection[str]) -> list[NodeProto]:
    """The nodes that compute `result`, back to the values in `stops`, to initializers and to graph inputs."""
    found: list[NodeProto] = []
    waiting = [result]
    while waiting:
        node = made_by.get(waiting.pop())
        if node is None or any(node is other for other in found):
            continue
        found.append(node)
        waiting += [name for name in node.input if name not in stops]
    return found


def initializer(graph: GraphProto, name: str, values: NDArray[np.generic]) -> str:
    """Add a constant, once; returns its name."""
    if all(tensor.name != name for tensor in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(np.array(values, order="C"), name))
    return name


def sweep(graph: GraphProto) -> None:
    """Remove nodes and initializers that no output depends on, and descriptions of values that are gone."""
    made_by = producers(graph)
    alive: set[str] = set()
    waiting = [output.name for output in graph.output]
    while waiting:
        name = waiting.pop()
        if name in alive:
            continue
        alive.add(name)
        if name in made_by:
            waiting += reads(made_by[name])
    _drop(graph.node, lambda node: not any(name in alive for name in node.output))
    _drop(graph.initializer, lambda tensor: tensor.name not in alive)
    _drop(graph.value_info, lambda info: info.name not in alive)


def reads(node: NodeProto) -> list[str]:
    """Every value that a node reads, those of its subgraphs included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for subgraph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            names += [name for inner in subgraph.node for name in reads(inner)]
            names += [output.name for output in subgraph.output]
    return names


def at_least(model: ModelProto, opset: int) -> ModelProto:
    """A copy of `model` whose operators are of version `opset` or later.

    Raises:
        RuntimeFailure: ``export_failed`` where onnx cannot convert it.
    """
    result = ModelProto()
    result.CopyFrom(model)
    if next(entry.version for entry in model.opset_import if not entry.domain) >= opset:
        return result
    try:
        result = version_converter.convert_version(result, opset)
    except (RuntimeError, ValueError) as error:
        detail = f"the model cannot be converted to opset {opset}, which this quantization needs: {error}"
        raise RuntimeFailure("export_failed", f"{detail[:500]}; export it with opset_version={opset}") from error
    result.ir_version = max(result.ir_version, _IR[opset])
    return result


def _drop(field: Any, dead: Callable[[Any], bool]) -> None:
    """Delete from a repeated field in place: what stays is not copied."""
    for index in range(len(field) - 1, -1, -1):
        if dead(field[index]):
            del field[index]
