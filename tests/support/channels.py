"""Choosing channels, and what a network with them removed should answer."""

import copy
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from tests.support.architectures import ARCHITECTURES
from worker.engine.formats.lift import network_of
from worker.engine.network import Network
from worker.engine.structure import Keep, Structure


@cache
def built(name: str) -> Network:
    """One of `ARCHITECTURES` as the canonical network; shared, since nothing changes its input."""
    architecture = ARCHITECTURES[name]
    return network_of(architecture.build(), tuple(architecture.draw(2).values()))


def drawn(name: str, batch: int = 3) -> tuple[Tensor, ...]:
    """Random inputs for it, of the length that it was built with."""
    return tuple(ARCHITECTURES[name].draw(batch, seed=7).values())


def half(structure: Structure, seed: int = 0) -> Keep:
    """A random half of each family."""
    random = np.random.default_rng(seed)
    keep = structure.everything()
    for family in structure.families:
        keep[family.start + random.permutation(len(family))[: len(family) // 2]] = False
    return keep


def exact(structure: Structure, keep: Keep, network: Network) -> Keep:
    """`keep` without what norms over channels compute with: they are those of what is left."""
    found = keep.copy()
    inexact = (torch.nn.LayerNorm, torch.nn.GroupNorm)
    for place in structure.places:
        part = network.module.get_submodule(place.path)
        if isinstance(part, inexact) or (place.role == "parameter" and "norm" in place.key):
            found[place.units[place.units >= 0]] = True
    return found


@torch.no_grad()
def masked(network: Network, structure: Structure, keep: Keep) -> fx.GraphModule:
    """The network with the weights of what is not kept set to zero: those that compute it and those that read it."""
    module: Any = copy.deepcopy(network.module)
    gone = np.append(~keep, False)
    for place in structure.places:
        if not place.name.startswith("running_"):
            tensor = getattr(module.get_submodule(place.path), place.name)
            tensor.index_fill_(place.dim, torch.from_numpy(np.flatnonzero(gone[place.units])), 0.0)
    return module


@torch.no_grad()
def agree(one: fx.GraphModule, other: fx.GraphModule, inputs: tuple[Tensor, ...], tolerance: float = 1e-5) -> None:
    """Both answer the same."""
    for mine, theirs in zip(one(*inputs), other(*inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
