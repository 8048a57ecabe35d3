"""What the user is told of a search."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from worker.engine.search.problem import Problem, Trial
from worker.engine.search.space import Decision, Genes

#: Candidates of the Pareto set that are shown, and layers that a note names.
SHOWN, NAMED = 50, 8
_UNITS: Final = {"macs": "multiply-accumulates", "size": "parameters", "latency": "latency by the table of layers"}


@dataclass
class Timed:
    """What was measured of finalists.

    Attributes:
        target: the runtime.
        whole_ms: of the network that came in; 0 where nothing was measured.
        ratios: candidate -> its time over that.
        limit: the ratio that was asked for.
        scale: what the table's ratios are multiplied by.
    """

    target: str
    limit: float
    whole_ms: float = 0.0
    ratios: dict[Genes, float] = field(default_factory=dict)
    scale: float = 1.0


@dataclass(frozen=True)
class Report:
    """A search that is over.

    Attributes:
        metric: its name.
        held: how many samples candidates were compared on.
        epochs: what it cost, in epochs of the network as it came in.
        odd: decisions that masks do not imitate.
        timed: None where latency was not limited.
    """

    strategy: str
    limit: str
    problem: Problem
    best: Trial
    metric: str
    held: int
    epochs: float
    odd: Sequence[Decision]
    timed: Timed | None

    def notes(self) -> list[str]:
        """One line for each thing to know."""
        problem, best, space = self.problem, self.best, self.problem.space
        whole, uniform = problem.trial(space.largest), problem.trial(problem.uniform())
        lines = [
            f"search ({self.strategy}): {len(problem.found)} sub-networks tried on {self.held} held-back training "
            f"samples; the one that goes on has {best.price / whole.price:.1%} of the {_UNITS[self.limit]} and "
            f"{self.metric} {best.quality.metric:.4f} (all layers equally narrow: {uniform.quality.metric:.4f} at "
            f"{uniform.price / whole.price:.1%}; the whole supernet: {whole.quality.metric:.4f}), before any further "
            "training",
            f"search cost {self.epochs:.1f} epochs: training and evaluations in epochs of the network as it came in",
        ]
        if len(space.network.outputs) > 1:
            lines.append(f"sub-networks were compared by output {space.network.outputs[0].name!r} alone")
        if self.timed is not None:
            lines.append(_told(self.timed, best))
        if self.odd:
            names = ", ".join(f"{decision.kind} of {decision.name}" for decision in self.odd[:NAMED])
            lines.append(f"not searched, because masks do not imitate it exactly: {names}")
        left = [f"{path}: {reason}" for path, reason in space.structure.left.items()]
        if left:
            more = "" if len(left) <= NAMED else f"; and {len(left) - NAMED} more"
            lines.append(f"layers whose width was not searched: {'; '.join(left[:NAMED])}{more}")
        return lines

    def rows(self) -> list[dict[str, Any]]:
        """``metrics.pareto``: what nothing cheaper is as good as, the cheapest first."""
        trials = self.problem.pareto()
        if self.best not in trials:  # a faster one may have the same metric: what goes on is shown
            trials = sorted([*trials, self.best], key=lambda trial: trial.price)
        if len(trials) > SHOWN:
            at = {round(index) for index in np.linspace(0, len(trials) - 1, SHOWN)} | {trials.index(self.best)}
            trials = [trials[index] for index in sorted(at)]
        return [
            {
                "macs": trial.macs,
                "parameters": trial.parameters,
                "size_bytes": self._bytes(trial),
                **self._latency(trial),
                "metric": {"name": self.metric, "value": trial.quality.metric, "samples": self.held},
                "chosen": trial is self.best,
                **self.problem.space.describe(trial.genes),
            }
            for trial in trials
        ]

    def _bytes(self, trial: Trial) -> int:
        module = self.problem.space.network.module
        each = max((value.element_size() for value in module.parameters()), default=4)
        return trial.parameters * each

    def _latency(self, trial: Trial) -> dict[str, float]:
        timed = self.timed
        if timed is None:
            return {}
        whole = self.problem.priced(self.problem.space.largest)
        ratio = timed.ratios.get(trial.genes, trial.price / whole * timed.scale)
        ratio = 1.0 if trial.genes == self.problem.space.largest else ratio
        return {"latency_ms": round(ratio * timed.whole_ms, 5)}


def _told(timed: Timed, best: Trial) -> str:
    ratio = timed.ratios[best.genes]
    told = f"{timed.target}: the one that goes on takes {ratio:.1%} of {timed.whole_ms:.3g} ms, measured whole"
    if ratio > timed.limit:
        return f"{told}; none that was measured keeps the limit of {timed.limit:.1%}, and this is the fastest"
    return told
