"""AWQ (Lin et al. 2023, https://arxiv.org/abs/2306.00978): inputs that are large are given more of the grid.

Column j of the weights that read a value is multiplied by s_j and the value divided by it, which changes nothing in
float (see `scaling`) and makes the rounding errors of columns with a large s_j matter less:

    s_j = mean|x_j|^alpha / sqrt(max_j s_j min_j s_j),   alpha = argmin sum_consumers tr(D H D^T),   D = Q(W s) / s - W

with H = E[x x^T] and alpha from 0, 0.05, ... 1 (section 3.2, equation 4). The authors clip ranges afterwards by a
search on the layer's output; here grids are found with errors weighted by E[x_j^2], which serves the same end.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, fx, nn

from app.recipes.methods import LayerFilter
from worker.engine.data.samples import Samples
from worker.engine.network import Network
from worker.engine.quantized.groups import GroupForm, grids_of, grouped
from worker.engine.quantized.observe import check_finite, stream
from worker.engine.quantized.placement import layer_calls, source_of
from worker.engine.quantized.scaling import Group, changeable, channel_axis, divide, groups, layers_of

_ALPHAS: Final = tuple(step / 20 for step in range(21))


@dataclass
class _Seen:
    """Sums over the rows of a value, whose channels are its last dimension."""

    rows: int = 0
    magnitudes: Tensor | float = 0.0
    products: Tensor | float = 0.0

    def add(self, value: Tensor) -> None:
        rows = value.float().reshape(-1, value.shape[-1])
        self.rows += len(rows)
        self.magnitudes = self.magnitudes + rows.abs().sum(0)
        self.products = self.products + rows.T @ rows


def activation_aware(
    network: Network,
    samples: Samples,
    layers: LayerFilter,
    form: GroupForm,
    device: str = "cpu",
) -> tuple[Network, list[str]]:
    """`network` with scaled weights, and a note for the user; the very same network where none can move."""
    found = [group for group in groups(network, layers, (nn.LayerNorm, nn.Linear)) if _linear(network, group)]
    if not found:
        return network, ["awq: no scale could be moved, since no linear layers read a layer norm or a linear layer"]
    calls = {node.name: node for node, _ in layer_calls(network.module)}
    read = {group: source_of(calls[group.consumers[0]]).name for group in found}
    seen = {name: _Seen() for name in read.values()}
    stream(network, samples, seen, lambda name, value: seen[name].add(value), device=device)
    result = changeable(network)
    for group, name in read.items():
        _, *consumers = layers_of(result, group)
        weights = [layer.weight.detach().float() for layer in consumers if isinstance(layer, nn.Linear)]
        check_finite(name, torch.as_tensor(seen[name].products))
        divide(result, group, _best(weights, seen[name], form))
    return result, [f"awq: scales were moved at {len(found)} places"]


def _linear(network: Network, group: Group) -> bool:
    return all(isinstance(layer, nn.Linear) for layer in list(layers_of(network, group))[1:])


@torch.no_grad()
def _best(weights: Sequence[Tensor], seen: _Seen, form: GroupForm) -> Tensor:
    """The scale of least error, (inputs,)."""
    magnitudes = torch.as_tensor(seen.magnitudes) / seen.rows
    moments = torch.as_tensor(seen.products) / seen.rows
    best, found = float("inf"), torch.ones_like(magnitudes)
    for alpha in _ALPHAS:
        scale = magnitudes.clamp(min=1e-4).pow(alpha)
        scale = (scale / (scale.max() * scale.min()).sqrt()).to(moments.device)
        importance = moments.diagonal() / scale.square()
        error = 0.0
        for weight in weights:
            rows = grouped(weight * scale, form)
            grids = grids_of(rows, form, importance.reshape(1, *rows.shape[1:]))
            delta = grids.value(grids.nearest(rows)).reshape(weight.shape) / scale - weight
            error += float(((delta @ moments) * delta).sum())
        if error < best:
            best, found = error, scale
    return found


def input_power(network: Network, samples: Samples, paths: Sequence[str], device: str = "cpu") -> dict[str, Tensor]:
    """Path of a layer -> ``E[x_j^2]`` of what each of its weights is multiplied by, (1 or channels, weights of one).

    For convolutions the mean over all positions stands for every tap of the kernel.
    """
    layers = {node: layer for node, layer in layer_calls(network.module) if str(node.target) in paths}
    sums: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()

    def seen(name: str, value: Tensor) -> None:
        for node in readers[name]:
            path = str(node.target)
            rows = value.float().movedim(channel_axis(layers[node], value), -1)
            rows = rows.reshape(-1, rows.shape[-1])
            sums[path] = sums.get(path, 0.0) + rows.square().sum(0)
            counts[path] += len(rows)

    readers: dict[str, list[fx.Node]] = {}
    for node in layers:
        readers.setdefault(source_of(node).name, []).append(node)
    stream(network, samples, readers, seen, device=device)
    for path, total in sums.items():
        check_finite(path, total)
    return {
        str(node.target): _by_weight(layer, sums[str(node.target)] / counts[str(node.target)])
        for node, layer in layers.items()
    }


def _by_weight(layer: nn.Module, power: Tensor) -> Tensor:
    """From (input channels,) to each weight of each output channel."""
    if not isinstance(layer, nn.Conv1d | nn.Conv2d):
        return power[None]
    rows = power.repeat_interleave(layer.weight[0, 0].numel()).reshape(layer.groups, -1)
    return rows if layer.groups == 1 else rows.repeat_interleave(len(layer.weight) // layer.groups, 0)
