"""GPTQ (Frantar et al. 2022, https://arxiv.org/abs/2210.17323): weights are rounded one input after another, and what
an input's rounding does to the layer's output is made good by the inputs that are still to come.

`made_good` has the mathematics. Inputs go by falling E[x_j^2]: those that matter most have the most others left to make
good (section "act-order" of the authors' code). Grids are found beforehand, with errors weighted by E[x_j^2]. Layers
are taken in graph order, each on what it reads behind the layers that are rounded already.
"""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from worker.engine.data.samples import Samples
from worker.engine.network import Network
from worker.engine.quantized.fake import put
from worker.engine.quantized.form import Weight
from worker.engine.quantized.groups import Grids, GroupForm, grids_of, grouped, weight_on
from worker.engine.quantized.made_good import inverse_factor, made_good
from worker.engine.quantized.observe import check_finite
from worker.engine.quantized.placement import called
from worker.engine.quantized.rows import Sampler


@torch.no_grad()
def gptq(
    network: Network,
    samples: Samples,
    forms: Mapping[str, GroupForm],
    *,
    held: Mapping[str, Weight] | None = None,
    device: str = "cpu",
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, Weight]:
    """Path -> weight, of the convolutions and linear layers at the paths in `forms`.

    Args:
        network: with its batch norms folded.
        samples: what inputs are seen on.
        forms: path -> how the layer's weight is stored.
        held: key -> weight that is stored already, and read by what follows.
        progress: called with 0..1.
    """
    module = copy.deepcopy(network.module).to(device)
    for key, weight in (held or {}).items():
        put(module, key, weight.dequantized().to(device), None)
    sampler = Sampler(network, module, samples, device, seed)
    found: dict[str, Weight] = {}
    for path, layer, calls in called(network.module, forms):
        inputs = sampler.rows(calls, layer).inputs.transpose(0, 1)  # (groups, rows, k)
        moments = torch.bmm(inputs.mT, inputs).div_(inputs.shape[1])
        check_finite(path, moments)
        rows = grouped(layer.weight, forms[path])
        each = len(rows) // len(moments)
        power = moments.diagonal(dim1=1, dim2=2).repeat_interleave(each, 0).reshape(rows.shape)
        grids = grids_of(rows, forms[path], power)
        parts = [
            rounded(weight, moment, part)
            for weight, moment, part in zip(
                layer.weight.detach().float().reshape(len(moments), each, -1), moments, _split(grids, each), strict=True
            )
        ]
        found[path] = weight_on(layer, "weight", grids, torch.cat(parts).reshape(rows.shape))
        put(module, path, found[path].dequantized(), None)
        progress(len(found) / len(forms))
    return found


def _split(grids: Grids, each: int) -> list[Grids]:
    """The grids of each `each` channels."""
    scales = torch.split(grids.scale, each)
    points = [None] * len(scales) if grids.zero_point is None else list(torch.split(grids.zero_point, each))
    return [Grids(scale, point, grids.bits) for scale, point in zip(scales, points, strict=True)]


@torch.no_grad()
def rounded(weight: Tensor, moments: Tensor, grids: Grids) -> Tensor:
    """The integers of one layer (or of one group of a convolution).

    Args:
        weight: (channels, k), float32.
        moments: (k, k): E[x x^T].
        grids: of the weight's groups.
    Returns:
        integers as float32, (channels, k).
    """
    k = weight.shape[1]
    diagonal = moments.diagonal()
    order = torch.argsort(diagonal, descending=True, stable=True)
    column = torch.arange(k, device=weight.device)[order] // (k // grids.scale.shape[1])
    scale = grids.scale[:, column]
    zero_point = torch.zeros_like(scale) if grids.zero_point is None else grids.zero_point[:, column]
    left = torch.where(diagonal[order] > 0, weight[:, order], 0.0)
    integers = torch.empty_like(left)

    def rounded_column(at: int, block: Tensor) -> Tensor:
        step, point = scale[:, at], zero_point[:, at]
        integers[:, at] = torch.round(block[:, 0] / step + point).clamp_(grids.low, grids.high)
        return (integers[:, at] - point) * step

    made_good(left, inverse_factor(moments[order][:, order]), rounded_column)
    return integers[:, torch.argsort(order)]
