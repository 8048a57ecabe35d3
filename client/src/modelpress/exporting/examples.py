"""Example inputs: arranged as a call, cut to a few samples, and described."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from modelpress.errors import ExportError


@dataclass(frozen=True)
class Example:
    """One call of the module."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def call(self, module: Callable[..., Any]) -> Any:
        """What `module` answers."""
        with torch.no_grad():
            return module(*self.args, **self.kwargs)

    def tensors(self) -> list[Tensor]:
        """All tensors, wherever they are nested."""
        return [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    @property
    def batch(self) -> int | None:
        """How many samples there are: the first dimension of the first tensor that has one."""
        return next((tensor.shape[0] for tensor in self.tensors() if tensor.dim()), None)

    def batched(self, tensor: Tensor) -> bool:
        """Whether samples lie along the first dimension of `tensor`."""
        return tensor.dim() > 0 and tensor.shape[0] == self.batch

    def resized(self, rows: int | None) -> "Example":
        """A copy with that many samples, repeated where there are too few; None: as many as there are.

        Every tensor owns its memory, so that a slice of a large dataset is stored as that slice.
        """

        def copied(tensor: Tensor) -> Tensor:
            own = tensor.detach().cpu()
            if rows is not None and self.batched(tensor):
                own = own[torch.arange(rows) % tensor.shape[0]]
            return own.clone(memory_format=torch.contiguous_format)

        args, kwargs = pytree.tree_map_only(Tensor, copied, (self.args, self.kwargs))
        return Example(args, kwargs)

    def named(self, module: nn.Module) -> Iterator[tuple[str, Any]]:
        """Every value with the name that `forward` gives to its input."""
        given = inspect.signature(module.forward).bind(*self.args, **self.kwargs).arguments
        for name, argument in given.items():
            for path, value in pytree.tree_flatten_with_path(argument)[0]:
                yield f"{name}{pytree.keystr(path)}", value


def arranged(example_inputs: Any, kwargs: Mapping[str, Any] | None) -> Example:
    """The call that the example stands for.

    Raises:
        ExportError: there is nothing in it, or no sample.
    """
    more = dict(kwargs or {})
    if isinstance(example_inputs, Mapping):
        example = Example((), {**example_inputs, **more})
    elif isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
        example = Example(tuple(example_inputs), more)
    else:
        example = Example((example_inputs,), more)
    if not example.tensors():
        kinds = sorted({type(leaf).__name__ for leaf in pytree.tree_leaves((example.args, example.kwargs))})
        told = f"only {', '.join(kinds)}" if kinds else "nothing"
        raise ExportError(f"example_inputs holds no tensor, {told}: give tensors with two samples of real data")
    if example.batch == 0:
        raise ExportError("example_inputs holds no sample: the first dimension is 0")
    return example


def fixed(example: Example, module: nn.Module) -> Iterator[str]:
    """A sentence on each input that has no batch."""
    for name, value in example.named(module):
        if value is None:
            continue
        if not isinstance(value, Tensor):
            yield f"Input {name!r} is {value!r}, no tensor: the file has that value as a constant."
        elif not value.dim():
            yield f"Input {name!r} is a single number (0-d): it has no batch."
        elif not example.batched(value):
            size, batch = value.shape[0], cast(int, example.batch)
            yield f"Input {name!r} keeps its first dimension of {size}: it is no batch, of which there are {batch}."
