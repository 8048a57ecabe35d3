"""Pruning by what layers read: Wanda and SparseGPT, layer after layer, each behind the layers that are pruned already.

Wanda (Sun et al. 2023, https://arxiv.org/abs/2306.11695, equation 1): of each output channel the lowest
``|w_j| sqrt(E[x_j^2])`` go.

SparseGPT (Frantar and Alistarh 2023, https://arxiv.org/abs/2301.00774, algorithm 1): inputs are taken in order; a
weight that goes adds ``w_j^2 / U_jj^2`` to the layer's error once those behind it make it good (`made_good`); of each
block of 128 inputs the lowest go, all output channels together, as the weights are when their block is reached. That
cost supposes that all weights behind it stay; where there is one block, Wanda's choice is tried as well, and the
smaller error wins: the few inputs of depthwise convolutions are often nearly the same numbers.

A convolution is a matrix product of patches; one with groups is one product for each group.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, fx

from worker.engine.data.samples import Samples
from worker.engine.network import Network
from worker.engine.quantized.made_good import BLOCK, inverse_factor, made_good
from worker.engine.quantized.observe import check_finite
from worker.engine.quantized.placement import called
from worker.engine.quantized.rows import Sampler
from worker.engine.sparse.patterns import FOUR, lowest, lowest_in_rows, lowest_of_four


@dataclass(frozen=True)
class Share:
    """How much of a layer goes.

    Attributes:
        share: of its weights, 0..1.
        fours: as two of every four neighbouring inputs.
    """

    share: float
    fours: bool


class Prune(Protocol):
    """What is done to one layer."""

    def __call__(self, weight: Tensor, inputs: Tensor, gone: Tensor, share: Share) -> tuple[Tensor, Tensor]:
        """The mask of what goes and the weights that are left, both of the weight's shape.

        Args:
            weight: (outputs, inputs / groups, taps...), float32.
            inputs: (groups, rows, k): what the layer reads, k = inputs / groups * taps.
            gone: mask of what earlier steps have pruned; that goes in any case.
        """


@torch.no_grad()
def behind_each_other(
    network: Network,
    module: fx.GraphModule,
    samples: Samples,
    gone: Mapping[str, Tensor],
    share: Share,
    prune: Prune,
    *,
    device: str = "cpu",
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, Tensor]:
    """Name -> mask, of the convolutions and linear layers whose weights are in `gone`; weights of `module` change.

    Args:
        network: as it was before, in eval mode; stays as it is.
        module: a copy of its module.
        gone: name of a weight -> mask of what earlier steps have pruned.
        progress: called with 0..1.
    Raises:
        InvalidDataset: ``not_finite`` where a sample leads to NaN or infinity.
    """
    sampler = Sampler(network, module, samples, device, seed)
    masks: dict[str, Tensor] = {}
    layers = called(network.module, {name.removesuffix(".weight") for name in gone})
    for index, (path, layer, calls) in enumerate(layers, 1):
        name = f"{path}.weight"
        inputs = sampler.rows(calls, layer).inputs.transpose(0, 1).float()
        check_finite(path, inputs.square().sum())
        masks[name], kept = prune(layer.weight.detach().float(), inputs, gone[name], share)
        module.get_parameter(name).copy_(kept)
        progress(index / len(layers))
    return masks


def wanda(weight: Tensor, inputs: Tensor, gone: Tensor, share: Share) -> tuple[Tensor, Tensor]:
    """The lowest products of weights and the norms of what they read; see `Prune`."""
    norms = inputs.square().mean(1).sqrt()  # (groups, k)
    grouped = weight.abs().reshape(len(norms), -1, norms.shape[1]) * norms[:, None]
    scores = grouped.reshape(weight.shape).masked_fill(gone, -1.0)
    mask = lowest_of_four(scores, share.share) if share.fours else lowest_in_rows(scores, share.share)
    mask = mask | gone
    return mask, weight.masked_fill(mask, 0.0)


def sparsegpt(weight: Tensor, inputs: Tensor, gone: Tensor, share: Share) -> tuple[Tensor, Tensor]:
    """Those whose loss the others can make good, which they then do; see `Prune`."""
    groups, rows, k = inputs.shape
    # Neighbours of four are channels at one tap: they have to follow each other.
    order = torch.arange(k, device=weight.device).reshape(weight[0].shape)
    order = order.movedim(0, -1).reshape(-1) if share.fours else order.reshape(-1)
    back = torch.argsort(order)
    moments = torch.bmm(inputs.mT, inputs).div_(rows)[:, order][:, :, order]

    def in_order(value: Tensor) -> Tensor:
        return value.reshape(groups, -1, k)[..., order]

    matrices = in_order(weight)
    found = [_swept(matrices, moments, in_order(gone), share)]
    if k <= BLOCK:  # what goes is chosen before anything has moved: another choice may be better
        found.append(_swept(matrices, moments, in_order(wanda(weight, inputs, gone, share)[0]), None))
    best = min(found, key=lambda one: float((torch.bmm(one[1] - matrices, moments) * (one[1] - matrices)).sum()))
    mask, kept = (value[..., back].reshape(weight.shape) for value in best)
    return mask, kept


def _swept(weight: Tensor, moments: Tensor, gone: Tensor, share: Share | None) -> tuple[Tensor, Tensor]:
    """Mask and weights of the matrix of each group, (groups, channels, k); without a share, what is `gone` goes."""
    parts, size = [], weight[0].numel()
    for at, (matrix, moment, before) in enumerate(zip(weight, moments, gone, strict=True)):
        factor = inverse_factor(moment)
        # A weight of an input that is always 0 costs nothing.
        costs = torch.where(moment.diagonal() > 0, factor.diagonal().square().reciprocal(), 0.0)
        choice = _Choice(costs, before, share, at * size)
        kept = made_good(matrix, factor, choice.settle)
        parts.append((choice.mask, kept))
    masks, weights = (torch.stack(values) for values in zip(*parts, strict=True))
    return masks, weights


class _Choice:
    """What goes of one matrix, decided block by block.

    Args:
        costs: (k,): error of a weight that goes over its square.
        gone: (channels, k): goes in any case.
        share: None: nothing else goes.
        before: how many weights of the layer stand before this matrix: counts are rounded over all of them, so that
            the layer's share is met exactly.
    """

    def __init__(self, costs: Tensor, gone: Tensor, share: Share | None, before: int) -> None:
        self.mask = gone.clone()
        self._costs, self._gone, self._share, self._before = costs, gone, share, before

    def settle(self, at: int, block: Tensor) -> Tensor:
        """Zero where a weight of input `at` goes; see `made_good.Settle`."""
        if self._share is not None and at % (FOUR if self._share.fours else BLOCK) == 0:
            self._choose(at, block[:, :FOUR] if self._share.fours else block, self._share)
        return block[:, 0].masked_fill(self.mask[:, at], 0.0)

    def _choose(self, first: int, block: Tensor, share: Share) -> None:
        channels, last = len(block), first + block.shape[1]
        scores = (block.square() * self._costs[first:last]).masked_fill(self._gone[:, first:last], -1.0)
        if share.fours:
            self.mask[:, first:last] |= lowest_of_four(scores)
        else:
            counts = [round(share.share * (self._before + channels * end)) for end in (first, last)]
            self.mask[:, first:last] |= lowest(scores, counts[1] - counts[0])


def output_error(weight: Tensor, other: Tensor, inputs: Tensor) -> float:
    """``E |W x - W' x|^2``, of weights (outputs, inputs / groups, taps...) on `inputs` (groups, rows, k)."""
    difference = (weight - other).reshape(len(inputs), -1, inputs.shape[2])
    error = torch.bmm(inputs, difference.mT)
    return float(error.square().sum()) / math.prod(inputs.shape[1:2])
