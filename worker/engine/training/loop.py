"""The training loop: AdamW, clipped gradients, a warm-up and a cosine, something to go on from after each epoch.

AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101): a parameter moves by about the learning rate per
step whatever the size of its gradient, so one default serves networks and losses of every scale. Everything random
comes from (seed, epoch): a training that goes on after epoch n ends with the numbers of one that was never interrupted,
bit for bit on a CPU.
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
from worker.engine.training.losses import Loss, Outputs
from worker.engine.training.schedule import rate

#: Gradients are shortened to this length: a single odd batch must not undo the training.
_LONGEST_GRADIENT: Final = 1.0
_DECAY: Final = 0.01
#: What AdamW keeps for each parameter.
_MOMENTS: Final = ("exp_avg", "exp_avg_sq", "step")
#: Tensors that are never negative, by the end of their first or last name, and the largest logarithm of a step.
_POSITIVE: Final = ("running_var",)
_LOGARITHM: Final = 70.0


class NotResumable(ValueError):
    """What was kept of an earlier attempt does not fit this training."""


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        learning_rate: of parameters that are not in `rates`, at its peak.
        rates: parameter name -> its own peak; such parameters do not decay.
        before: called before each step with the share of steps that are done, 0..1.
        progress: called after each step likewise.
    """

    epochs: int
    learning_rate: float
    seed: int
    rates: Mapping[str, float] = field(default_factory=dict)
    before: Callable[[float], None] = lambda share: None
    progress: Callable[[float], None] = lambda share: None


class _Done(BaseModel):
    """How far a training is, as it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    epoch: int = Field(ge=1)
    curves: dict[str, list[float]]


class Training:
    """A training of `module`; iterate over `epochs` to run it.

    Attributes:
        epoch: how many epochs are done.
        curves: ``loss``, and ``accuracy`` where the first output scores classes: one value per epoch, the mean over
            the batches as they were trained on.
    """

    def __init__(
        self, module: nn.Module, batches: Batches, criterion: Callable[[Outputs, Batch], Loss], plan: Plan
    ) -> None:
        self.epoch = 0
        self.curves: dict[str, list[float]] = {}
        self._module, self._batches, self._criterion, self._plan = module, batches, criterion, plan
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(self._groups(), weight_decay=0.0)
        self._peaks = [float(group["lr"]) for group in self._optimizer.param_groups]

    def _groups(self) -> list[dict[str, Any]]:
        """Matrices and kernels decay, vectors do not; parameters with a rate of their own do not either."""
        plan = self._plan
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self._parameters.items():
            decay = _DECAY if parameter.dim() > 1 and name not in plan.rates else 0.0
            groups.setdefault((plan.rates.get(name, plan.learning_rate), decay), []).append(parameter)
        return [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]

    def epochs(self) -> Iterator[int]:
        """Train epoch after epoch, and yield the number of those that are done.

        Raises:
            Unsupported: ``training_diverged`` where the loss or its gradient is no longer finite.
        """
        while self.epoch < self._plan.epochs:
            torch.manual_seed(_seed(self._plan.seed, self.epoch))  # dropout
            self._run_epoch()
            self.epoch += 1
            yield self.epoch

    def _run_epoch(self) -> None:
        count, total = len(self._batches), 0.0
        right: list[int] = []
        seen = 0
        for index, parts in enumerate(self._batches.epoch(self.epoch)):
            step = self.epoch * count + index
            loss, hits = self._step(parts, step, self._plan.epochs * count)
            samples = sum(len(part) for part in parts)
            total, seen = total + loss * samples, seen + samples
            right += hits
            self._plan.progress((step + 1) / (self._plan.epochs * count))
        self.curves.setdefault("loss", []).append(total / seen)
        if right:
            self.curves.setdefault("accuracy", []).append(sum(right) / seen)

    def _step(self, parts: Iterable[Batch], step: int, steps: int) -> tuple[float, list[int]]:
        """One update; the batch's mean loss, and how many samples of each part were right."""
        self._plan.before(step / steps)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * rate(step, steps)
        self._optimizer.zero_grad()
        total, right = 0.0, []
        for part in parts:
            loss = self._criterion(self._module(*part.inputs), part)
            (loss.total * part.share).backward()  # type: ignore[no-untyped-call]
            total += float(loss.total.detach()) * part.share
            right += [] if loss.right is None else [int(loss.right)]
        length = float(nn.utils.clip_grad_norm_(self._parameters.values(), _LONGEST_GRADIENT))
        if not math.isfinite(total) or not math.isfinite(length):
            raise Unsupported(
                "training_diverged",
                f"the loss is not a finite number in epoch {self.epoch + 1}; lower learning_rate (it is "
                f"{self._plan.learning_rate:g}), and look for NaN or very large numbers in the training samples",
            )
        self._optimizer.step()
        return total, right

    def keep(self) -> Partial:
        """Everything that the next epoch starts from."""
        tensors = {f"model/{name}": value for name, value in _kept(self._module, self._parameters).items()}
        for name, parameter in self._parameters.items():
            moments = self._optimizer.state.get(parameter, {})
            tensors.update({f"{moment}/{name}": moments[moment] for moment in _MOMENTS if moment in moments})
        stored = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        return Partial(_Done(epoch=self.epoch, curves=self.curves).model_dump(), stored)

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
        kept = _kept(self._module, self._parameters)
        wanted = {f"model/{name}": value for name, value in kept.items()}
        for name, parameter in self._parameters.items():
            if f"step/{name}" in partial.tensors:
                shapes = (parameter, parameter, torch.tensor(0.0))
                wanted.update({f"{moment}/{name}": value for moment, value in zip(_MOMENTS, shapes, strict=True)})
        _check(partial.tensors, wanted)
        for name, value in kept.items():
            value.copy_(partial.tensors[f"model/{name}"])
        for name, parameter in self._parameters.items():
            if f"step/{name}" in partial.tensors:
                first, second, step = (partial.tensors[f"{moment}/{name}"] for moment in _MOMENTS)
                self._optimizer.state[parameter] = {
                    "step": step.clone(),
                    "exp_avg": torch.empty_like(parameter).copy_(first),
                    "exp_avg_sq": torch.empty_like(parameter).copy_(second),
                }
        self.epoch, self.curves = done.epoch, done.curves


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
