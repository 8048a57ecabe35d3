"""Differentiable search: a distribution over the options of each decision, trained by gradient through the supernet.

The masks of all options of a width are added up, weighted by Gumbel-softmax samples, as in FBNetV2 (Wan et al. 2020,
https://arxiv.org/abs/2004.05565, section 3.1: DMaskingNAS); blocks and kernels likewise. The loss gets a term for what
the mixture costs beyond the limit (FBNet, Wu et al. 2019, https://arxiv.org/abs/1812.03443, equation 5). Weights stay
as the supernet was trained; afterwards candidates are drawn from the distributions, made to fit the limit, and tried.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from worker.engine.formats.fold import NORMS
from worker.engine.network import Network
from worker.engine.search.costs import Soft
from worker.engine.search.evolution import mutated
from worker.engine.search.problem import Problem
from worker.engine.search.space import Genes
from worker.engine.search.supernet import Choice, Elastic, ring_masks
from worker.engine.training.batches import Batch, Batches
from worker.engine.training.device import differentiable_in_evaluation
from worker.engine.training.losses import Loss, Outputs

#: Learning rate of the logits, and the fewest and most steps.
_RATE, _FEWEST, _MOST = 0.05, 100, 2000
#: Temperature of the Gumbel softmax at the start and at the end.
_WARM, _COLD = 2.0, 0.3
#: The loss is multiplied by one more than so many times the logarithm by which the cost is beyond the limit.
_PRESSURE: Final = 2.0
#: Share of the limit that the mixture is pressed to: what is drawn from it lies on both sides.
_AIM: Final = 0.95
#: How often a candidate is drawn again that was tried before; the later ones from flatter distributions.
_PATIENCE: Final = 40


@dataclass(frozen=True)
class Trained:
    """A trained supernet, and what its loss is.

    Attributes:
        network: whose weights `elastic` has; on the CPU, as both are afterwards.
        epochs: over `batches` that the distributions are trained for, about.
        soft_price: what a mixture has of what is limited, as a tensor; in the unit of `Problem.budget`.
    """

    network: Network
    elastic: Elastic
    batches: Batches
    criterion: Callable[[Outputs, Batch], Loss]
    epochs: int
    soft_price: Callable[[Soft], Tensor]
    device: str
    spent: Callable[[float], None] = lambda samples: None


def differentiate(problem: Problem, supernet: Trained) -> None:
    """Train distributions, then try `Problem.trials` candidates drawn from them, or fewer where there are no others."""
    logits = _trained(problem, supernet)
    random = problem.random
    problem.trial(problem.uniform())
    likeliest = tuple(int(one.argmax()) for one in logits)
    problem.trial(problem.repaired(likeliest, random))
    while problem.left:
        genes = _new(problem, logits, likeliest)
        if genes is None:
            return
        problem.trial(genes)


def _new(problem: Problem, logits: Sequence[Tensor], likeliest: Genes) -> Genes | None:
    random = problem.random
    for attempt in range(_PATIENCE):
        flat = 1.0 + 4.0 * attempt / _PATIENCE
        chances = [torch.softmax(one / flat, 0).double().numpy() for one in logits]
        genes = tuple(int(random.choice(len(one), p=one / one.sum())) for one in chances)
        genes = genes if attempt < _PATIENCE // 2 else mutated(problem, likeliest)
        genes = problem.repaired(genes, random)
        if genes not in problem.found:
            return genes
    return None


def _trained(problem: Problem, supernet: Trained) -> list[Tensor]:
    """Logits of each decision's options."""
    elastic, device = supernet.elastic, supernet.device
    generator = torch.Generator().manual_seed(int(problem.random.integers(1 << 31)))
    logits = [torch.zeros(len(decision.options), requires_grad=True) for decision in problem.space.decisions]
    optimizer = torch.optim.Adam(logits, lr=_RATE, betas=(0.5, 0.999))
    weights = [parameter for parameter in elastic.parameters() if parameter.requires_grad]
    choices = _Mixtures(problem, elastic, device)
    steps = min(max(supernet.epochs * len(supernet.batches), _FEWEST), _MOST)
    replace(supernet.network, module=elastic).to(device)  # type: ignore[arg-type]
    frozen = _settled(elastic, supernet.batches.statistics)
    for weight in weights:
        weight.requires_grad_(False)
    try:
        with differentiable_in_evaluation(elastic):
            for step, parts in zip(range(steps), _endless(supernet.batches), strict=False):
                heat = _WARM * (_COLD / _WARM) ** (step / max(steps - 1, 1))
                optimizer.zero_grad()
                for part in parts:
                    shares = [_gumbel(one, heat, generator) for one in logits]
                    choice, soft = choices(shares)
                    elastic.choice = choice
                    over = torch.log(supernet.soft_price(soft) / (_AIM * problem.budget)).clamp_min(0).float()
                    loss = supernet.criterion(elastic(*part.inputs), part).total.to("cpu")
                    pressed = (loss + loss.detach() * _PRESSURE * over) * part.share
                    pressed.backward()  # type: ignore[no-untyped-call]
                    supernet.spent(len(part))
                nn.utils.clip_grad_norm_(logits, 1.0)
                optimizer.step()
    finally:
        for weight in weights:
            weight.requires_grad_(True)
        for norm, momentum in frozen.items():
            norm.momentum = momentum
        elastic.choice = Choice(torch.ones(problem.space.structure.units + 1))
        replace(supernet.network, module=elastic.eval()).to("cpu")  # type: ignore[arg-type]
    return [one.detach() for one in logits]


class _Mixtures:
    """Shares of the options of each decision -> what runs, and what it costs."""

    def __init__(self, problem: Problem, elastic: Elastic, device: str) -> None:
        self.space, self.device = problem.space, device
        self.stays: list[Tensor] = []  # (options, units): whether the n-th most important unit stays
        self.rings: dict[str, Tensor] = {}
        for decision in problem.space.decisions:
            count = 0 if decision.order is None else len(decision.order)
            options = torch.tensor(decision.options)[:, None]
            self.stays.append((torch.arange(count)[None] < options).float())
            if decision.kind == "kernel":
                self.rings[decision.name] = torch.cat(ring_masks(elastic.net, decision))

    def __call__(self, shares: Sequence[Tensor]) -> tuple[Choice, Soft]:
        keep = torch.ones(self.space.structure.units + 1)
        gates: dict[str, Tensor] = {}
        rings: dict[str, Tensor] = {}
        kernels: dict[str, Tensor] = {}
        for decision, share, stays in zip(self.space.decisions, shares, self.stays, strict=True):
            if decision.order is not None:
                keep = keep.index_put((torch.from_numpy(decision.order),), share @ stays)
            elif decision.kind == "depth":
                gates[decision.name] = share[1]
            else:
                masks = self.rings[decision.name]
                rings[decision.name] = (share.reshape(-1, *[1] * (masks.dim() - 1)) * masks).sum(0, keepdim=True)
                kernels[decision.name] = share @ masks.flatten(1).sum(1)
        soft = Soft(keep[:-1], gates, kernels)
        moved = {name: value.to(self.device) for name, value in gates.items()}
        return Choice(keep.to(self.device), moved, {n: v.to(self.device) for n, v in rings.items()}, soft=True), soft


def _gumbel(logits: Tensor, heat: float, generator: torch.Generator) -> Tensor:
    """A sample of the Gumbel softmax (Jang et al. 2017, https://arxiv.org/abs/1611.01144), (options,)."""
    noise = -torch.log(-torch.log(torch.rand(logits.shape, generator=generator).clamp(1e-9, 1 - 1e-7)))
    return torch.softmax((logits + noise) / heat, 0)


def _settled(elastic: Elastic, statistics: bool) -> dict[Any, float | None]:
    """Batch norms on the statistics of the batch, without taking note of them; everything else as in evaluation."""
    elastic.eval()
    norms: dict[Any, float | None] = {part: part.momentum for part in elastic.modules() if isinstance(part, NORMS)}
    for norm in norms:
        norm.train(statistics)
        norm.momentum = 0.0
    return norms


def _endless(batches: Batches) -> Iterator[list[Batch]]:
    number = 0
    while True:
        yield from batches.epoch(number)
        number += 1
