"""How much the loss feels each weight: the diagonal of the Fisher information.

Setting w_j to zero raises the loss by about ``w_j^2 E[g_j^2] / 2``, g_j the derivative of one sample's loss (Theis et
al. 2018, https://arxiv.org/abs/1801.05787, equation 7; Molchanov et al. 2019, https://arxiv.org/abs/1906.10771,
equation 8). The loss is that of the labels where there are any. Else it is
the surprise at answers that the network itself would give: E[g^2] is then the diagonal of ``J^T F J``, J the derivative
of the outputs and F their Fisher information: ``diag(p) - p p^T`` for scores of classes, and the inverse of the
output's own variance for other numbers. It is sampled as ``(J^T u)^2`` with random u, ``E[u u^T] = F``; labels drawn
from p would do too, but those of little probability, which tell most, are hardly ever drawn: with 256 samples of a
network that is sure of itself, accuracy at 70 % sparsity was 76 % so, and 97 % with u.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worker.engine.data.samples import Samples
from worker.engine.network import Network
from worker.engine.quantized.observe import check_finite
from worker.engine.sparse.prunable import weight_of
from worker.engine.training.batches import Batch, Batches
from worker.engine.training.device import differentiable_in_evaluation
from worker.engine.training.losses import TASKS, gives_probabilities, no_gradient, scores_classes, spreads

#: Smallest probability that a logarithm is taken of.
_TINY: Final = 1e-12


@torch.enable_grad()
def squared_gradients(
    network: Network,
    samples: Samples,
    names: Sequence[str],
    *,
    task: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, Tensor]:
    """Name -> E[g^2] of each weight, in its shape, float32.

    Gradients are those of one sample at a time, or of one run of a network with a fixed batch.

    Args:
        names: of parameters of `network`.
        task: of the labels, one of `TASKS`; labels of other tasks are not used.
        progress: called with 0..1.
    Raises:
        InvalidDataset: ``not_finite`` where a sample leads to NaN or infinity; ``too_few_samples`` for a fixed batch.
        Unsupported: ``no_gradient``.
    """
    module = copy.deepcopy(network.module).to(device).eval()
    weights = [weight_of(module, name).requires_grad_(True) for name in names]
    totals = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
    batches = Batches(network, samples, size=1, seed=seed, device=device)
    loss = Surprise(network, samples, task, module, device, seed)
    with differentiable_in_evaluation(module):
        for index, parts in enumerate(batches.epoch(0)):
            for part in parts:
                found = torch.autograd.grad(loss(module(*part.inputs), part), weights, allow_unused=True)
                for total, gradient in zip(totals, found, strict=True):
                    if gradient is not None:
                        total.addcmul_(gradient.float(), gradient.float())
            progress((index + 1) / len(batches))
    for name, total in zip(names, totals, strict=True):
        check_finite(name, total)
    return {name: total / len(batches) for name, total in zip(names, totals, strict=True)}


class Surprise:
    """How unlikely labels, or answers of its own, are to the network: what gradients are taken of."""

    def __init__(
        self, network: Network, samples: Samples, task: str | None, module: nn.Module, device: str, seed: int
    ) -> None:
        self._scores = scores_classes(network.outputs[0], task)
        self._probabilities = gives_probabilities(network.module)[0]
        self._task = task if task in TASKS else None
        self._random = torch.Generator().manual_seed(seed)
        first = next(Batches(network, samples, size=64, seed=seed, device=device).epoch(0))[0]
        with torch.no_grad():
            self._spreads = spreads(module(*first.inputs))

    def __call__(self, outputs: Sequence[Tensor], batch: Batch) -> Tensor:
        """The sum over samples and outputs; a gradient of one number in each.

        Raises:
            Unsupported: ``no_gradient``.
        """
        parts = [outputs[0].new_zeros(())]
        for index, (output, spread) in enumerate(zip(outputs, self._spreads, strict=True)):
            if spread is None or not output.requires_grad:
                continue
            labels = batch.labels if index == 0 and self._task is not None else None
            if index == 0 and self._scores:
                parts.append(self._classes(output, labels))
            else:
                parts.append(self._numbers(output, labels, spread))
        if len(parts) == 1:
            raise no_gradient()
        return torch.stack(parts).sum()

    def _classes(self, output: Tensor, labels: Tensor | None) -> Tensor:
        scores = output.float().clamp(min=_TINY).log() if self._probabilities else output.float()
        if labels is None:
            p = torch.softmax(scores.detach(), 1)  # (samples, classes)
            v = torch.randint(0, 2, p.shape, generator=self._random).mul_(2).sub_(1).to(p)
            u = p.sqrt() * v - p * (p.sqrt() * v).sum(1, keepdim=True)
            return (u * scores).sum()
        return F.cross_entropy(scores, labels.long(), reduction="sum")

    def _numbers(self, output: Tensor, labels: Tensor | None, spread: float) -> Tensor:
        if labels is not None:
            missed = output - labels.to(output.dtype).reshape(output.shape)
            return missed.square().sum() / (2 * spread)
        noise = torch.randn(output.shape, generator=self._random).to(output)
        projected = (noise * output).sum() / math.sqrt(spread)
        return projected
