"""How much a network would miss each unit: by its weights, by what a loss says of them, or by its activations."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from worker.engine.data.samples import Samples
from worker.engine.network import Network
from worker.engine.quantized.observe import check_finite, stream
from worker.engine.sparse.fisher import Surprise
from worker.engine.structure.call import flat
from worker.engine.structure.labels import along
from worker.engine.structure.model import Place, Structure, Units
from worker.engine.training.batches import Batches
from worker.engine.training.device import differentiable_in_evaluation

Scores = NDArray[np.float64]


@torch.no_grad()
def magnitude(network: Network, structure: Structure) -> Scores:
    """Length of all weights of each unit, (units,): ``sqrt(sum w^2)`` over what it computes with and what reads it.

    The group norm of DepGraph (Fang et al. 2023, https://arxiv.org/abs/2301.12900, equation 4). Statistics of batch
    norms are no weights.
    """
    found = np.zeros(structure.units)
    for place, tensor in _weights(network, structure):
        found += _summed(place, tensor.detach().double().square(), structure.units)
    return np.sqrt(found)


def taylor(
    network: Network, structure: Structure, samples: Samples, *, task: str | None, device: str, seed: int
) -> Scores:
    """What the loss of a sample changes by where a unit's weights become zero, (units,): ``sqrt E[(sum w g)^2]``.

    To first order, g the derivative of the sample's loss: Molchanov et al. 2019, https://arxiv.org/abs/1906.10771,
    equation 8, over the weights that compute the unit. The loss is that of the labels where there are any; else the
    surprise at answers that the network itself would give (see `Surprise`), since a distance from its own outputs has
    no slope where it starts.

    Raises:
        InvalidDataset: ``not_finite``; ``too_few_samples`` for a fixed batch.
        Unsupported: ``no_gradient``.
    """
    network = _on(network, device)
    module = network.module
    weights = [(place, tensor) for place, tensor in _weights(network, structure) if place.role != "in"]
    wanted = list({id(tensor): tensor.requires_grad_(True) for _, tensor in weights}.values())
    loss = Surprise(network, samples, task, module, device, seed)
    found = np.zeros(structure.units)
    batches = Batches(network, samples, size=1, seed=seed, device=device)
    with differentiable_in_evaluation(module):
        for part in (part for parts in batches.epoch(0) for part in parts):
            slopes = torch.autograd.grad(loss(module(*part.inputs), part), wanted, allow_unused=True)
            by_tensor = {id(tensor): slope for tensor, slope in zip(wanted, slopes, strict=True) if slope is not None}
            each = np.zeros(structure.units)
            for place, tensor in weights:
                if id(tensor) in by_tensor:
                    each += _summed(place, tensor.detach() * by_tensor[id(tensor)], structure.units)
            found += np.square(each)
    check_finite("the loss", torch.from_numpy(found))
    return np.sqrt(found / max(len(batches), 1))


def activation(network: Network, structure: Structure, samples: Samples, device: str) -> Scores:
    """Mean absolute value of each unit where a layer reads it, or where it is computed if none does, (units,)."""
    watched = _readings(network.module, structure)
    totals = {name: np.zeros(structure.units) for name in watched}
    counts = {name: np.zeros(structure.units) for name in watched}

    def seen(name: str, value: Tensor) -> None:
        dim, units = watched[name]
        rest = [other for other in range(value.dim()) if other != dim]
        mean = value.abs().mean(rest, dtype=torch.float64) if rest else value.abs().double()
        inside = units >= 0
        totals[name] += np.bincount(units[inside], mean.cpu().numpy()[inside] * len(value), structure.units)
        counts[name] += np.bincount(units[inside], minlength=structure.units) * len(value)

    stream(_on(network, device), samples, watched, seen, device=device)
    total, count = (sum(values.values(), np.zeros(structure.units)) for values in (totals, counts))
    check_finite("the activations", torch.from_numpy(total))
    return total / np.maximum(count, 1)


def normalized(structure: Structure, scores: Scores) -> Scores:
    """Scores over the mean of their family, so that layers of different size can be compared."""
    found = scores.copy()
    for family in structure.families:
        mean = found[family.units].mean()
        found[family.units] = found[family.units] / mean if mean > 0 else 1.0
    return found


def _on(network: Network, device: str) -> Network:
    """A copy on a device."""
    return replace(network, module=copy.deepcopy(network.module).eval()).to(device)


def _weights(network: Network, structure: Structure) -> Iterator[tuple[Place, Tensor]]:
    for place in structure.places:
        tensor = getattr(network.module.get_submodule(place.path), place.name)
        if isinstance(tensor, torch.nn.Parameter) and tensor.is_floating_point():
            yield place, tensor


def _summed(place: Place, values: Tensor, units: int) -> Scores:
    """The sums of `values` over the indices of each unit."""
    sums = values.double().movedim(place.dim, 0).flatten(1).sum(1) if values.dim() > 1 else values.double()
    inside = place.units >= 0
    found: Scores = np.bincount(place.units[inside], sums.cpu().numpy()[inside], units).astype(np.float64)
    return found


def _readings(module: fx.GraphModule, structure: Structure) -> dict[str, tuple[int, Units]]:
    """Node name -> dimension and units of it: what layers read, and the results of layers whose units nobody reads."""
    found: dict[str, tuple[int, Units]] = {}
    reading = {place.path for place in structure.places if place.role == "in"}
    covered = np.zeros(structure.units, np.bool_)
    layers = [node for node in module.graph.nodes if node.op == "call_module"]
    read = [node.args[0] for node in layers if node.target in reading and isinstance(node.args[0], fx.Node)]
    for node in dict.fromkeys([*read, *layers]):
        for labels in flat(structure.labels[node.name]):
            for dim in range(labels.dim()):
                units = structure.unit_of[along(labels, dim).numpy()]
                inside = np.unique(units[units >= 0])
                if len(inside) > 1 and not covered[inside].all():
                    found[node.name] = dim, units
                    covered[inside] = True
    return found
