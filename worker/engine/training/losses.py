"""What a network in training is told: by its teacher, by the teacher's layers, and by the labels where there are any.

Soft labels (Hinton et al. 2015, https://arxiv.org/abs/1503.02531): ``T^2 KL(softmax(t/T) || softmax(y/T))`` for the
scores t of the teacher and y of the student. Other floating outputs: mean squared error, divided by the variance of the
teacher's output, so that outputs of different size count alike. Labels: cross entropy of scores, or mean squared error
divided likewise; every output that has labels counts. Features (Romero et al. 2015, https://arxiv.org/abs/1412.6550):
mean squared error of what layers answer, divided likewise. A result that is already a probability is brought back to
scores by its logarithm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from worker.engine.data.labels import task_of
from worker.engine.data.samples import Array
from worker.engine.errors import Unsupported
from worker.engine.network import Network, TensorSpec
from worker.engine.quantized.placement import operation
from worker.engine.training.batches import Batch

#: T above: at 1 the teacher says little beside its first choice.
TEMPERATURE: Final = 4.0
#: Tasks whose labels have a loss here.
TASKS: Final = ("classification", "regression")
_PROBABILITIES: Final = frozenset({"softmax", "_softmax", "Softmax"})
_TINY: Final = 1e-12

Outputs = Sequence[Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss, and how often the first output's highest score was right.

    Attributes:
        total: scalar, mean over samples.
        right: number of samples; None where the first output does not score classes.
    """

    total: Tensor
    right: Tensor | None


@dataclass(frozen=True)
class Answer:
    """What an output is.

    Attributes:
        scores: whether it scores classes, (samples, classes).
        probabilities: whether it is a softmax.
        spread: variance of the float network's output; None where it is not floating.
    """

    scores: bool
    probabilities: bool
    spread: float | None


@dataclass(frozen=True)
class Weights:
    """What each part of the loss counts; 0 leaves it out.

    Attributes:
        temperature: of soft labels.
    """

    soft: float = 1.0
    task: float = 1.0
    features: float = 0.0
    temperature: float = TEMPERATURE


@dataclass(frozen=True)
class Objective:
    """What is minimized.

    Attributes:
        teacher: a network in eval mode, whose results are those of the student, for batches that come without
            its answers; None learns from labels alone.
        answers: one for each output of the network. What a student returns beyond them are features, which the
            teacher returns at the same places.
        spreads: variance of each of the teacher's features.
    """

    teacher: Callable[..., Outputs] | None
    answers: tuple[Answer, ...]
    weights: Weights = field(default_factory=Weights)
    spreads: tuple[float, ...] = ()

    def __call__(self, outputs: Outputs, batch: Batch) -> Loss:
        """The loss of the student's `outputs` for `batch`.

        Raises:
            Unsupported: ``no_gradient`` where there is nothing to compare.
        """
        wanted: Outputs | None = batch.answers or None
        if wanted is None and self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher(*batch.inputs)
        parts = [] if wanted is None else [*self._soft(outputs, wanted), *self._features(outputs, wanted)]
        if self.weights.task:
            parts += self._hard(outputs, batch)
        if not parts:
            raise no_gradient()
        return Loss(torch.stack(parts).sum(), self._right(outputs[0], wanted, batch.labels))

    def _soft(self, outputs: Outputs, wanted: Outputs) -> list[Tensor]:
        parts = []
        for answer, one, other in zip(self.answers, outputs, wanted, strict=False):
            if answer.spread is None or not self.weights.soft:
                continue
            if answer.scores:
                scores = logits(one, answer), logits(other, answer)
                parts.append(self.weights.soft * soft_labels(*scores, self.weights.temperature))
            else:
                parts.append(self.weights.soft * F.mse_loss(one, other.to(one.dtype)) / answer.spread)
        return parts

    def _features(self, outputs: Outputs, wanted: Outputs) -> list[Tensor]:
        count = len(self.answers)
        pairs = list(zip(outputs[count:], wanted[count:], self.spreads, strict=True)) if self.weights.features else []
        return [
            self.weights.features / len(pairs) * F.mse_loss(one, other.to(one.dtype)) / spread
            for one, other, spread in pairs
        ]

    def _hard(self, outputs: Outputs, batch: Batch) -> list[Tensor]:
        every = [(0, batch.labels), *batch.more.items()]
        return [
            self.weights.task * hard_labels(outputs[index], labels, self.answers[index])
            for index, labels in every
            if labels is not None
        ]

    def _right(self, output: Tensor, wanted: Outputs | None, labels: Tensor | None) -> Tensor | None:
        if not self.answers[0].scores:
            return None
        if labels is None:
            labels = None if wanted is None else wanted[0].argmax(1)
        return None if labels is None else (output.detach().argmax(1) == labels).sum()


def no_gradient() -> Unsupported:
    """What to tell where the loss does not depend on the weights that it is to be improved, or judged, by."""
    return Unsupported(
        "no_gradient",
        "nothing that this step learns from depends on the weights in question: no floating-point result that has "
        "labels, or a teacher's answer, comes from them; let layers include more, give labels of the other results, or "
        "export a model that returns scores in place of class numbers",
    )


def once(network: Callable[..., Outputs]) -> Callable[..., Outputs]:
    """The same answers, not computed again for the very tensors that were given last."""
    last: list[tuple[tuple[Tensor, ...], Outputs]] = []

    def answer(*inputs: Tensor) -> Outputs:
        if not last or any(one is not other for one, other in zip(last[0][0], inputs, strict=True)):
            last[:] = [(inputs, network(*inputs))]
        return last[0][1]

    return answer


def logits(output: Tensor, answer: Answer) -> Tensor:
    """The scores that `output` comes from."""
    return output.clamp(min=_TINY).log() if answer.probabilities else output


def soft_labels(student: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """``T^2 KL(teacher || student)`` of softened scores, (samples, classes), mean over samples."""
    one, other = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)
    return F.kl_div(one, other, reduction="batchmean", log_target=True) * temperature**2


def hard_labels(output: Tensor, labels: Tensor, answer: Answer) -> Tensor:
    """Cross entropy of scores, mean squared error over the output's variance otherwise; mean over samples."""
    if answer.scores:
        return F.cross_entropy(logits(output, answer), labels.long())
    return F.mse_loss(output, labels.to(output.dtype).reshape(output.shape)) / (answer.spread or 1.0)


def answers_of(
    network: Network, task: str | None, outputs: Outputs, more: Mapping[str, Array] | None = None
) -> tuple[Answer, ...]:
    """What each output of the network is.

    The first one scores classes where it has that shape and the task is no other. A further one does so where it has
    class labels, or is a softmax: several numbers may as well be the corners of a box.

    Args:
        task: of the labels of the first output, where it is known.
        outputs: of some samples, by the float network.
        more: name of a further output -> its labels.
    """
    probable, spread = gives_probabilities(network.module), spreads(outputs)
    answers = [first_answer(network, task, outputs[0])]
    for index, spec in enumerate(network.outputs[1:], 1):
        labels = (more or {}).get(spec.name)
        known = None if labels is None else task_of(labels, spec, None)
        scores = scores_classes(spec, known) and (probable[index] or known is not None)
        answers.append(Answer(scores, probable[index], spread[index]))
    return tuple(answers)


def first_answer(network: Network, task: str | None, output: Tensor) -> Answer:
    """What the first output is; `output`: of some samples."""
    probable = gives_probabilities(network.module)[0]
    return Answer(scores_classes(network.outputs[0], task), probable, spreads([output])[0])


def scores_classes(output: TensorSpec, task: str | None) -> bool:
    """Whether an output is (samples, classes): as `task` says, else where it has that shape."""
    shaped = len(output.shape) == 2 and isinstance(output.shape[1], int) and output.shape[1] >= 2
    return shaped and output.dtype.startswith(("float", "bfloat")) and task in (None, "classification")


def gives_probabilities(module: fx.GraphModule) -> tuple[bool, ...]:
    """Whether each output is the result of a softmax."""
    results = next(node for node in module.graph.nodes if node.op == "output").args[0]
    return tuple(isinstance(one, fx.Node) and operation(module, one) in _PROBABILITIES for one in results)


@torch.no_grad()
def spreads(outputs: Outputs) -> tuple[float | None, ...]:
    """Variance of each floating output over some samples, at least a small share of its mean square; None of others."""
    return tuple(
        max(float(value.double().var(correction=0)), 1e-3 * float(value.double().square().mean()), _TINY)
        if value.is_floating_point()
        else None
        for value in outputs
    )
