"""The training loop: clipped gradients, a warm-up and a cosine, something to go on from after each epoch.

AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101): a parameter moves by about the learning rate per
step whatever the size of its gradient, so one default serves networks and losses of every scale. Everything random
comes from (seed, epoch): a training that goes on after epoch n ends with the numbers of one that was never interrupted,
bit for bit on a CPU. With patience it stops where a loss on held-back samples no longer falls (Prechelt 1998, "Early
stopping: but when?"), and goes back to the epoch where that was lowest.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from worker.engine.errors import Unsupported
from worker.engine.state import Partial
from worker.engine.training.batches import Batch, Batches
from worker.engine.training.losses import Loss, Outputs, no_gradient
from worker.engine.training.schedule import rate

#: Name -> how the optimizer is made from groups with their own rates and decays, and what it keeps of each parameter.
OPTIMIZERS: Final[Mapping[str, tuple[Callable[[Any], torch.optim.Optimizer], tuple[str, ...]]]] = {
    "adamw": (lambda groups: torch.optim.AdamW(groups, weight_decay=0.0), ("exp_avg", "exp_avg_sq", "step")),
    "sgd": (lambda groups: torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True), ("momentum_buffer",)),
}
#: Tensors that are never negative, by the end of their first or last name, and the largest logarithm of a step.
_POSITIVE: Final = ("running_var",)
_LOGARITHM: Final = 70.0


class NotResumable(ValueError):
    """What was kept of an earlier attempt does not fit this training."""


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        epochs: at most.
        learning_rate: of parameters that are not in `rates`, at its peak.
        rates: parameter name -> its own peak; such parameters do not decay.
        optimizer: a name in `OPTIMIZERS`.
        weight_decay: of matrices and kernels.
        clip_norm: gradients are shortened to this length: a single odd batch must not undo the training.
        patience: epochs without a lower loss on the validation samples before it stops; 0: never.
        precision: what layers compute in; weights, losses and the optimizer stay in float32.
        before: called before each step with the share of steps that are done, 0..1.
        after: called after each step, with the share that is done then.
        progress: called after each step likewise.
    """

    epochs: int
    learning_rate: float
    seed: int
    rates: Mapping[str, float] = field(default_factory=dict)
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    patience: int = 0
    precision: torch.dtype = torch.float32
    before: Callable[[float], None] = lambda share: None
    after: Callable[[float], None] = lambda share: None
    progress: Callable[[float], None] = lambda share: None


class _Done(BaseModel):
    """How far a training is, as it is kept; `best` is the epoch that it goes back to."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    epoch: int = Field(ge=1)
    curves: dict[str, list[float]]
    best: int = Field(0, ge=0)


class Training:
    """A training of `module`; iterate over `epochs` to run it.

    Args:
        validation: samples that are not trained on; needed for patience.
    Attributes:
        epoch: how many epochs are done.
        curves: ``loss``, and ``accuracy`` where the first output scores classes: one value per epoch, the mean over
            the batches as they were trained on; ``validation_loss`` and ``validation_accuracy`` behind the epoch.
    """

    def __init__(
        self,
        module: nn.Module,
        batches: Batches,
        criterion: Callable[[Outputs, Batch], Loss],
        plan: Plan,
        validation: Batches | None = None,
    ) -> None:
        self.epoch = 0
        self.curves: dict[str, list[float]] = {}
        self._module, self._batches, self._criterion, self._plan = module, batches, criterion, plan
        self._validation = validation
        self._best, self._best_tensors = 0, dict[str, Tensor]()
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        make, self._moments = OPTIMIZERS[plan.optimizer]
        self._optimizer = make(self._groups())
        self._peaks = [float(group["lr"]) for group in self._optimizer.param_groups]

    def _groups(self) -> list[dict[str, Any]]:
        """Matrices and kernels decay, vectors do not; parameters with a rate of their own do not either."""
        plan = self._plan
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self._parameters.items():
            decay = plan.weight_decay if parameter.dim() > 1 and name not in plan.rates else 0.0
            groups.setdefault((plan.rates.get(name, plan.learning_rate), decay), []).append(parameter)
        return [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]

    def epochs(self) -> Iterator[int]:
        """Train epoch after epoch, and yield the number of those that are done; the best one is there at the end.

        Raises:
            Unsupported: ``training_diverged`` where the loss or its gradient is no longer finite; ``no_gradient``.
        """
        while self.epoch < self._plan.epochs and not self._patience_ends():
            torch.manual_seed(_seed(self._plan.seed, self.epoch))  # dropout
            self._run_epoch()
            self._validate()
            self.epoch += 1
            if self._validation is not None:
                self._note_best()
            yield self.epoch
        with torch.no_grad():
            kept = _kept(self._module, self._parameters) if self._best_tensors else {}
            for name, value in kept.items():
                value.copy_(self._best_tensors[name])

    def _patience_ends(self) -> bool:
        return 0 < self._plan.patience <= self.epoch - self._best

    def _note_best(self) -> None:
        losses = self.curves["validation_loss"]
        if self._best == 0 or losses[-1] < losses[self._best - 1]:
            self._best = self.epoch
            kept = _kept(self._module, self._parameters)
            self._best_tensors = {name: value.detach().clone() for name, value in kept.items()}

    def _run_epoch(self) -> None:
        count, sums = len(self._batches), _Sums()
        steps = self._plan.epochs * count
        for index, parts in enumerate(self._batches.epoch(self.epoch)):
            step = self.epoch * count + index
            sums.add(*self._step(parts, step, steps), sum(len(part) for part in parts))
            self._plan.after((step + 1) / steps)
            self._plan.progress((step + 1) / steps)
        sums.append_to(self.curves, "")

    @torch.no_grad()
    def _validate(self) -> None:
        if self._validation is None:
            return
        modes = {part: part.training for part in self._module.modules()}
        self._module.eval()
        sums = _Sums()
        for parts in self._validation.epoch(0):
            for part in parts:
                loss = self._loss(part)
                sums.add(float(loss.total), [] if loss.right is None else [int(loss.right)], len(part))
        for module, training in modes.items():
            module.training = training
        if not math.isfinite(sums.total):
            raise self._diverged("the loss on held-back samples")
        sums.append_to(self.curves, "validation_")

    def _loss(self, part: Batch) -> Loss:
        """The loss of some samples, computed in the plan's precision and added up in float32."""
        kind, plan = part.inputs[0].device.type, self._plan
        if plan.precision == torch.float32:
            return self._criterion(self._module(*part.inputs), part)
        with torch.autocast(kind, plan.precision):
            outputs = self._module(*part.inputs)
        return self._criterion([_float32(value) for value in outputs], part)

    def _step(self, parts: Iterable[Batch], step: int, steps: int) -> tuple[float, list[int]]:
        """One update; the batch's mean loss, and how many samples of each part were right."""
        self._plan.before(step / steps)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * rate(step, steps)
        self._optimizer.zero_grad()
        total, right = 0.0, []
        for part in parts:
            loss = self._loss(part)
            if not loss.total.requires_grad:
                raise no_gradient()
            (loss.total * part.share).backward()  # type: ignore[no-untyped-call]
            total += float(loss.total.detach()) * part.share
            right += [] if loss.right is None else [int(loss.right)]
        length = float(nn.utils.clip_grad_norm_(self._parameters.values(), self._plan.clip_norm))
        if not math.isfinite(total) or not math.isfinite(length):
            raise self._diverged("the loss")
        self._optimizer.step()
        return total, right

    def _diverged(self, what: str) -> Unsupported:
        return Unsupported(
            "training_diverged",
            f"{what} is not a finite number in epoch {self.epoch + 1}; lower learning_rate (it is "
            f"{self._plan.learning_rate:g}), and look for NaN or very large numbers in the training samples",
        )

    def keep(self) -> Partial:
        """Everything that the next epoch starts from."""
        tensors = {f"model/{name}": value for name, value in _kept(self._module, self._parameters).items()}
        for name, parameter in self._parameters.items():
            moments = self._optimizer.state.get(parameter, {})
            known = {moment: moments.get(moment) for moment in self._moments}
            tensors.update({f"{moment}/{name}": value for moment, value in known.items() if value is not None})
        if self._best != self.epoch:
            tensors.update({f"best/{name}": value for name, value in self._best_tensors.items()})
        stored = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        return Partial(_Done(epoch=self.epoch, curves=self.curves, best=self._best).model_dump(), stored)

    @torch.no_grad()
    def resume(self, partial: Partial) -> None:
        """Go on from what `keep` gave; the content is not trusted, and nothing changes where it does not fit.

        Raises:
            NotResumable: another number of epochs, or other tensors than this training has.
        """
        try:
            done = _Done.model_validate(dict(partial.state))
        except ValidationError as error:
            raise NotResumable(str(error)) from error
        if done.epoch > self._plan.epochs or any(len(curve) != done.epoch for curve in done.curves.values()):
            raise NotResumable("it has another number of epochs")
        validated = self._validation is not None
        if done.best > done.epoch or (done.best > 0) != validated or ("validation_loss" in done.curves) != validated:
            raise NotResumable("it was validated otherwise")
        kept = _kept(self._module, self._parameters)
        wanted = {f"model/{name}": value for name, value in kept.items()}
        if done.best != done.epoch and validated:
            wanted.update({f"best/{name}": value for name, value in kept.items()})
        moved = [name for name in self._parameters if f"{self._moments[0]}/{name}" in partial.tensors]
        for name in moved:
            for moment in self._moments:
                wanted[f"{moment}/{name}"] = torch.tensor(0.0) if moment == "step" else self._parameters[name]
        _check(partial.tensors, wanted)
        for name, value in kept.items():
            value.copy_(partial.tensors[f"model/{name}"])
        for name in moved:
            parameter = self._parameters[name]
            state = {moment: partial.tensors[f"{moment}/{name}"] for moment in self._moments}
            self._optimizer.state[parameter] = {
                moment: value.clone() if moment == "step" else torch.empty_like(parameter).copy_(value)
                for moment, value in state.items()
            }
        self.epoch, self.curves, self._best = done.epoch, done.curves, done.best
        if validated:
            place = "model" if done.best == done.epoch else "best"
            self._best_tensors = {
                name: torch.empty_like(value).copy_(partial.tensors[f"{place}/{name}"]) for name, value in kept.items()
            }


@dataclass
class _Sums:
    """Losses and hits, added up over batches."""

    total: float = 0.0
    samples: int = 0
    right: list[int] = field(default_factory=list)

    def add(self, loss: float, right: list[int], samples: int) -> None:
        """`loss` is the mean over `samples`."""
        self.total, self.samples = self.total + loss * samples, self.samples + samples
        self.right += right

    def append_to(self, curves: dict[str, list[float]], prefix: str) -> None:
        curves.setdefault(f"{prefix}loss", []).append(self.total / self.samples)
        if self.right:
            curves.setdefault(f"{prefix}accuracy", []).append(sum(self.right) / self.samples)


def _float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _kept(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What training changes: parameters that train, and the persistent buffers of every module that is called."""
    persistent = module.state_dict().keys()
    buffers = {
        f"{path}.{name}": buffer
        for path, part in module.named_modules()
        if path  # what lies in the graph itself are constants
        for name, buffer in part.named_buffers(recurse=False)
        if f"{path}.{name}" in persistent
    }
    return {**{name: value.data for name, value in parameters.items()}, **buffers}


def _check(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    if given.keys() != wanted.keys():
        odd = sorted(given.keys() ^ wanted.keys())
        raise NotResumable(f"it has other tensors, such as {odd[0][:100]!r}")
    for name, value in wanted.items():
        other = given[name]
        if other.shape != value.shape or other.dtype != value.dtype:
            raise NotResumable(f"{name!r} has another shape or type")
        if other.is_floating_point() and not bool(torch.isfinite(other).all()):
            raise NotResumable(f"{name!r} is not finite")
        if (name.endswith(_POSITIVE) or name.startswith("exp_avg_sq/")) and bool((other < 0).any()):
            raise NotResumable(f"{name!r} is negative")
        if name.startswith("model/") and name.endswith("log_step") and bool((other.abs() > _LOGARITHM).any()):
            raise NotResumable(f"{name!r} is no logarithm of a step")


def _seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
