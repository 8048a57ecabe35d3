"""Removes channels for good: smaller weights, and a graph whose sizes fit them."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, fx, nn

from worker.engine.measure.macs import random_inputs
from worker.engine.network import Network
from worker.engine.structure.mend import Mender
from worker.engine.structure.model import Keep, Place, Structure, Units


def remove(network: Network, structure: Structure, keep: Keep) -> Network:
    """`network` without the units that are not in `keep`; itself is not changed.

    Args:
        structure: of this very network.
        keep: (units,), with at least one of each family.
    Raises:
        ValueError: `keep` has another size, or nothing of a family.
        Unfit: what is left of some value does not fit its operator.
    """
    if keep.shape != (structure.units,) or not all(keep[family.units].any() for family in structure.families):
        raise ValueError("a choice has one entry for each unit, and keeps one or more of each family")
    module = copy.deepcopy(network.module)
    _shrink(module, structure.places, keep)
    smaller = replace(network, module=module, source=None, notes=list(network.notes))
    Mender(network, module, structure, keep).run_all(random_inputs(network, 2 if network.batched else 1))
    module.graph.lint()
    module.recompile()
    return smaller


@torch.no_grad()
def _shrink(module: fx.GraphModule, places: tuple[Place, ...], keep: Keep) -> None:
    """Slice every weight; a tensor that several layers share stays shared."""
    cuts: dict[int, dict[int, Units]] = {}
    tensors: dict[int, Tensor] = {}
    for place in places:
        tensor = getattr(module.get_submodule(place.path), place.name)
        tensors[id(tensor)] = tensor
        stays = np.where(place.units < 0, True, np.append(keep, True)[place.units])
        cuts.setdefault(id(tensor), {})[place.dim] = np.flatnonzero(stays)
    smaller = {key: _cut(tensor, cuts[key]) for key, tensor in tensors.items()}
    for part in module.modules():
        old = [
            (name, value) for name, value in (*part._parameters.items(), *part._buffers.items()) if value is not None
        ]
        before = {name: tuple(value.shape) for name, value in old}
        for name, value in old:
            if id(value) in smaller:
                setattr(part, name, smaller[id(value)])
        if any(tuple(getattr(part, name).shape) != shape for name, shape in before.items()):
            _describe(part, before)


def _cut(tensor: Tensor, cuts: Mapping[int, Units]) -> Tensor:
    value = tensor.detach()
    for dim, indices in cuts.items():
        value = value.index_select(dim, torch.from_numpy(indices).to(value.device))
    value = value.contiguous().clone()
    return nn.Parameter(value, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


def _describe(part: Any, before: Mapping[str, tuple[int, ...]]) -> None:
    """Let a layer's numbers say what its weights are."""
    for kinds, describe in _DESCRIBE.items():
        if isinstance(part, kinds):
            describe(part, before)


def _convolution(layer: Any, before: Mapping[str, tuple[int, ...]]) -> None:
    own, each = layer.weight.shape[0], layer.weight.shape[1]
    if layer.groups > 1 and layer.groups == layer.in_channels:
        layer.groups = own if layer.transposed else own * layer.in_channels // layer.out_channels
    ends = ("in_channels", "out_channels") if layer.transposed else ("out_channels", "in_channels")
    setattr(layer, ends[0], own)
    setattr(layer, ends[1], each * layer.groups)


def _group_norm(layer: nn.GroupNorm, before: Mapping[str, tuple[int, ...]]) -> None:
    (channels,) = layer.weight.shape
    layer.num_groups = channels if layer.num_groups == layer.num_channels else layer.num_groups
    layer.num_channels = channels


def _sizes(**names: tuple[str, int]) -> Callable[[Any, Mapping[str, tuple[int, ...]]], None]:
    def describe(layer: Any, before: Mapping[str, tuple[int, ...]]) -> None:
        for attribute, (name, dim) in names.items():
            if getattr(layer, name) is not None:
                setattr(layer, attribute, getattr(layer, name).shape[dim])

    return describe


def _layer_norm(layer: nn.LayerNorm, before: Mapping[str, tuple[int, ...]]) -> None:
    layer.normalized_shape = tuple(layer.weight.shape)


_DESCRIBE: Final[Mapping[tuple[type[nn.Module], ...], Callable[[Any, Mapping[str, tuple[int, ...]]], None]]] = {
    (nn.Linear,): _sizes(in_features=("weight", 1), out_features=("weight", 0)),
    (nn.modules.conv._ConvNd,): _convolution,
    (nn.modules.batchnorm._NormBase,): _sizes(num_features=("running_mean", 0)),
    (nn.GroupNorm,): _group_norm,
    (nn.LayerNorm,): _layer_norm,
    (nn.Embedding,): _sizes(embedding_dim=("weight", 1)),
    (nn.PReLU,): _sizes(num_parameters=("weight", 0)),
    (nn.RNNBase,): _sizes(input_size=("weight_ih_l0", 1)),
}
