"""What methods that train have in common: the session, and going on with an interrupted one.

A network learns from the float model's answers, from the labels where there are any, or from both. Under quantization,
batch norms compute on the statistics of each batch for the first part of the training and on their own for the rest.
After each epoch everything is kept that the next one starts from. Weights that an earlier step has set to zero stay
zero.
"""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import fx

from app.recipes.methods import TrainedStep, TrainingStep
from worker.engine.data.samples import Samples, divided
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.methods.layers import other_than_float32
from worker.engine.network import Network
from worker.engine.progress import Part
from worker.engine.state import Context, Partial
from worker.engine.training.answers import answered
from worker.engine.training.batches import Batches
from worker.engine.training.device import half_precision
from worker.engine.training.loop import NotResumable, Plan, Training
from worker.engine.training.losses import TASKS, Objective, Weights, answers_of, once, spreads
from worker.engine.training.whole import any_order

#: Share of the steps in which batch norms compute on the statistics of the batch, under quantization.
_STATISTICS: Final = 0.6
#: Parameters in units of their own size (a step's logarithm, centroids over their spread): their learning rate over
#: that of weights, and the largest.
_RELATIVE: Final = ("log_step", "centroids")
_RELATIVE_RATE: Final = 10.0
_FASTEST: Final = 1e-2
#: One training sample in this many is held back for early stopping, and the largest number of them.
_VALIDATION, _MOST_VALIDATION = 10, 2000
#: Share of a training's progress in which the teacher answers.
_ANSWERING: Final = 0.1


class Pupil(Protocol):
    """What trains.

    Attributes:
        network: the float network, whose layers train.
        module: what is called; it holds those layers.
        zero_points: of grids, which are kept beside the tensors; by FX node name.
    """

    @property
    def network(self) -> Network: ...  # noqa: D102
    @property
    def module(self) -> fx.GraphModule: ...  # noqa: D102
    @property
    def zero_points(self) -> Mapping[str, int]: ...  # noqa: D102

    def settle(self, frozen: bool) -> None:
        """Train mode; batch norms on the statistics of the batch, or on their own (`frozen`)."""


P = TypeVar("P", bound=Pupil)


@dataclass(frozen=True)
class Lesson:
    """A network that is to be trained.

    Attributes:
        network: float, with its batch norms: what trains.
        teacher: the float network that is compared with, where `taught`; what it returns beyond the outputs are
            features.
        samples: see `training_samples`.
        taught: whether the teacher's answers are learned from.
        weights: of the parts of the loss.
        pruned: see `Compressed.pruned`.
        statistics: share of the steps in which batch norms compute on the statistics of the batch.
        fast: whether layers may compute in bfloat16 where that is faster, and images go through in channels-last
            order; not under quantization, whose rounding wants all bits.
        started / ended: the slice of the step's progress that the training takes.
        repeats: how many times each batch runs in a step of the optimizer; a pupil that is several networks is
            another one each time.
        before / after: called around each step of the optimizer with the pupil's network and the share that is done.
    """

    step: TrainedStep | TrainingStep
    context: Context
    network: Network
    teacher: Network
    samples: Samples
    taught: bool
    weights: Weights = field(default_factory=Weights)
    pruned: tuple[str, ...] = ()
    statistics: float = _STATISTICS
    fast: bool = False
    started: float = 0.0
    ended: float = 1.0
    repeats: int = 1
    before: Callable[[Network, float], None] = lambda network, share: None
    after: Callable[[Network, float], None] = lambda network, share: None


class _Kept(BaseModel):
    """What is kept of a training: its own state, and zero points by FX node name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    zero_points: dict[str, int]
    training: dict[str, Any]


def training_samples(step: TrainedStep | TrainingStep, context: Context, *, taught: bool) -> Samples:
    """The samples to train on; see `teaching`."""
    return teaching(step.method, context.training, context.task, taught=taught)


def teaching(method: str, samples: Samples | None, task: str | None, *, taught: bool) -> Samples:
    """What `method` can learn from; without labels that have no loss.

    Args:
        task: what the labels mean; None where there are none.
        taught: whether a teacher's answers are learned from.
    Raises:
        InvalidDataset: ``training_required`` without any; ``labels_required`` where nothing teaches.
        Unsupported: ``task_unsupported`` where there is no teacher and the labels' task has no loss.
    """
    if samples is None:
        raise InvalidDataset("training_required", f"{method} needs training samples here")
    if samples.labels is not None and task not in TASKS:
        if not taught:
            raise Unsupported("task_unsupported", f"labels of task {task!r} have no loss here; {_TEACHER}")
        samples = replace(samples, labels=None)
    if not taught and samples.labels is None and not samples.more:
        raise InvalidDataset(
            "labels_required", f"{method} learns from labels alone, and the training samples have none; {_TEACHER}"
        )
    return samples


_TEACHER: Final = "learn from the float model: method distill, or teacher: true where a method has it"


def teach(lesson: Lesson, make: Callable[[Mapping[str, int] | None], P]) -> tuple[P, dict[str, list[float]]]:
    """Train, from the start or from where an earlier attempt was; the pupil, and the curves of its training.

    Args:
        make: makes the pupil; of an interrupted training it is told the zero points, whose scales come with what
            was kept.
    Raises:
        Unsupported: ``training_diverged``, ``no_gradient``; ``dtype_unsupported`` for weights of 16 bits.
        InvalidDataset: ``too_few_samples``.
    """
    _check_precision(lesson.network)
    pupil, session = _session(lesson, make)
    context, epochs = lesson.context, lesson.step.epochs
    began, done = time.monotonic(), session.epoch
    for epoch in session.epochs():
        figures = {name: curve[-1] for name, curve in session.curves.items()}
        for name, value in figures.items():
            context.reporter.metric(f"training.{name}", value)
        left = (time.monotonic() - began) / (epoch - done) * (epochs - epoch)
        told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        context.reporter.log(f"Epoch {epoch} of {epochs}: {told}" + (f"; about {left:.0f} s left" if left else ""))
        partial = session.keep()
        state = _Kept(zero_points=dict(pupil.zero_points), training=dict(partial.state)).model_dump()
        context.keep(f"epoch {epoch} of {epochs}", Partial(state, partial.tensors))
    if session.epoch < epochs:
        context.reporter.log(f"Stopped after epoch {session.epoch}: {lesson.step.method} has run out of patience.")
    return pupil, session.curves


def _check_precision(network: Network) -> None:
    """Refuse weights of 16 bits, in which an optimizer's steps and moments vanish."""
    halves = {parameter.dtype for parameter in network.module.parameters()} & {torch.float16, torch.bfloat16}
    if halves:
        raise other_than_float32("training", halves, "let quantize.float come last")


def _session(lesson: Lesson, make: Callable[[Mapping[str, int] | None], P]) -> tuple[P, Training]:
    context = lesson.context
    if context.resumed is not None:
        try:
            kept = _Kept.model_validate(dict(context.resumed.state))
            pupil = make(kept.zero_points)
            session = _training(lesson, pupil)
            session.resume(Partial(kept.training, context.resumed.tensors))
        except (ValidationError, NotResumable) as error:
            context.reporter.log(f"The step starts over, what was kept of it cannot be used: {error}"[:500], "warning")
        else:
            context.reporter.log(f"Training goes on after epoch {session.epoch} of {lesson.step.epochs}.")
            return pupil, session
    pupil = make(None)
    return pupil, _training(lesson, pupil)


def _training(lesson: Lesson, pupil: Pupil) -> Training:
    step, context = lesson.step, lesson.context
    for module in (pupil.network.module, pupil.module):
        replace(pupil.network, module=module).to(context.device)
    patience = step.patience if isinstance(step, TrainingStep) else 0
    samples, started = lesson.samples, lesson.started
    if lesson.taught and not lesson.weights.features:  # else values as large as the network's come with every batch
        started += _ANSWERING * (lesson.ended - started)
        told = Part(context.reporter, "compressing", lesson.started, started)
        teacher, device = _teacher(lesson), context.device
        samples = answered(samples, lesson.network, teacher, context.folder, device=device, progress=told)
    samples, held = divided(samples, _VALIDATION, _MOST_VALIDATION, context.seed) if patience else (samples, None)
    order = torch.channels_last if lesson.fast else torch.contiguous_format

    def cut(part: Samples, repeats: int = 1) -> Batches:
        size, seed, device = step.batch_size, context.seed, context.device
        return Batches(lesson.network, part, size=size, seed=seed, device=device, order=order, repeats=repeats)

    batches = cut(samples, lesson.repeats)
    rates = {
        name: min(step.learning_rate * _RELATIVE_RATE, _FASTEST)
        for name, _ in pupil.module.named_parameters()
        if name.endswith(_RELATIVE)
    }
    settle, keep_zeros = _settling(pupil, batches, lesson.statistics), _keeping_zeros(pupil.network, lesson.pruned)

    def before(share: float) -> None:
        settle(share)
        lesson.before(pupil.network, share)

    def after(share: float) -> None:
        lesson.after(pupil.network, share)
        keep_zeros()

    plan = Plan(
        step.epochs,
        step.learning_rate,
        context.seed,
        rates,
        precision=half_precision(context.device) if lesson.fast else torch.float32,
        before=before,
        after=after,
        progress=Part(context.reporter, "compressing", started, lesson.ended),
    )
    if isinstance(step, TrainingStep):
        chosen = {name: getattr(step, name) for name in ("optimizer", "weight_decay", "clip_norm", "patience")}
        plan = replace(plan, **chosen)
    return Training(pupil.module, batches, objective(lesson, batches), plan, None if held is None else cut(held))


def _settling(pupil: Pupil, batches: Batches, statistics: float) -> Callable[[float], None]:
    """Batch norms compute on batches first, and on their own statistics later."""
    settled: list[bool] = []

    def before(share: float) -> None:
        frozen = share >= statistics or not batches.statistics
        if settled != [frozen]:
            pupil.settle(frozen)
            settled[:] = [frozen]

    return before


def _keeping_zeros(network: Network, pruned: tuple[str, ...]) -> Callable[[], None]:
    parameters = dict(network.module.named_parameters())
    pairs = [(parameters[name], parameters[name].detach() != 0) for name in pruned]

    @torch.no_grad()
    def after() -> None:
        for parameter, kept in pairs:
            parameter.mul_(kept)

    return after


@torch.no_grad()
def objective(lesson: Lesson, batches: Batches) -> Objective:
    """What a lesson's network is told.

    Args:
        batches: of which the first shows how large the teacher's answers are.
    """
    module = _teacher(lesson)
    first = next(batches.epoch(0))[0]
    results, count = module(*first.inputs), len(lesson.network.outputs)
    return Objective(
        teacher=(once(module) if lesson.repeats > 1 else module) if lesson.taught else None,
        answers=answers_of(lesson.network, lesson.context.task, results[:count], lesson.samples.more),
        weights=lesson.weights,
        spreads=tuple(spread for spread in spreads(results[count:]) if spread is not None),
    )


def _teacher(lesson: Lesson) -> fx.GraphModule:
    """The teacher on the device; the same one where it is there already."""
    device, module = lesson.context.device, lesson.teacher.module
    if device != "cpu":
        module = replace(lesson.teacher, module=copy.deepcopy(module)).to(device).module
    module.eval()
    return any_order(module) if lesson.fast else module
