"""Control flow that is decided while reading."""

from typing import Any, Final

from torch import Tensor

from worker.engine.formats.onnx_reader.node import Node, Operator
from worker.engine.formats.onnx_reader.values import unsupported


def _if(node: Node) -> Any:
    """The branch that is always taken: exporters put an If around what depends on a size, most of which are fixed."""
    condition = node.value(0)
    if not isinstance(condition, Tensor):
        raise unsupported("an If whose condition depends on data or on a size that can vary")
    return node.branch(node.attr("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"))


OPERATORS: Final[dict[str, Operator]] = {"If": _if}
