"""SmoothQuant (Xiao et al. 2022, https://arxiv.org/abs/2211.10438): outliers move from activations into weights.

Behind a layer norm some channels are many times larger than the rest, and one scale for all of them leaves the others
few steps. Dividing channel j of the activations by ``s_j`` and multiplying column j of the weights that read it changes
nothing in float (see `scaling`), and

    s_j = max |X_j|^alpha / max |W_j|^(1 - alpha)

shares the difficulty: alpha = 0.5 evenly, towards 1 more of it goes to the weights. The division is part of the layer
norm's own gain and bias, so it costs nothing.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from app.recipes.methods import LayerFilter
from worker.engine.data.samples import Samples
from worker.engine.network import Network
from worker.engine.quantized.observe import stream
from worker.engine.quantized.scaling import changeable, divide, groups, input_range, layers_of

#: Scales are kept within this factor of 1: a channel that never differs from 0 must not take all of the weight.
_MOST: Final = 1e4


def smooth(
    network: Network, alpha: float, samples: Samples, layers: LayerFilter, device: str = "cpu"
) -> tuple[Network, list[str]]:
    """`network` with smoothed layer norms, and a note for the user; the very same network where there are none.

    Args:
        network: with batch norms folded.
        alpha: 0..1, the share of the difficulty that weights take.
        samples: what the magnitudes of activations are seen on; one streaming pass.
        layers: the layers that may be changed.
    """
    found = groups(network, layers, (nn.LayerNorm,))
    if not found:
        return network, ["no layer norm could be smoothed: something else than linear layers reads them"]
    seen = _magnitudes(network, frozenset(group.producer for group in found), samples, device)
    result = changeable(network)
    for group in found:
        _, *consumers = layers_of(result, group)
        weight = torch.stack([input_range(layer) for layer in consumers]).amax(0)
        divide(result, group, _scale(seen[group.producer].to(weight.device), weight, alpha))
    return result, [f"{len(found)} layer norms were smoothed, alpha {alpha:g}"]


def _scale(activation: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """``s``, (channels,); 1 where a channel is empty on either side."""
    used = (activation > 0) & (weight > 0)
    scale = activation.clamp(min=1e-30) ** alpha / weight.clamp(min=1e-30) ** (1 - alpha)
    return torch.where(used, scale.clamp(1 / _MOST, _MOST), torch.ones_like(scale))


def _magnitudes(network: Network, watched: frozenset[str], samples: Samples, device: str) -> Mapping[str, Tensor]:
    """FX node name -> the largest magnitude of each channel, which is its last dimension."""
    largest: dict[str, Tensor] = {}

    def seen(name: str, value: Tensor) -> None:
        found = value.float().reshape(-1, value.shape[-1]).abs().amax(0)
        largest[name] = torch.maximum(found, largest.get(name, found))

    stream(network, samples, watched, seen, device=device)
    return largest
