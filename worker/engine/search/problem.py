"""What all strategies work on: candidates that keep the limit, and what is known of those that were tried."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from worker.engine.errors import Unsupported
from worker.engine.search.costs import Costs
from worker.engine.search.judge import Quality
from worker.engine.search.space import Genes, Space

#: Steps between the shares that the uniform candidate is looked for among.
_SHARES: Final = 64
#: Blocks are touched less often than widths when a candidate is made to fit: a block is a lot at once.
_BLOCKS: Final = 0.25
#: Spread of a random candidate's shares around those of the uniform one, as a logarithm.
_SPREAD: Final = 0.5
#: Shares of the limit that the best candidate is also tried at, for the Pareto set.
_BESIDE: Final = (0.5, 0.75, 1.25, 1.5)

#: Prices that are remembered, at most: each step of a training draws new ones.
_KNOWN: Final = 20000


@dataclass(frozen=True)
class Trial:
    """A candidate that was tried.

    Attributes:
        price: of what is limited.
    """

    genes: Genes
    price: float
    macs: int
    parameters: int
    quality: Quality

    @property
    def rank(self) -> tuple[float, float, float]:
        """Larger is better: the score, then the loss, then the price."""
        return self.quality.score, -self.quality.loss, -self.price


@dataclass
class Problem:
    """A limit on the candidates of a space.

    Attributes:
        price: what a candidate has of what is limited.
        budget: the most that it may have.
        judge: (candidate, its multiply-accumulates) -> how good it is.
        trials: candidates to try.
        told: called after each trial with the share that is done.
        found: what was tried so far.
    """

    space: Space
    costs: Costs
    price: Callable[[Genes], float]
    budget: float
    judge: Callable[[Genes, int], Quality]
    trials: int
    random: np.random.Generator
    told: Callable[[float], None] = lambda share: None
    found: dict[Genes, Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._prices: dict[Genes, float] = {}
        self._uniform: Genes | None = None

    def check(self) -> None:
        """Refuse a limit that nothing keeps.

        Raises:
            Unsupported: ``budget_too_small``.
        """
        least, whole = self.priced(self.space.smallest), self.priced(self.space.largest)
        if least > self.budget:
            raise Unsupported(
                "budget_too_small",
                f"the smallest network there is to choose has {least / whole:.3f} of what is limited; raise "
                "limit_ratio, or allow smaller widths (widths, round_to, layers)",
            )

    def priced(self, genes: Genes) -> float:
        """The price, computed once."""
        genes = self.space.canonical(genes)
        if genes not in self._prices:
            if len(self._prices) >= _KNOWN:
                self._prices.clear()
            self._prices[genes] = float(self.price(genes))
        return self._prices[genes]

    def fits(self, genes: Genes) -> bool:
        """Whether a candidate keeps the limit."""
        return self.priced(genes) <= self.budget

    @property
    def left(self) -> int:
        """Candidates that are still to be tried."""
        return max(self.trials - len(self.found), 0)

    def uniform(self) -> Genes:
        """All widths at about the same share of what they were, all blocks and kernels: the largest that fits."""
        if self._uniform is None:
            every = [self.scaled({}, (step + 1) / _SHARES) for step in range(_SHARES)]
            fitting = [genes for genes in every if self.fits(genes)]
            self._uniform = max(fitting, key=self.priced) if fitting else self.repaired(every[0], self.random)
        return self._uniform

    def scaled(self, shares: dict[int, float], share: float) -> Genes:
        """Widths nearest to a share; another one for the decisions in `shares`; blocks and kernels whole."""
        genes = []
        for index, decision in enumerate(self.space.decisions):
            wanted = shares.get(index, share) * decision.options[-1]
            nearest = int(np.argmin([abs(option - wanted) for option in decision.options]))
            genes.append(nearest if decision.kind == "width" else decision.last)
        return tuple(genes)

    def drawn(self, random: np.random.Generator) -> Genes:
        """A random candidate at the limit: any genes, or widths spread around those of the uniform one."""
        space = self.space
        if random.random() < 0.5:
            return self.repaired(tuple(int(random.integers(len(d.options))) for d in space.decisions), random)
        genes = list(self.uniform())
        for index, decision in enumerate(space.decisions):
            if decision.kind == "width":
                wanted = decision.options[genes[index]] * float(np.exp(random.normal(0, _SPREAD)))
                genes[index] = int(np.argmin([abs(option - wanted) for option in decision.options]))
            elif random.random() < 1 / len(space.decisions):
                genes[index] = int(random.integers(len(decision.options)))
        return self.repaired(tuple(genes), random)

    def repaired(self, genes: Genes, random: np.random.Generator, budget: float | None = None) -> Genes:
        """Near `genes`, and as large as the limit allows: random decisions go down while it is broken, then up."""
        budget = self.budget if budget is None else budget
        decisions = self.space.decisions
        weights = np.array([_BLOCKS if decision.kind == "depth" else 1.0 for decision in decisions])
        now = list(self.space.canonical(genes))
        while self.priced(tuple(now)) > budget and any(now):
            able = weights * (np.array(now) > 0)
            now[int(random.choice(len(now), p=able / able.sum()))] -= 1
        now = list(self.space.canonical(tuple(now)))
        for index in random.permutation(len(now)):
            while now[index] < decisions[index].last:
                larger = [*now[:index], now[index] + 1, *now[index + 1 :]]
                if self.priced(tuple(larger)) > budget:
                    break
                now = larger
        return self.space.canonical(tuple(now))

    def trial(self, genes: Genes) -> Trial:
        """Try a candidate, once."""
        genes = self.space.canonical(genes)
        if genes not in self.found:
            macs, parameters = self.costs.macs(genes), self.costs.parameters(genes)
            self.found[genes] = Trial(genes, self.priced(genes), macs, parameters, self.judge(genes, macs))
            self.told(min(len(self.found) / self.trials, 1.0))
        return self.found[genes]

    def best(self) -> Trial:
        """Of those that keep the limit."""
        return max((trial for trial in self.found.values() if self.fits(trial.genes)), key=lambda trial: trial.rank)

    def look_beside(self, best: Trial) -> None:
        """Try the network as it is, and the best candidate made smaller and larger: what other limits would give."""
        self.trial(self.space.largest)
        for share in _BESIDE:
            budget = share * self.budget
            if self.priced(self.space.smallest) <= budget <= self.priced(self.space.largest):
                self.trial(self.repaired(best.genes, self.random, budget))

    def pareto(self) -> list[Trial]:
        """Of all that were tried those that nothing cheaper is at least as good as; the cheapest first."""
        kept: list[Trial] = []
        for trial in sorted(self.found.values(), key=lambda trial: (trial.price, [-part for part in trial.rank])):
            if not kept or trial.rank[:2] > kept[-1].rank[:2]:
                kept.append(trial)
        return kept


#: How a strategy tries candidates.
Strategy = Callable[[Problem, Any], None]
