"""``search.architecture``: the best network inside the uploaded one that keeps a limit.

A supernet is trained in which narrower, shallower networks share the weights of wider ones (`search.supernet`); a
strategy then tries some of those that keep the limit, each with batch norms of its own, on held-back training samples
(`search.judge`). The best one goes on, with the weights that it had in the supernet.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from app.recipes import Step
from app.recipes.methods import SearchArchitecture
from worker.engine.data.samples import Samples
from worker.engine.errors import Unsupported
from worker.engine.methods.layers import check_trainable
from worker.engine.methods.lesson import Lesson, objective, teach, training_samples
from worker.engine.network import Network
from worker.engine.progress import Part
from worker.engine.search.costs import Costs
from worker.engine.search.differentiable import Trained, differentiate
from worker.engine.search.evolution import evolve
from worker.engine.search.judge import Judge, divided
from worker.engine.search.problem import Problem, Strategy, Trial
from worker.engine.search.reinforcement import reinforce
from worker.engine.search.space import Decision, Genes, Space, make_space
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
#: Candidates of the Pareto set that are shown, and layers that a note names.
_SHOWN, _NAMED = 50, 8
_UNITS: Final = {"macs": "multiply-accumulates", "size": "parameters", "latency": "latency"}


def search_architecture(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Search, and go on with the best.

    Raises:
        Unsupported: ``unknown_layer``; ``no_layers`` where there is nothing to choose; ``budget_too_small``;
            ``task_unsupported``, ``training_diverged``.
        InvalidDataset: ``training_required``, ``labels_required``, ``too_few_samples``.
    """
    if not isinstance(step, SearchArchitecture):
        raise TypeError(f"{type(step).__name__} is not SearchArchitecture")
    samples = training_samples(step, context, taught=step.teacher)
    check_trainable(compressed.network, step.layers)
    compressed = compressed.to("cpu")  # training and evaluations take copies to the device
    search = _prepared(compressed, step, context, samples)
    problem, lesson = search.problem, _lesson(search, compressed)
    supernet, curves = teach(lesson, lambda points: search.supernet)
    trained = graduated(supernet.whole)
    judge = Judge(
        search.space,
        trained,
        search.teacher,
        search.training,
        search.held,
        context.task if samples.labels is not None else None,
        context.device,
        context.seed,
    )
    problem.judge = judge
    problem.told = Part(context.reporter, "compressing", _TRAINED, 1.0)
    STRATEGIES[step.strategy](problem, _trained(search, lesson, judge))
    problem.trial(problem.uniform())
    best = problem.best()
    problem.look_beside()
    network = judge.made(best.genes, best.macs)
    network = replace(network, module=network.module.eval(), source=None)
    epochs = len(curves["loss"])
    notes = [*compressed.notes, *_notes(search, best, judge, epochs)]
    pareto = _pareto(search, best, judge.name)
    return replace(compressed.with_curves(curves), network=network, notes=notes, pareto=pareto)


@dataclass(frozen=True)
class _Search:
    """A search before its first step.

    Attributes:
        odd: decisions that masks do not imitate.
        training / held: samples to train on, and to compare candidates on.
    """

    step: SearchArchitecture
    context: Context
    network: Network
    teacher: Network
    space: Space
    odd: list[Decision]
    problem: Problem
    training: Samples
    held: Samples
    supernet: Sandwich


def _prepared(compressed: Compressed, step: SearchArchitecture, context: Context, samples: Samples) -> _Search:
    network = compressed.network
    space, odd = faithful(network, make_space(network, step))
    if not space.decisions:
        why = "; ".join(f"{path}: {reason}" for path, reason in [*space.structure.left.items()][:_NAMED])
        raise Unsupported(
            "no_layers",
            "there is no width, residual block or kernel to choose in this model, or all are left out"
            + (f" ({why})" if why else ""),
        )
    costs = Costs(space)
    price = _price(step, costs)
    problem = Problem(
        space=space,
        costs=costs,
        price=price,
        budget=step.limit_ratio * price(space.largest),
        judge=lambda genes, macs: _untrained(),
        trials=step.trials,
        random=np.random.default_rng(context.seed),
    )
    problem.check()
    training, held = divided(samples, context.seed)

    def draw(random: np.random.Generator) -> Sequence[Genes]:
        anything = tuple(int(random.integers(len(decision.options))) for decision in space.decisions)
        return space.largest, space.smallest, anything, problem.drawn(random)

    supernet = sandwich(network, space, draw, context.seed)
    teacher = network if context.original is None else context.original
    return _Search(step, context, network, teacher, space, odd, problem, training, held, supernet)


def _untrained() -> Any:
    raise RuntimeError("the supernet is not trained yet")


def _price(step: SearchArchitecture, costs: Costs) -> Callable[[Genes], float]:
    return costs.parameters if step.limit == "size" else costs.macs


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


def _trained(search: _Search, lesson: Lesson, judge: Judge) -> Trained:
    """What strategies see of the supernet after its training."""
    step, context, supernet = search.step, search.context, search.supernet
    size, seed, device = step.batch_size, context.seed, context.device
    batches = Batches(search.network, search.training, size=size, seed=seed, device=device)
    costs = search.problem.costs

    def spent(samples: float) -> None:
        judge.work += samples * costs.whole[0] * (_BOTH + (1 if step.teacher else 0))

    return Trained(
        judge.network,
        supernet.elastic,
        batches,
        objective(replace(lesson, fast=False), batches),
        step.epochs,
        costs.soft_parameters if step.limit == "size" else costs.soft_macs,
        device,
        spent,
    )


def _notes(search: _Search, best: Trial, judge: Judge, epochs: int) -> list[str]:
    step, problem, space = search.step, search.problem, search.space
    whole, uniform = problem.trial(space.largest), problem.trial(problem.uniform())
    every = len(search.training) + len(search.held)
    forward = SANDWICH * _BOTH + (1 if step.teacher else 0)
    macs = problem.costs.whole[0]
    spent = epochs * len(search.training) * forward / (_BOTH * every) + judge.work / max(_BOTH * every * macs, 1)
    lines = [
        f"search ({step.strategy}): {len(problem.found)} sub-networks tried on {len(search.held)} held-back training "
        f"samples; the one that goes on has {best.price / whole.price:.1%} of the {_UNITS[step.limit]} and {judge.name} "
        f"{best.quality.metric:.4f} (all layers equally narrowed: {uniform.quality.metric:.4f} at "
        f"{uniform.price / whole.price:.1%}; the whole supernet: {whole.quality.metric:.4f}), before any further "
        "training",
        f"search cost {spent:.1f} epochs: training and evaluations in epochs of the network as it came in",
    ]
    if search.odd:
        names = ", ".join(f"{decision.kind} of {decision.name}" for decision in search.odd[:_NAMED])
        lines.append(f"not searched, because masks do not imitate it exactly: {names}")
    if space.structure.left:
        left = [*space.structure.left.items()]
        names = "; ".join(f"{path}: {reason}" for path, reason in left[:_NAMED])
        more = "" if len(left) <= _NAMED else f"; and {len(left) - _NAMED} more"
        lines.append(f"layers whose width was not searched: {names}{more}")
    return lines


def _pareto(search: _Search, best: Trial, name: str) -> list[dict[str, Any]]:
    rows = search.problem.pareto()
    if len(rows) > _SHOWN:
        at = {round(index) for index in np.linspace(0, len(rows) - 1, _SHOWN)} | {rows.index(best)}
        rows = [rows[index] for index in sorted(at)]
    return [
        {
            "macs": trial.macs,
            "parameters": trial.parameters,
            "size_bytes": trial.parameters * 4,
            "metric": {"name": name, "value": trial.quality.metric, "samples": len(search.held)},
            "chosen": trial is best,
            **search.space.describe(trial.genes),
        }
        for trial in rows
    ]
