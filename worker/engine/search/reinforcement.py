"""Reinforcement: a small policy decides gene after gene, and learns from how good what it chose turned out to be.

As in AMC (He et al. 2018, https://arxiv.org/abs/1802.03494): layer after layer it sees what the layer costs, what is
left of the limit and what it did before, and options with which the rest could no longer keep the limit are not offered
(algorithm 1 there). In place of an actor and a critic for continuous actions, it is trained over the options that there
are by clipped policy gradients against a moving baseline (PPO, Schulman et al. 2017,
https://arxiv.org/abs/1707.06347, equation 7). It starts around the candidate whose layers are all equally narrow.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worker.engine.search.problem import Problem
from worker.engine.search.space import Genes

#: Numbers that the policy sees of a decision, and its hidden neurons.
_SEEN, _HIDDEN = 8, 32
#: How far the first choices lie from the start, as a standard deviation of shares; of blocks and kernels.
_SPREAD, _RARE = 0.2, 0.45
#: Episodes that are learned from together, how often, and how far the chances of a choice may move on the way.
_BATCH, _PASSES, _CLIP = 6, 6, 0.2
_RATE, _RATE_OF_DECISIONS = 0.01, 0.04
#: What the baseline keeps of earlier rewards.
_MEMORY: Final = 0.7
#: Episodes for each trial, at most: a policy that has settled chooses the same again and again.
_EPISODES: Final = 3


class Policy(nn.Module):
    """What is seen of a decision -> where its share should lie, and how surely.

    Attributes:
        body: (..., 8) -> (..., 2): a shift of the share, and the logarithm of a factor of the spread.
        own: (decisions, 2): the same, of each decision by itself.
    """

    def __init__(self, decisions: int) -> None:
        super().__init__()
        last = nn.Linear(_HIDDEN, 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(nn.Linear(_SEEN, _HIDDEN), nn.Tanh(), last)
        self.own = nn.Parameter(torch.zeros(decisions, 2))

    def forward(self, seen: Tensor, shares: Tensor, start: Tensor, spread: Tensor, fits: Tensor) -> Tensor:
        """Logarithms of the options' chances, (..., decisions, options): a normal distribution at their shares.

        Args:
            seen: (..., decisions, 8).
            shares: (decisions, options) of the whole.
            start / spread: (decisions,) of the distribution before anything was learned.
            fits: (..., decisions, options) whether an option may be chosen.
        """
        shift, factor = (self.body(seen) + self.own).unbind(-1)
        width = spread * torch.exp(factor.clamp(-2, 2))
        logits = -0.5 * ((shares - (start + shift)[..., None]) / width[..., None]).square()
        return torch.log_softmax(logits.masked_fill(~fits, -1e9), -1)


class _Course:
    """The decisions in the order in which they are taken, as tensors whose first dimension they are."""

    def __init__(self, problem: Problem) -> None:
        # Blocks and kernels first, then widths from the inputs to the results: widths of what is there.
        kinds, decisions = {"depth": 0, "kernel": 1, "width": 2}, problem.space.decisions
        self.order = sorted(range(len(decisions)), key=lambda index: kinds[decisions[index].kind])
        most = max(len(decision.options) for decision in decisions)
        self.shares = torch.zeros(len(decisions), most)
        self.there = torch.zeros(len(decisions), most, dtype=torch.bool)
        uniform = problem.uniform()
        for turn, index in enumerate(self.order):
            options = decisions[index].options
            self.shares[turn, : len(options)] = torch.tensor([option / options[-1] for option in options])
            self.there[turn, : len(options)] = True
        genes = torch.tensor([uniform[index] for index in self.order])
        self.start = self.shares.gather(1, genes[:, None])[:, 0]
        self.kinds = [decisions[index].kind for index in self.order]
        self.spread = torch.tensor([_SPREAD if kind == "width" else _RARE for kind in self.kinds])


@dataclass(frozen=True)
class _Episode:
    """What was seen, (decisions, 8), what could be chosen, (decisions, options), and what was, (decisions,)."""

    genes: Genes
    seen: Tensor
    fits: Tensor
    chosen: Tensor
    chances: Tensor


def reinforce(problem: Problem, supernet: Any = None) -> None:
    """Try `Problem.trials` candidates, or fewer where the policy has settled."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(problem.random.integers(1 << 31)))
        policy = Policy(len(problem.space.decisions))
    rates = [
        {"params": policy.body.parameters(), "lr": _RATE},
        {"params": [policy.own], "lr": _RATE_OF_DECISIONS},
    ]
    optimizer = torch.optim.Adam(rates)
    course = _Course(problem)
    baseline = problem.trial(problem.uniform()).quality.score
    for _ in range(-(-_EPISODES * problem.trials // _BATCH)):
        if not problem.left:
            return
        episodes, rewards = list[_Episode](), list[float]()
        while problem.left and len(episodes) < _BATCH:
            episode = _play(problem, policy, course)
            # What is left of the limit is used up, the same way each time: the reward is that of the whole of it.
            completed = problem.repaired(episode.genes, np.random.default_rng(0))
            episodes.append(episode)
            rewards.append(problem.trial(completed).quality.score)
        _learn(policy, optimizer, course, episodes, torch.tensor(rewards) - baseline)
        baseline = _MEMORY * baseline + (1 - _MEMORY) * float(np.mean(rewards))


def _learn(
    policy: Policy, optimizer: torch.optim.Optimizer, course: _Course, episodes: list[_Episode], gains: Tensor
) -> None:
    """Make choices of episodes likelier that were better than the baseline, and those of the others less so."""
    if float(gains.abs().max()) == 0:
        return
    advantages = (gains / gains.square().mean().sqrt())[:, None]
    seen, fits, chosen, before = (
        torch.stack([getattr(episode, name) for episode in episodes]) for name in ("seen", "fits", "chosen", "chances")
    )
    for _ in range(_PASSES):
        chances = policy(seen, course.shares, course.start, course.spread, fits)
        ratio = torch.exp(chances.gather(2, chosen[..., None])[..., 0] - before)
        gain = torch.minimum(ratio * advantages, ratio.clamp(1 - _CLIP, 1 + _CLIP) * advantages)
        optimizer.zero_grad()
        (-gain.sum(1).mean()).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def _play(problem: Problem, policy: Policy, course: _Course) -> _Episode:
    """One candidate, drawn from the policy; it keeps the limit."""
    genes = list(problem.space.smallest)
    count, before = len(course.order), 0.0
    seen, fits = torch.zeros(count, _SEEN), course.there.clone()
    chosen, chances = torch.zeros(count, dtype=torch.int64), torch.zeros(count)
    for turn, index in enumerate(course.order):
        options = range(len(problem.space.decisions[index].options))
        prices = [problem.priced((*genes[:index], gene, *genes[index + 1 :])) for gene in options]
        seen[turn] = torch.tensor(
            [
                turn / count,
                *(float(course.kinds[turn] == kind) for kind in ("width", "depth", "kernel")),
                (prices[-1] - prices[0]) / problem.budget,
                (problem.budget - prices[0]) / problem.budget,
                float(course.start[turn]),
                before,
            ]
        )
        # The least of everything keeps the limit.
        fits[turn, : len(options)] = torch.tensor([gene == 0 or prices[gene] <= problem.budget for gene in options])
        every = policy(seen, course.shares, course.start, course.spread, fits)[turn]
        genes[index] = gene = int(problem.random.choice(len(every), p=_normalized(every)))
        before = float(course.shares[turn, gene])
        chosen[turn], chances[turn] = gene, every[gene]
    return _Episode(tuple(genes), seen, fits, chosen, chances)


def _normalized(chances: Tensor) -> NDArray[np.float64]:
    """From logarithms, adding up to 1 in double precision."""
    found: NDArray[np.float64] = chances.double().exp().numpy()
    found /= found.sum()
    return found
