"""Local functions of a model: those that recurse are refused, the others written out where they are called."""

from collections.abc import Iterable, Iterator
from typing import Final

import onnx
from onnx.inliner import inline_local_functions

from worker.engine.errors import InvalidModel
from worker.engine.formats import codes

MAX_INLINED: Final = 200_000


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without local functions; itself where it has none.

    Raises:
        InvalidModel: functions that call themselves, or that write out to too many nodes.
    """
    if not model.functions:
        return model
    bodies = {(f.domain, f.name): [(n.domain, n.op_type) for n in _nodes(f.node)] for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(key: tuple[str, str], path: tuple[tuple[str, str], ...]) -> int:
        if key not in bodies:
            return 1
        if key in path or len(path) > 50:
            raise InvalidModel(codes.GRAPH_INVALID, f"The function {key[1][:80]!r} of the model calls itself.")
        if key not in sizes:
            sizes[key] = sum(size(inner, (*path, key)) for inner in bodies[key])
        return sizes[key]

    total = sum(size((node.domain, node.op_type), ()) for node in _nodes(model.graph.node))
    for key in bodies:
        total = max(total, size(key, ()))
    if total > MAX_INLINED:
        raise InvalidModel(codes.ARCHIVE_TOO_LARGE, f"The model's functions write out to {total} nodes.")
    return inline_local_functions(model)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """These nodes and those in their inner graphs, such as the branches of an If: calls there are written out too."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)
