"""``prune.channels``: whole channels, neurons and heads are removed, so that the network is smaller everywhere.

`worker.engine.structure` finds what goes together and removes it; here it is scored and chosen. Batch norms stay as
they are, so that later trainings have them.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from app.recipes import Step
from app.recipes.methods import LayerFilter, PruneChannels
from worker.engine.data.samples import Samples
from worker.engine.errors import Unsupported
from worker.engine.measure.macs import count_macs
from worker.engine.methods.layers import calibration_samples, check_known, layer_names
from worker.engine.methods.lesson import Lesson, teach, training_samples
from worker.engine.network import Network
from worker.engine.sparse.patterns import fits_fours, follows_fours
from worker.engine.state import Compressed, Context, Partial
from worker.engine.structure.analyse import analyse
from worker.engine.structure.choice import Chooser
from worker.engine.structure.importance import Scores, activation, magnitude, normalized, taylor
from worker.engine.structure.model import Family, Keep, Structure
from worker.engine.structure.remove import remove
from worker.engine.training.whole import graduated, whole

_LEFT_OUT: Final = "left out by layers"
_TRAIN: Final = "what channels took with them is won back by training: epochs here, or finetune or distill behind it"


@dataclass(frozen=True)
class _Task:
    """What is to be done.

    Attributes:
        samples: what taylor and activation look at.
        lessons: what is trained on between iterations.
    """

    step: PruneChannels
    context: Context
    samples: Samples | None
    lessons: Samples | None


@dataclass(frozen=True)
class _Course:
    """How far the removal is.

    Attributes:
        gone: channels that were removed.
        removed: numbers of the units that each iteration has removed, in the structure that it found.
    """

    network: Network
    gone: int = 0
    removed: tuple[list[int], ...] = ()

    @functools.cached_property
    def structure(self) -> Structure:
        """Of the network as it is."""
        return analyse(self.network)

    def without(self, keep: Keep) -> Self:
        """The same, one iteration on."""
        network, gone = remove(self.network, self.structure, keep), self.gone + self.structure.removed(keep)
        return type(self)(network, gone, (*self.removed, np.flatnonzero(~keep).tolist()))


class _Kept(BaseModel):
    """What is kept of a training: what went before it, all curves until then, and the training itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    removed: list[list[Annotated[int, Field(ge=0)]]] = Field(min_length=1)
    curves: dict[str, list[float]]
    training: dict[str, Any]


def prune_channels(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Remove channels.

    Raises:
        Unsupported: ``unknown_layer``; ``no_layers`` where nothing can be removed; ``budget_too_small`` where what has
            to stay needs more than `max_macs_ratio`; of a training also ``task_unsupported``, ``training_diverged``.
        InvalidDataset: ``calibration_required``, ``not_finite``, ``too_few_samples``; of a training also
            ``training_required``, ``labels_required``.
    """
    if not isinstance(step, PruneChannels):
        raise TypeError(f"{type(step).__name__} is not PruneChannels")
    compressed = compressed.to("cpu")  # what runs long takes copies to the device
    lessons = training_samples(step, context, taught=step.teacher) if step.epochs else None
    task = _Task(step, context, _seen(step, context), lessons)
    course = _Course(compressed.network)
    first, structure = course.network, course.structure
    _check(first, structure, step)
    left = _left(structure, step)
    macs, channels = sum(count_macs(first).values()), sum(family.width for family in removable(structure, step))
    course, compressed, resumed = _begun(course, compressed, task)
    for iteration in range(max(len(course.removed), 1), step.iterations + 1):
        if iteration > len(course.removed):  # else an earlier attempt has chosen
            course = course.without(_choice(_chooser(course, task), step, macs, iteration, (channels, course.gone)))
        course, compressed = _trained(course, compressed, task, resumed)
        resumed = None
        context.progress(iteration / step.iterations)
    if not course.gone:
        raise Unsupported("no_layers", _too_narrow(structure, step))
    broken = _broken(first, course.network, compressed.pruned)
    notes = [_told(first, course, macs, step), *broken, *left]
    return replace(compressed, network=course.network, notes=[*compressed.notes, *notes])


def removable(structure: Structure, step: PruneChannels) -> list[Family]:
    """The families of which every layer is in the step's filter."""
    return [family for family in structure.families if all(map(step.layers.matches, family.layers))]


def _seen(step: PruneChannels, context: Context) -> Samples | None:
    if "calibration" not in step.needed:
        return None
    return calibration_samples(context, step.samples, f"criterion {step.criterion}")


def _check(network: Network, structure: Structure, step: PruneChannels) -> None:
    check_known(layer_names(network), step.layers.globs)
    if not removable(structure, step):
        why = "; ".join(_grouped(structure.left)[:3])
        raise Unsupported(
            "no_layers",
            "there is no channel to remove in this model, or all are left out" + (f" ({why})" if why else ""),
        )


def _begun(course: _Course, compressed: Compressed, task: _Task) -> tuple[_Course, Compressed, Partial | None]:
    """Where an interrupted attempt was: what it had removed goes again, the weights come with its training."""
    step, context = task.step, task.context
    if context.resumed is None:
        return course, compressed, None
    again = course
    try:
        kept = _Kept.model_validate(dict(context.resumed.state))
        if len(kept.removed) > step.iterations:
            raise ValueError(f"it has {len(kept.removed)} iterations of {step.iterations}")
        for units in kept.removed:
            keep = again.structure.everything()
            keep[units] = False
            again = again.without(keep)
    except (ValueError, IndexError) as error:
        context.reporter.log(f"The step starts over, what was kept of it cannot be used: {error}"[:500], "warning")
        return course, compressed, None
    return again, replace(compressed, curves=kept.curves), Partial(kept.training, context.resumed.tensors)


def _chooser(course: _Course, task: _Task) -> Chooser:
    step, structure = task.step, course.structure
    scores = _scores(course.network, structure, task)
    return Chooser(structure, removable(structure, step), scores, step.scope == "global", step.round_to)


def _scores(network: Network, structure: Structure, task: _Task) -> Scores:
    """Over the mean of each family, so that those of all layers can be compared."""
    step, context = task.step, task.context
    if task.samples is None:
        found = magnitude(network, structure)
    elif step.criterion == "taylor":
        found = taylor(
            network, structure, task.samples, task=context.task, device=context.device, seed=context.seed
        )  # fmt: skip
    else:
        found = activation(network, structure, task.samples, context.device)
    return normalized(structure, found)


def _choice(chooser: Chooser, step: PruneChannels, macs: int, iteration: int, gone: tuple[int, int]) -> Keep:
    """What stays after an iteration: each takes the same share of what the one before should have left.

    Args:
        gone: channels that there were, and those that earlier iterations have removed; what rounding kept them from is
            made good.
    """
    if step.max_macs_ratio is None:
        goal = gone[0] * (1 - (1 - step.share) ** (iteration / step.iterations)) - gone[1]
        return chooser.share(max(goal, 0.0) / max(chooser.channels, 1))
    budget = macs * step.max_macs_ratio ** (iteration / step.iterations)
    found = chooser.budget(budget)
    if found is not None:
        return found
    smallest = chooser.at(chooser.length)
    if iteration < step.iterations:
        return smallest
    raise Unsupported(
        "budget_too_small",
        f"what has to stay needs {chooser.structure.macs(smallest) / macs:.3f} of the multiply-accumulates, more than "
        f"max_macs_ratio {step.max_macs_ratio:g}; raise it, lower round_to (it is {step.round_to}), or let layers "
        "include more",
    )


def _trained(
    course: _Course, compressed: Compressed, task: _Task, resumed: Partial | None
) -> tuple[_Course, Compressed]:
    """Train what is left, taught by the float network as it came into the step."""
    step, context = task.step, task.context
    if task.lessons is None:
        return course, compressed
    iteration, network = len(course.removed), course.network

    def keep(label: str, partial: Partial) -> None:
        kept = _Kept(removed=[*course.removed], curves=compressed.curves, training=dict(partial.state))
        label = label if step.iterations == 1 else f"iteration {iteration} of {step.iterations}, {label}"
        context.keep(label, Partial(kept.model_dump(), partial.tensors))

    lesson = Lesson(
        step, replace(context, keep=keep, resumed=resumed), network, compressed.network, task.lessons, step.teacher,
        pruned=compressed.pruned, statistics=1.0, fast=True,
        started=(iteration - 1) / step.iterations, ended=iteration / step.iterations,
    )  # fmt: skip
    pupil, curves = teach(lesson, lambda points: whole(network, LayerFilter()))
    return replace(course, network=graduated(pupil)), compressed.with_curves(curves)


def _left(structure: Structure, step: PruneChannels) -> list[str]:
    """One line per reason for which layers keep all their channels."""
    reasons = dict(structure.left)
    for family in structure.families:
        if not all(map(step.layers.matches, family.layers)):
            reasons.update(dict.fromkeys(family.layers, _LEFT_OUT))
    return _grouped(reasons)


def _grouped(reasons: Mapping[str, str]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for path, reason in reasons.items():
        by_reason.setdefault(reason, []).append(path)
    return [f"{', '.join(paths)}: no channels are removed, {reason}" for reason, paths in by_reason.items()]


def _too_narrow(structure: Structure, step: PruneChannels) -> str:
    widest = max(family.width for family in removable(structure, step))
    return (
        f"nothing is removed: the widest layer that can lose channels has {widest}, and round_to {step.round_to} and "
        "the goal leave all of them; lower round_to, or ask for more"
    )


def _broken(before: Network, after: Network, pruned: Sequence[str]) -> list[str]:
    """What earlier steps had zeros in two of every four for, and lost them as inputs went."""
    old, new = (dict(network.module.named_parameters()) for network in (before, after))
    lost = [name for name in pruned if name in new and _in_fours(old[name]) and not _in_fours(new[name])]
    if not lost:
        return []
    named = ", ".join(name.removesuffix(".weight") for name in lost)
    return [f"{named}: no longer two of every four are zero (2:4), because inputs went: let the pattern come last"]


def _in_fours(weight: Tensor) -> bool:
    return fits_fours(weight) and follows_fours(weight.detach())


def _told(before: Network, course: _Course, macs: int, step: PruneChannels) -> str:
    after = course.network
    line = (
        f"{course.gone} channels are removed ({step.criterion}, {step.scope}): multiply-accumulates {macs} -> "
        f"{sum(count_macs(after).values())}, parameters {before.parameters} -> {after.parameters}"
    )
    return line if step.epochs else f"{line}; {_TRAIN}"
