"""Reinforcement: a small policy decides gene after gene, and learns from how good what it chose turned out to be.

As in AMC (He et al. 2018, https://arxiv.org/abs/1802.03494): layer after layer it sees what the layer costs, what is
left of the limit and what it did before, and options with which the rest could no longer keep the limit are not offered
(algorithm 1 there). In place of an actor and a critic for continuous actions it is trained by REINFORCE with a moving
baseline (Williams 1992, "Simple statistical gradient-following algorithms"), over the options that there are. It starts
around the candidate whose layers are all equally narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from worker.engine.search.problem import Problem
from worker.engine.search.space import Genes

#: Numbers that the policy sees of a decision, and its hidden neurons.
_SEEN, _HIDDEN = 8, 32
#: How far the first choices lie from the start, as a standard deviation of shares; of blocks and kernels.
_SPREAD, _RARE = 0.2, 0.45
_RATE: Final = 0.02
#: Weight of the entropy at the start; it falls to nothing.
_ENTROPY: Final = 0.02
#: What the baseline keeps of earlier rewards.
_MEMORY: Final = 0.9
#: Episodes for each trial, at most: a policy that has settled chooses the same again and again.
_EPISODES: Final = 3


class Policy(nn.Module):
    """What is seen of a decision -> where its share should lie, and how surely.

    Attributes:
        body: (8,) -> (2,): a shift of the share, and the logarithm of a factor of the spread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(_SEEN, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, 2))
        nn.init.zeros_(self.body[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.body[-1].bias)  # type: ignore[arg-type]

    def forward(self, seen: Tensor, shares: Tensor, start: float, spread: float) -> Tensor:
        """Logits of the options, (options,): those of a normal distribution at their shares.

        Args:
            seen: (8,).
            shares: (options,) of the whole.
            start / spread: of the distribution before anything was learned.
        """
        shift, factor = self.body(seen).unbind()
        width = spread * torch.exp(factor.clamp(-2, 2))
        found: Tensor = -0.5 * ((shares - start - shift) / width).square()
        return found


@dataclass(frozen=True)
class _Episode:
    genes: Genes
    likelihood: Tensor
    entropy: Tensor


def reinforce(problem: Problem, supernet: Any = None) -> None:
    """Try `Problem.trials` candidates, or fewer where the policy has settled."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(problem.random.integers(1 << 31)))
        policy = Policy()
    optimizer = torch.optim.Adam(policy.parameters(), lr=_RATE)
    start = problem.uniform()
    baseline, spread = problem.trial(start).quality.score, 0.0
    order = _order(problem)
    for number in range(_EPISODES * problem.trials):
        if not problem.left:
            return
        episode = _play(problem, policy, order, start)
        # What is left of the limit is used up: the reward is that of the completed candidate.
        reward = problem.trial(problem.repaired(episode.genes, problem.random)).quality.score
        difference = reward - baseline
        baseline = _MEMORY * baseline + (1 - _MEMORY) * reward
        spread = _MEMORY * spread + (1 - _MEMORY) * abs(difference) if spread else abs(difference)
        advantage = difference / spread if spread > 0 else 0.0
        weight = _ENTROPY * (1 - number / (_EPISODES * problem.trials))
        loss = -advantage * episode.likelihood - weight * episode.entropy
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()


def _order(problem: Problem) -> list[int]:
    """Blocks and kernels first, then widths from the inputs to the results: a width is chosen for what is there."""
    kinds = {"depth": 0, "kernel": 1, "width": 2}
    return sorted(range(len(problem.space.decisions)), key=lambda index: kinds[problem.space.decisions[index].kind])


def _play(problem: Problem, policy: Policy, order: Sequence[int], start: Genes) -> _Episode:
    """One candidate, drawn from the policy; it keeps the limit."""
    decisions = problem.space.decisions
    genes = list(problem.space.smallest)
    likelihood, entropy, before = torch.zeros(()), torch.zeros(()), 0.0
    for turn, index in enumerate(order):
        decision = decisions[index]
        prices = [problem.priced((*genes[:index], gene, *genes[index + 1 :])) for gene in range(len(decision.options))]
        shares = torch.tensor([option / decision.options[-1] for option in decision.options])
        seen = [
            turn / len(order),
            *(float(decision.kind == kind) for kind in ("width", "depth", "kernel")),
            (prices[-1] - prices[0]) / problem.budget,
            (problem.budget - prices[0]) / problem.budget,
            float(shares[start[index]]),
            before,
        ]
        spread = _SPREAD if decision.kind == "width" else _RARE
        logits = policy(torch.tensor(seen), shares, float(shares[start[index]]), spread)
        fits = torch.tensor([price <= problem.budget for price in prices])
        fits[0] = True  # the least of everything keeps the limit
        chances = torch.log_softmax(logits.masked_fill(~fits, -torch.inf), 0)
        draw = problem.random.random()
        genes[index] = gene = _drawn(chances.detach().exp().numpy(), draw)
        before = float(shares[gene])
        likelihood = likelihood + chances[gene]
        entropy = entropy - (chances[fits].exp() * chances[fits]).sum()
    return _Episode(tuple(genes), likelihood, entropy / len(order))


def _drawn(chances: np.ndarray[Any, np.dtype[np.float32]], draw: float) -> int:
    """The option at `draw` (0..1) of the distribution; one that has a chance."""
    sums = np.cumsum(chances.astype(np.float64))
    gene = min(int(np.searchsorted(sums, draw * sums[-1], side="right")), len(chances) - 1)
    while chances[gene] == 0:
        gene -= 1
    return gene
