"""``search.architecture``: the best network inside the uploaded one that keeps a limit.

A supernet is trained in which narrower, shallower networks share the weights of wider ones (`search.supernet`); a
strategy then tries some of those that keep the limit, each with batch norms of its own, on held-back training samples
(`search.judge`). The best one goes on, with the weights that it had in the supernet.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from torch import Tensor

from app.recipes import Step
from app.recipes.methods import SearchArchitecture
from worker.engine.data.samples import Samples
from worker.engine.errors import Unsupported
from worker.engine.methods.layers import check_trainable, merged
from worker.engine.methods.lesson import Lesson, objective, teach, training_samples
from worker.engine.network import Network
from worker.engine.progress import Part
from worker.engine.search.costs import Costs, Soft
from worker.engine.search.differentiable import Trained, differentiate
from worker.engine.search.evolution import evolve
from worker.engine.search.judge import Judge, split_for_search
from worker.engine.search.latency import LatencyTable, Stopwatch
from worker.engine.search.problem import Problem, Strategy, Trial
from worker.engine.search.reinforcement import reinforce
from worker.engine.search.report import NAMED, Report, Timed
from worker.engine.search.space import Decision, Genes, make_space
from worker.engine.search.supernet import SANDWICH, Sandwich, faithful, sandwich
from worker.engine.state import Compressed, Context
from worker.engine.training.batches import Batches
from worker.engine.training.whole import graduated

STRATEGIES: Final[Mapping[str, Strategy]] = {
    "evolutionary": evolve,
    "reinforcement": reinforce,
    "differentiable": differentiate,
}
#: Share of the progress at which the supernet is trained.
_TRAINED: Final = 0.7
#: Work of a forward and a backward pass, in forward passes.
_BOTH: Final = 3
#: Steps of the training that its cost is told from.
_SAMPLED: Final = 64
#: Finalists that are timed whole, at most.
_FINALISTS: Final = 4


def search_architecture(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Search, and go on with the best.

    Raises:
        Unsupported: ``unknown_layer``; ``no_layers`` where there is nothing to choose; ``budget_too_small``;
            ``task_unsupported``, ``training_diverged``.
        InvalidDataset: ``training_required``, ``labels_required``, ``too_few_samples``.
        RuntimeFailure: with a limit on latency, a target that cannot run what is to be timed.
    """
    if not isinstance(step, SearchArchitecture):
        raise TypeError(f"{type(step).__name__} is not SearchArchitecture")
    samples = training_samples(step, context, taught=step.teacher)
    check_trainable(compressed.network, step.layers)
    compressed = compressed.to("cpu")  # training and evaluations take copies to the device
    search = _prepared(compressed, step, context, samples)
    problem, lesson = search.problem, _lesson(search, compressed)
    supernet, curves = teach(lesson, lambda points: search.supernet)
    judge = _judge(search, graduated(supernet.whole))
    problem.judge = judge
    problem.told = Part(context.reporter, "compressing", _TRAINED, 1.0)
    STRATEGIES[step.strategy](problem, _trained(search, lesson, judge))
    problem.trial(problem.uniform())
    best, timed = (problem.best(), None) if step.limit != "latency" else _fastest(search, judge)
    problem.look_beside(best)
    network = judge.made(best.genes, best.macs)
    spent = _spent(search, judge, len(curves["loss"]))
    held = len(search.held)
    report = Report(step.strategy, step.limit, problem, best, judge.name, held, spent, search.odd, timed)
    network = replace(network, module=network.module.eval(), source=None)
    return replace(
        compressed.with_curves(curves),
        network=network,
        layers=merged(compressed.layers, [], network),
        notes=[*compressed.notes, *report.notes()],
        pareto=report.rows(),
    )


@dataclass(frozen=True)
class _Search:
    """A search before its first step.

    Attributes:
        teacher: the model as it was uploaded.
        odd: decisions that masks do not imitate.
        training / held: samples to train on, and to compare candidates on.
    """

    step: SearchArchitecture
    context: Context
    network: Network
    teacher: Network
    problem: Problem
    odd: list[Decision]
    training: Samples
    held: Samples
    supernet: Sandwich


def _prepared(compressed: Compressed, step: SearchArchitecture, context: Context, samples: Samples) -> _Search:
    network = compressed.network
    space, odd = faithful(network, make_space(network, step))
    if not space.decisions:
        why = "; ".join(f"{path}: {reason}" for path, reason in [*space.structure.left.items()][:NAMED])
        raise Unsupported(
            "no_layers",
            "there is no width, residual block or kernel to choose in this model, or all are left out"
            + (f" ({why})" if why else ""),
        )
    costs = Costs(space)

    def problem_of(price: Callable[[Genes], float], seed: int) -> Problem:
        budget = step.limit_ratio * price(space.largest)
        random = np.random.default_rng(seed)
        found = Problem(space, costs, price, budget, _untrained, step.trials, random)
        found.check()
        return found

    # Measured times differ from attempt to attempt: what the supernet sees in training is told by counts alone.
    counted = problem_of(costs.parameters if step.limit == "size" else costs.macs, context.seed)
    problem = counted
    if step.limit == "latency":
        problem = problem_of(LatencyTable(space, context.reporter), context.seed)
    training, held = split_for_search(samples, context.seed)

    def draw(random: np.random.Generator) -> Sequence[Genes]:
        anything = tuple(int(random.integers(len(decision.options))) for decision in space.decisions)
        return space.largest, space.smallest, anything, counted.drawn(random)

    supernet = sandwich(network, space, draw, context.seed)
    teacher = network if context.original is None else context.original
    return _Search(step, context, network, teacher, problem, odd, training, held, supernet)


def _untrained(genes: Genes, macs: int) -> Any:
    raise RuntimeError("the supernet is not trained yet")


def _lesson(search: _Search, compressed: Compressed) -> Lesson:
    """The supernet's training."""
    supernet = search.supernet
    return Lesson(
        search.step,
        search.context,
        search.network,
        search.teacher,
        search.training,
        taught=search.step.teacher,
        pruned=compressed.pruned,
        statistics=1.0,
        fast=True,
        ended=_TRAINED,
        repeats=SANDWICH,
        before=lambda network, share: supernet.start_step(share),
    )


def _judge(search: _Search, network: Network) -> Judge:
    context, space = search.context, search.problem.space
    training, held = search.training, search.held
    return Judge(space, network, search.teacher, training, held, context.task, context.device, context.seed)


def _trained(search: _Search, lesson: Lesson, judge: Judge) -> Trained:
    """What strategies see of the supernet after its training."""
    step, context, problem = search.step, search.context, search.problem
    size, seed, device = step.batch_size, context.seed, context.device
    batches = Batches(search.network, search.training, size=size, seed=seed, device=device)
    costs = problem.costs
    weights = problem.price.weights(costs) if isinstance(problem.price, LatencyTable) else None

    def soft(mixture: Soft) -> Tensor:
        return costs.soft_parameters(mixture) if step.limit == "size" else costs.soft_macs(mixture, weights)

    def spent(samples: float) -> None:
        judge.work += samples * costs.whole[0] * (_BOTH + (1 if step.teacher else 0))

    told = objective(replace(lesson, fast=False), batches)
    elastic = search.supernet.elastic
    return Trained(judge.network, elastic, batches, told, step.epochs, soft, device, spent)


def _spent(search: _Search, judge: Judge, epochs: int) -> float:
    """Epochs of the network as it came in that the search has cost; a masked network costs as much as a whole one."""
    supernet, costs = search.supernet, search.problem.costs
    every, macs = len(search.training) + len(search.held), max(costs.whole[0], 1)
    candidates = float(SANDWICH)
    if supernet.elastic.sliced:
        random = np.random.default_rng(search.context.seed)
        sums = [sum(costs.macs(_computed(search, genes)) for genes in supernet.draw(random)) for _ in range(_SAMPLED)]
        candidates = float(np.mean(sums)) / macs
    taught = len(search.training) if search.step.teacher else 0  # the teacher answers each sample once
    return (epochs * len(search.training) * candidates * _BOTH + taught + judge.work / macs) / (_BOTH * every)


def _computed(search: _Search, genes: Genes) -> Genes:
    """What runs in training for a candidate: the insides of skipped blocks and the rings of kernels run too."""
    decisions = search.problem.space.decisions
    return tuple(gene if d.kind == "width" else d.last for d, gene in zip(decisions, genes, strict=True))


def _fastest(search: _Search, judge: Judge) -> tuple[Trial, Timed]:
    """The best that keeps the limit where it is timed whole; the table is corrected by each that does not."""
    step, context, problem = search.step, search.context, search.problem
    target = next(iter(context.grids))
    folder = context.folder / "finalists"
    watch = Stopwatch(target, search.network, search.held, folder, context.threads, context.reporter)
    timed = Timed(target, step.limit_ratio)
    whole, tried = problem.priced(problem.space.largest), list[Trial]()
    for number in range(_FINALISTS):
        best = problem.best()
        ratio = watch.ratio(judge.made(best.genes, best.macs), f"finalist-{number}")
        timed.ratios[best.genes], timed.whole_ms = ratio, watch.measured
        timed.scale = ratio / (best.price / whole)
        tried.append(best)
        if ratio <= step.limit_ratio:
            return best, timed
        problem.budget = best.price * step.limit_ratio / ratio
        if not problem.fits(problem.space.smallest):
            break
        problem.trial(problem.repaired(best.genes, problem.random))
    return min(tried, key=lambda trial: timed.ratios[trial.genes]), timed
