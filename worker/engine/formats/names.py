"""The tree of modules under construction: who is called what, and which weights are shared."""

import keyword
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from worker.engine.formats.program import State

_UNSAFE = re.compile(r"\W", re.ASCII)
#: Names that the generated code of a graph module uses itself.
_TAKEN = frozenset(("self", "torch", "device", "operator", "math", "inf", "nan", "NoneType", *keyword.kwlist))


def _identity(tensor: Tensor) -> tuple[object, ...]:
    """Equal for tensors that are the same memory seen the same way."""
    return (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def identifier(name: str) -> str:
    """A Python name like `name`: FX writes placeholders into code that it runs, so nothing else may get there."""
    safe = _UNSAFE.sub("_", name) or "_"
    return f"input_{safe}" if safe[0].isdigit() else f"{safe}_" if safe in _TAKEN else safe


def _segment(name: str) -> str:
    safe = _UNSAFE.sub("_", name) or "_"
    return f"{safe}_" if keyword.iskeyword(safe) else safe


def _segments(path: str) -> list[str]:
    return [_segment(segment) for segment in path.split(".")]


class Tree:
    """Modules by dotted path, filled in as layers are found.

    Args:
        states: all weights, so that those which share memory stay one parameter.
        tensors: more names of the same weights.
    """

    def __init__(self, states: Iterable[State], tensors: Mapping[str, Tensor]) -> None:
        self.root = nn.Module()
        self._values: dict[tuple[object, ...], Tensor] = {}
        self._aliases: dict[tuple[object, ...], set[str]] = {}
        self._placed: dict[tuple[object, ...], str] = {}
        self._kept: dict[str, str] = {}
        named = [*((state.name, state.tensor) for state in states), *tensors.items()]
        for name, tensor in named:
            self._aliases.setdefault(_identity(tensor), set()).add(name)

    def _value(self, state: State) -> Tensor:
        """The one parameter or buffer that stands for `state`."""
        key = (*_identity(state.tensor), state.trainable)
        if key not in self._values:
            tensor = state.tensor
            self._values[key] = nn.Parameter(tensor) if state.trainable else tensor
        return self._values[key]

    def place(
        self, module: nn.Module, states: Mapping[str, State], owner: tuple[str, str], fallback: str, settings: str
    ) -> str:
        """Give `module` its weights and a place; returns its path.

        Args:
            states: attribute of the module -> weight.
            owner: name and class of the module that made the call, as the exporter recorded it, else empty.
            fallback: what to call a layer whose weights sit at the root.
            settings: equal for calls that could be the same module.
        """
        key = (settings, *((a, *_identity(s.tensor)) for a, s in states.items()))
        if states and key in self._placed:
            return self._placed[key]
        for attribute, state in states.items():
            self._assign(module, attribute, state)
        for name, tensor in list(module.named_buffers()):
            if tensor.is_meta:  # num_batches_tracked
                module.register_buffer(name, torch.zeros(tensor.shape, dtype=tensor.dtype))
        path = self._free(self._preferred(next(iter(states.values()), None), owner, fallback))
        parent = self._container(path)
        parent.add_module(path.rpartition(".")[2], module)
        self._placed[key] = path
        return path

    def _assign(self, module: nn.Module, attribute: str, state: State) -> None:
        value = self._value(state)
        if attribute in module._buffers:
            module._buffers[attribute] = value.detach()
        elif isinstance(value, nn.Parameter):
            setattr(module, attribute, value)
        else:
            frozen = nn.Parameter(value, requires_grad=False)
            setattr(module, attribute, frozen)

    def _preferred(self, state: State | None, caller: tuple[str, str], fallback: str) -> str:
        owner, kind = caller
        if state is None:
            return owner if owner and kind.rpartition(".")[2].startswith("Dropout") else fallback
        names = self._aliases.get(_identity(state.tensor), set())
        parent, _, attribute = state.name.rpartition(".")
        if owner and any(name.rpartition(".")[0] == owner for name in names):
            parent = owner
        if attribute in ("weight", "bias", "running_mean") or re.fullmatch(r"weight_ih_l\d+.*", attribute):
            return parent or fallback
        own = attribute.removesuffix("_weight")
        return f"{parent}.{own}" if parent else own

    def _free(self, path: str) -> str:
        """`path`, with a number after each part of it that something else already has."""
        segments = _segments(path)
        module = self.root
        for position, segment in enumerate(segments):
            last, number, candidate = position == len(segments) - 1, 0, segment
            while hasattr(module, candidate) and (last or not isinstance(getattr(module, candidate), nn.Module)):
                number += 1
                candidate = f"{segment}_{number}"
            segments[position] = candidate
            if not hasattr(module, candidate):
                break  # nothing below it is taken
            module = getattr(module, candidate)
        return ".".join(segments)

    def _at(self, path: str) -> object:
        value: object = self.root
        for segment in path.split("."):
            value = getattr(value, segment, None)
        return value

    def _container(self, path: str) -> nn.Module:
        module = self.root
        for segment in path.split(".")[:-1]:
            if segment not in module._modules:
                module.add_module(segment, nn.Module())
            child = module._modules[segment]
            if child is None:
                raise TypeError(f"{path!r} goes through an empty module")
            module = child
        return module

    def keep(self, state: State) -> str:
        """Store a weight that no layer holds; returns the path for ``get_attr``."""
        value = self._value(state)
        own = ".".join(_segments(state.name))
        if state.name not in self._kept and self._at(own) is value:
            self._kept[state.name] = own
        if state.name not in self._kept:
            path = self._free(state.name)
            name = path.rpartition(".")[2]
            if isinstance(value, nn.Parameter):
                self._container(path).register_parameter(name, value)
            else:
                self._container(path).register_buffer(name, value)
            self._kept[state.name] = path
        return self._kept[state.name]
