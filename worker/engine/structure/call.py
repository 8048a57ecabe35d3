"""One operator of the graph as the rules see it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from worker.engine.formats.aten import name_of
from worker.engine.structure.labels import blank, empty
from worker.engine.structure.ties import Ties

#: Labels of what a node computes: a tensor of them, a tuple of such, or None for sizes and other numbers.
Labels = Any


@dataclass(frozen=True)
class Call:
    """One call of an operator.

    Attributes:
        node: of the graph, with its arguments as they are written there.
        arguments: by the names of the schema; tensors that are not integers are on the meta device.
        labels: the same arguments, with labels in place of tensors.
        result: what was computed, tensors as in `arguments`.
    """

    ties: Ties
    node: fx.Node
    arguments: Mapping[str, Any]
    labels: Mapping[str, Any]
    result: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the (first) result."""
        first = self.result if isinstance(self.result, Tensor) else self.result[0]
        return tuple(first.shape)

    @property
    def tensors(self) -> list[Tensor]:
        """The labels of all tensor arguments, in the order of the schema."""
        return flat(list(self.labels.values()))

    @property
    def data(self) -> Tensor:
        """The labels of the first tensor argument."""
        return self.tensors[0]

    @property
    def across(self) -> str:
        """Reason for channels that this call computes with one another."""
        return f"{name_of(self.node.target)} computes with all of them"

    @property
    def meets(self) -> str:
        """Reason for channels that are combined with what cannot be removed."""
        return f"{name_of(self.node.target)} combines them with values that have to stay"

    def written(self, name: str) -> Any:
        """The argument `name` as the graph has it: a node where it is computed."""
        schema = self.node.target._schema.arguments  # type: ignore[union-attr]
        position = next(index for index, argument in enumerate(schema) if argument.name == name)
        if position < len(self.node.args):
            return self.node.args[position]
        return self.node.kwargs.get(name, schema[position].default_value)

    def dims(self, name: str = "dim") -> list[int]:
        """The dimensions that an argument names, all where it names none."""
        given = self.arguments.get(name)
        rank = self.data.dim()
        if given is None or (isinstance(given, Sequence) and not given):
            return list(range(rank))
        return [dim % rank for dim in ([given] if isinstance(given, int) else given)] if rank else []


Rule = Callable[[Call], Labels]


def flat(labels: Labels) -> list[Tensor]:
    """The tensors in nested labels."""
    if isinstance(labels, Tensor):
        return [labels]
    return [one for part in labels for one in flat(part)] if isinstance(labels, (list, tuple)) else []


def nobody(result: Any) -> Labels:
    """Labels of a result that has none."""
    if isinstance(result, Tensor):
        return blank(result.shape)
    return tuple(nobody(part) for part in result) if isinstance(result, (list, tuple)) else None


def alive(labels: Labels) -> bool:
    """Whether there is any label."""
    return any(not empty(one) for one in flat(labels))


def shadow(value: Any) -> Any:
    """What rules need of a value: shapes of what is computed, the content of indices."""
    if isinstance(value, Tensor):
        return value.to("meta") if value.is_floating_point() or value.is_complex() else value
    if isinstance(value, (list, tuple)):
        return tuple(shadow(part) for part in value)
    return value


def normalized(size: int, start: Any, end: Any, step: int = 1) -> range:
    """The indices that ``aten.slice`` takes of a dimension."""
    return range(*slice(start, end, step).indices(size))


def ints(dtype: torch.dtype) -> bool:
    """Whether values of this type may be indices."""
    return not dtype.is_floating_point and not dtype.is_complex
