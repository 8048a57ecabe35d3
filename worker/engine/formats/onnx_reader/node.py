"""One ONNX node as an operator's function sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from worker.engine.formats.onnx_reader.values import Builder, Origin, Value, unsupported


@dataclass(frozen=True)
class Node:
    """A node whose inputs are known.

    Attributes:
        build: the graph under construction.
        name: of the node, made up where the file gives none.
        op: operator.
        opset: version of the standard operators.
        inputs: values; None where an optional one is left out.
        input_names: their names in the file.
        outputs: names of the results; empty where one is not wanted.
        attributes: by name; tensors as `Tensor`, strings as `str`.
        branch: the results of an inner graph that takes the place of the node.
    """

    build: Builder
    name: str
    op: str
    opset: int
    inputs: tuple[Value, ...]
    input_names: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    branch: Callable[[Any], tuple[Value, ...]]

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute or its default."""
        return self.attributes.get(name, default)

    def value(self, index: int) -> Value:
        """An input as it is; None where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def tensor(self, index: int) -> Tensor | fx.Node:
        """An input as a tensor."""
        return self.build.tensor(self.value(index))

    def constant(self, index: int) -> Tensor | None:
        """An input that has to be constant; None where it is absent."""
        value = self.value(index)
        if value is None or isinstance(value, Tensor):
            return value
        raise unsupported(f"{self.op} whose input {index} is computed")

    def scalar(self, index: int, default: float | None = None) -> Any:
        """An input that is one constant number."""
        tensor = self.constant(index)
        return default if tensor is None else tensor.reshape(-1)[0].item()

    def axes(self, index: int | None, rank: int) -> list[int] | None:
        """Axes from an input or, in older opsets, from the attribute; not negative. None: not given."""
        given = self.constant(index) if index is not None else None
        axes = self.attr("axes") if given is None else [int(v) for v in given.reshape(-1).tolist()]
        return None if axes is None else [within(axis, rank) for axis in axes]

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        """`Builder.call`."""
        return self.build.call(target, *args, **kwargs)

    def origin(self, index: int) -> Origin:
        """Where a layer with its weight at input `index` is in the file, and what to call it."""
        stem, _, last = self.input_names[index].rpartition(".")
        weight = self.build.initializers.get(id(self.value(index)), self.input_names[index])  # it may be an alias
        own = stem if last == "weight" and stem else _module_name(self.name, self.op)
        return Origin(self.name, weight, own or self.op)

    def cast(self, value: Any, dtype: torch.dtype) -> Any:
        """`value` with another element type; float32 where the network computes in that in its place."""
        dtype = torch.float32 if dtype in self.build.widened else dtype
        return self.call(torch.ops.aten.to.dtype, value, dtype)


#: What the table has for an operator: the results of a node, one of them or a tuple.
Operator = Callable[[Node], Any]


def within(axis: int, rank: int) -> int:
    """An axis of a tensor of `rank` dimensions, counted from the start; a scalar is taken for a list of one."""
    rank = max(rank, 1)
    if not -rank <= axis < rank:
        raise IndexError(f"axis {axis} of a tensor of {rank} dimensions")
    return axis % rank


def _module_name(node: str, op: str) -> str:
    """``/layer1/layer1.0/conv1/Conv``, as exporters name the nodes of module ``layer1.0.conv1``, as that."""
    parts = [part for part in node.split("/") if part]
    if len(parts) > 1 and parts[-1] == op:
        parts.pop()
    kept = [p for p, after in zip(parts, [*parts[1:], ""], strict=True) if not after.startswith(f"{p}.")]
    return ".".join(part for part in ".".join(kept).split(".") if part)
