"""What methods that train under quantization have in common: the session, and going on with an interrupted one.

The network learns from the float model's answers and from the labels where there are any. Batch norms compute on the
statistics of each batch for the first part of the training and on their own for the rest. After each epoch everything
is kept that the next one starts from.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from app.recipes.methods import TrainedStep
from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.network import Network
from worker.engine.progress import Part
from worker.engine.quantized.student import Student
from worker.engine.state import Context, Partial
from worker.engine.training.batches import Batches
from worker.engine.training.loop import NotResumable, Plan, Training
from worker.engine.training.losses import TASKS, Objective, gives_probabilities, scores_classes, spreads

#: Share of the steps in which batch norms compute on the statistics of the batch.
_STATISTICS: Final = 0.6
#: Parameters in units of their own size (a step's logarithm, centroids over their spread): their learning rate over
#: that of weights, and the largest.
_RELATIVE: Final = ("log_step", "centroids")
_RELATIVE_RATE: Final = 10.0
_FASTEST: Final = 1e-2
#: Makes the student; of an interrupted training it is told the zero points, whose scales come with what was kept.
MakeStudent = Callable[[Mapping[str, int] | None], Student]


@dataclass(frozen=True)
class Lesson:
    """A network that is to be trained.

    Attributes:
        network: float, with its batch norms: what trains.
        folded: the same with them folded: what teaches.
        samples: see `training_samples`.
        started: share of the step's progress that is done before it trains.
    """

    step: TrainedStep
    context: Context
    network: Network
    folded: Network
    samples: Samples
    started: float = 0.0


class _Kept(BaseModel):
    """What is kept of a training: its own state, and zero points by FX node name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    zero_points: dict[str, int]
    training: dict[str, Any]


def training_samples(step: TrainedStep, context: Context) -> Samples:
    """The samples to train on.

    Raises:
        InvalidDataset: ``training_required`` without any; ``labels_required`` where nothing teaches.
        Unsupported: ``task_unsupported`` where there is no teacher and the labels' task has no loss.
    """
    if context.training is None:
        raise InvalidDataset("training_required", f"{step.method} needs training samples here")
    if step.teacher:
        return context.training
    if context.training.labels is None:
        raise InvalidDataset(
            "labels_required", "without labels the training samples teach nothing; add labels, or set teacher: true"
        )
    if context.task not in TASKS:
        raise Unsupported("task_unsupported", f"labels of task {context.task!r} have no loss here; set teacher: true")
    return context.training


def teach(lesson: Lesson, make: MakeStudent) -> tuple[Student, dict[str, list[float]]]:
    """Train, from the start or from where an earlier attempt was; the student, and the curves of its training.

    Raises:
        Unsupported: ``training_diverged``.
        InvalidDataset: ``too_few_samples``.
    """
    student, session = _session(lesson, make)
    context, epochs = lesson.context, lesson.step.epochs
    zero_points = {name: grid.zero_point for name, grid in student.grids.items()}
    for epoch in session.epochs():
        figures = {name: curve[-1] for name, curve in session.curves.items()}
        for name, value in figures.items():
            context.reporter.metric(f"training.{name}", value)
        context.reporter.log(f"Epoch {epoch} of {epochs}: " + ", ".join(f"{n} {v:.4g}" for n, v in figures.items()))
        partial = session.keep()
        state = _Kept(zero_points=zero_points, training=dict(partial.state)).model_dump()
        context.keep(f"epoch {epoch} of {epochs}", Partial(state, partial.tensors))
    return student, session.curves


def _session(lesson: Lesson, make: MakeStudent) -> tuple[Student, Training]:
    context = lesson.context
    if context.resumed is not None:
        try:
            kept = _Kept.model_validate(dict(context.resumed.state))
            student = make(kept.zero_points)
            session = _training(lesson, student)
            session.resume(Partial(kept.training, context.resumed.tensors))
        except (ValidationError, NotResumable) as error:
            context.reporter.log(f"The step starts over, what was kept of it cannot be used: {error}"[:500], "warning")
        else:
            context.reporter.log(f"Training goes on after epoch {session.epoch} of {lesson.step.epochs}.")
            return student, session
    student = make(None)
    return student, _training(lesson, student)


def _training(lesson: Lesson, student: Student) -> Training:
    step, context = lesson.step, lesson.context
    for module in (student.network.module, student.module):
        replace(student.network, module=module).to(context.device)
    batches = Batches(lesson.network, lesson.samples, size=step.batch_size, seed=context.seed, device=context.device)
    rates = {
        name: min(step.learning_rate * _RELATIVE_RATE, _FASTEST)
        for name, _ in student.module.named_parameters()
        if name.endswith(_RELATIVE)
    }
    done = Part(context.reporter, "compressing", lesson.started, 1.0)
    plan = Plan(step.epochs, step.learning_rate, context.seed, rates, _settling(student, batches), done)
    return Training(student.module, batches, _objective(lesson, batches), plan)


def _settling(student: Student, batches: Batches) -> Callable[[float], None]:
    """Batch norms compute on batches first, and on their own statistics later."""
    settled: list[bool] = []

    def before(share: float) -> None:
        frozen = share >= _STATISTICS or not batches.statistics
        if settled != [frozen]:
            student.settle(frozen)
            settled[:] = [frozen]

    return before


@torch.no_grad()
def _objective(lesson: Lesson, batches: Batches) -> Objective:
    context, module = lesson.context, lesson.folded.module
    if context.device != "cpu":
        module = replace(lesson.folded, module=copy.deepcopy(module)).to(context.device).module
    module.eval()
    first = next(batches.epoch(0))[0]
    return Objective(
        teacher=module if lesson.step.teacher else None,
        task=context.task if first.labels is not None and context.task in TASKS else None,
        scores=scores_classes(lesson.network, context.task),
        probabilities=gives_probabilities(lesson.folded.module),
        spreads=spreads(module(*first.inputs)),
    )
