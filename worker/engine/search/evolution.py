"""Evolution: the best of those that were tried have children, by mutation or by crossover.

Regularized evolution's tournaments (Real et al. 2019, https://arxiv.org/abs/1802.01548) over a supernet, as in
Once-for-All (Cai et al. 2020, https://arxiv.org/abs/1908.09791, section 3.4); children are made to fit the limit, and
to use all of it.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from worker.engine.search.problem import Problem, Trial
from worker.engine.search.space import Genes

#: Share of the trials that are drawn at random, and of those that were tried that may have children.
_FIRST, _PARENTS = 0.3, 0.25
#: Candidates in a tournament.
_TOURNAMENT: Final = 3
#: Share of the children that have two parents.
_CROSSED: Final = 0.4
#: Genes that a mutation changes, of so many; at least one.
_RATE: Final = 0.15
#: How often a child is made again that was tried before.
_PATIENCE: Final = 30


def evolve(problem: Problem, supernet: Any = None) -> None:
    """Try `Problem.trials` candidates, or all there are where these are fewer."""
    random = problem.random
    problem.trial(problem.uniform())
    problem.trial(problem.repaired(problem.uniform(), random))
    first = max(int(_FIRST * problem.trials), 4)
    while problem.left:
        child = _new(problem, _child if len(problem.found) >= first else lambda problem: problem.drawn(problem.random))
        if child is None:
            return
        problem.trial(child)


def _new(problem: Problem, make: Callable[[Problem], Genes]) -> Genes | None:
    """What `make` gives that was not tried yet; None where it seems that there is no such."""
    for attempt in range(2 * _PATIENCE):
        genes = make(problem) if attempt < _PATIENCE else problem.drawn(problem.random)
        if genes not in problem.found:
            return genes
    return None


def _child(problem: Problem) -> Genes:
    random = problem.random
    ranked = sorted(problem.found.values(), key=lambda trial: trial.rank, reverse=True)
    parents = ranked[: max(int(_PARENTS * len(ranked)), 2)]
    genes = _winner(parents, random).genes
    if random.random() < _CROSSED:
        other = _winner(parents, random).genes
        genes = tuple(int(one if random.random() < 0.5 else two) for one, two in zip(genes, other, strict=True))
    return problem.repaired(mutated(problem, genes), random)


def mutated(problem: Problem, genes: Genes) -> Genes:
    """With some genes one or two options away from what they were."""
    random, decisions = problem.random, problem.space.decisions
    changed = random.random(len(genes)) < max(_RATE, 1 / len(genes))
    changed[int(random.integers(len(genes)))] = True
    moved = []
    for gene, change, decision in zip(genes, changed, decisions, strict=True):
        step = int(random.choice([-2, -1, 1, 2])) if change else 0
        moved.append(min(max(gene + step, 0), decision.last))
    return tuple(moved)


def _winner(parents: list[Trial], random: np.random.Generator) -> Trial:
    drawn = random.integers(len(parents), size=_TOURNAMENT)
    found: Trial = max((parents[index] for index in drawn), key=lambda trial: trial.rank)
    return found
