"""Cross-layer equalization (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.1).

One scale for a whole tensor suits it best where its channels have like ranges. A pair of layers can be rescaled channel
by channel without changing the network (see `scaling`); with ``r1_i = max |W1_i|`` and ``r2_i = max |W2_:i|`` both
ranges become ``sqrt(r1_i r2_i)`` by dividing the first by ``s_i = sqrt(r1_i / r2_i)``. Pairs overlap, so this is
repeated until the scales stand still. A layer that several read is equalized against the largest range of them.
"""

from typing import Final

import torch
from torch import Tensor

from app.recipes.methods import LayerFilter
from worker.engine.network import Network
from worker.engine.quantized.placement import LAYERS
from worker.engine.quantized.scaling import Group, changeable, divide, groups, input_range, layers_of

_ROUNDS: Final = 50
#: Scales this near to 1 have settled.
_SETTLED: Final = 0.01


def equalize(network: Network, layers: LayerFilter) -> tuple[Network, list[str]]:
    """`network` with equalized layers, and a note for the user; the very same network where there are no pairs.

    Args:
        network: with batch norms folded.
        layers: the layers that may be changed.
    """
    found = groups(network, layers, LAYERS)
    if not found:
        return network, ["no pair of layers could be equalized: they are joined by additions or clips, or shared"]
    result = changeable(network)
    for _ in range(_ROUNDS):
        scales = [_scale(result, group) for group in found]
        for group, scale in zip(found, scales, strict=True):
            divide(result, group, scale)
        if all(float(scale.log().abs().max()) < _SETTLED for scale in scales):
            break
    return result, [f"{len(found)} layers were equalized with those that read them"]


@torch.no_grad()
def _scale(network: Network, group: Group) -> Tensor:
    """``sqrt(r1 / r2)``, (channels,); 1 where a channel is empty on either side."""
    producer, *consumers = layers_of(network, group)
    weight: Tensor = producer.weight  # type: ignore[assignment]
    first = weight.detach().reshape(weight.shape[0], -1).abs().amax(1)
    second = torch.stack([input_range(layer) for layer in consumers]).amax(0)
    return torch.where((first > 0) & (second > 0), (first / second.clamp(min=1e-30)).sqrt(), torch.ones_like(first))
