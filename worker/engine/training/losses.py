"""What a network in training is told: by its float teacher, and by the labels where there are any.

Soft labels (Hinton et al. 2015, https://arxiv.org/abs/1503.02531): ``T^2 KL(softmax(t/T) || softmax(y/T))`` for the
scores t of the teacher and y of the student. Other floating outputs: mean squared error, divided by the variance of the
teacher's output, so that outputs of different size count alike. Labels: cross entropy of the first output, or mean
squared error divided likewise. A result that is already a probability is brought back to scores by its logarithm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from worker.engine.network import Network
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
class Objective:
    """What is minimized.

    Attributes:
        teacher: the float network, in eval mode; None learns from labels alone.
        task: of the labels, one of `TASKS`; None where they are not used.
        scores: whether the first output scores classes.
        probabilities: whether the first output is a softmax.
        spreads: variance of each floating output of the float network; None of others.
    """

    teacher: Callable[..., Outputs] | None
    task: str | None
    scores: bool
    probabilities: bool
    spreads: tuple[float | None, ...]

    def __call__(self, outputs: Outputs, batch: Batch) -> Loss:
        """The loss of the student's `outputs` for `batch`."""
        wanted = None
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher(*batch.inputs)
        labels = batch.labels if self.task is not None else None
        parts = [] if wanted is None else self._soft(outputs, wanted)
        if labels is not None:
            parts.append(self._hard(outputs[0], labels))
        return Loss(torch.stack(parts).sum(), self._right(outputs[0], wanted, labels))

    def _soft(self, outputs: Outputs, wanted: Outputs) -> list[Tensor]:
        parts = []
        for index, (one, other, spread) in enumerate(zip(outputs, wanted, self.spreads, strict=True)):
            if spread is None:
                continue
            if index == 0 and self.scores:
                parts.append(soft_labels(self._logits(one), self._logits(other)))
            else:
                parts.append(F.mse_loss(one, other) / spread)
        return parts

    def _hard(self, output: Tensor, labels: Tensor) -> Tensor:
        if self.task == "classification":
            return F.cross_entropy(self._logits(output), labels.long())
        return F.mse_loss(output, labels.to(output.dtype).reshape(output.shape)) / (self.spreads[0] or 1.0)

    def _logits(self, output: Tensor) -> Tensor:
        return output.clamp(min=_TINY).log() if self.probabilities else output

    def _right(self, output: Tensor, wanted: Outputs | None, labels: Tensor | None) -> Tensor | None:
        if not self.scores:
            return None
        if labels is None:
            labels = None if wanted is None else wanted[0].argmax(1)
        return None if labels is None else (output.detach().argmax(1) == labels).sum()


def soft_labels(student: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """``T^2 KL(teacher || student)`` of softened scores, (samples, classes), mean over samples."""
    one, other = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)
    return F.kl_div(one, other, reduction="batchmean", log_target=True) * temperature**2


def scores_classes(network: Network, task: str | None) -> bool:
    """Whether the first output is (samples, classes): as `task` says, else where it has that shape."""
    first = network.outputs[0]
    shaped = len(first.shape) == 2 and isinstance(first.shape[1], int) and first.shape[1] >= 2
    return shaped and first.dtype.startswith(("float", "bfloat")) and task in (None, "classification")


def gives_probabilities(module: fx.GraphModule) -> bool:
    """Whether the first output is the result of a softmax."""
    first = next(node for node in module.graph.nodes if node.op == "output").args[0][0]
    return isinstance(first, fx.Node) and operation(module, first) in _PROBABILITIES


@torch.no_grad()
def spreads(outputs: Outputs) -> tuple[float | None, ...]:
    """Variance of each floating output over some samples, at least a small share of its mean square; None of others."""
    return tuple(
        max(float(value.double().var(correction=0)), 1e-3 * float(value.double().square().mean()), _TINY)
        if value.is_floating_point()
        else None
        for value in outputs
    )
