"""``distill``: the network, a smaller copy of the uploaded one, or another uploaded model learns from the uploaded one.

Knowledge distillation (Hinton et al. 2015, https://arxiv.org/abs/1503.02531) with features (Romero et al. 2015,
https://arxiv.org/abs/1412.6550) and labels; the losses are those of `training.losses`. The teacher is always the float
model as it was uploaded, whatever the steps before have made of it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.recipes import Step
from app.recipes.fit import differences
from app.recipes.methods import Distill
from app.recipes.methods.distill import FeatureLoss, Losses
from worker.engine.errors import Unsupported
from worker.engine.methods.layers import check_known, check_trainable
from worker.engine.methods.lesson import Lesson, teach, training_samples
from worker.engine.network import Network
from worker.engine.state import Compressed, Context
from worker.engine.structure.smaller import smaller
from worker.engine.training.features import Pair, pairs, projections, tapped, taps
from worker.engine.training.losses import Weights, gives_probabilities
from worker.engine.training.whole import Whole, graduated, whole


@dataclass(frozen=True)
class _Student:
    """Who learns: its network, what was pruned of it, and what to tell of where it comes from."""

    network: Network
    pruned: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def distill(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Train on the uploaded model's answers.

    Raises:
        Unsupported: ``unknown_layer``, ``no_layers``; ``model_mismatch`` where another model takes or returns other
            things; ``no_features`` where no layers belong together; ``task_unsupported``, ``training_diverged``.
        InvalidDataset: ``training_required``; ``labels_required`` where labels alone are learned from;
            ``too_few_samples``.
    """
    if not isinstance(step, Distill):
        raise TypeError(f"{type(step).__name__} is not Distill")
    if context.original is None:
        raise ValueError("there is no uploaded model to learn from")
    losses, teacher = step.losses, context.original
    taught = losses.soft_labels is not None or losses.features is not None
    samples = training_samples(step, context, taught=taught)
    compressed = compressed.to("cpu")  # the training takes copies to the device
    teacher.to("cpu")
    student = _student(compressed, step, context, teacher)
    check_trainable(student.network, step.layers)
    found = [] if losses.features is None else _pairs(losses.features, teacher, student.network)
    if found:
        teacher = replace(teacher, module=tapped(teacher.module, [pair.teacher.node for pair in found]))
    lesson = Lesson(
        step, context, student.network, teacher, samples, taught,
        weights=_weights(losses), pruned=student.pruned, statistics=1.0, fast=True,
    )  # fmt: skip

    def make(points: Mapping[str, int] | None) -> Whole:
        pupil = whole(student.network, step.layers)
        nodes = [pair.student.node for pair in found]
        return replace(pupil, module=tapped(pupil.module, nodes, projections(found, context.seed))) if found else pupil

    pupil, curves = teach(lesson, make)
    if step.student is not None:  # what earlier steps say of layers and of candidates is about another network
        compressed = replace(compressed, layers=[], pareto=[])
    notes = [*compressed.notes, *student.notes, *_told(found)]
    return replace(compressed.with_curves(curves), network=graduated(pupil), pruned=student.pruned, notes=notes)


def _weights(losses: Losses) -> Weights:
    soft, features, task = losses.soft_labels, losses.features, losses.task
    return Weights(
        soft=0.0 if soft is None else soft.weight,
        task=0.0 if task is None else task.weight,
        features=0.0 if features is None else features.weight,
        temperature=Weights.temperature if soft is None else soft.temperature,
    )


def _student(compressed: Compressed, step: Distill, context: Context, teacher: Network) -> _Student:
    student = step.student
    if student is None:
        return _Student(compressed.network, compressed.pruned)
    if student.model_id is not None:
        return _Student(_in_place_of(teacher, context.models[student.model_id](), student.model_id))
    made, notes = smaller(teacher, width=student.width or 1.0, depth=student.depth or 1.0)
    return _Student(made, notes=tuple(notes))


def _in_place_of(teacher: Network, student: Network, model_id: str) -> Network:
    """The student with its inputs in the teacher's order and its outputs under the teacher's names."""
    reason = next(differences(teacher, student), None)
    if reason is not None:
        raise Unsupported("model_mismatch", f"{model_id} cannot take the place of the job's model: {reason}")
    for name, one, other in zip(
        (spec.name for spec in teacher.outputs),
        gives_probabilities(teacher.module),
        gives_probabilities(student.module),
        strict=True,
    ):
        if one != other:
            kinds = ("a softmax", "none") if one else ("none", "a softmax")
            raise Unsupported(
                "model_mismatch",
                f"{model_id} cannot take the place of the job's model: output {name!r} is {kinds[0]} there, and "
                f"{kinds[1]} in the student; export both with the softmax, or both without",
            )
    module = copy.deepcopy(student.module)
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    by_name = dict(zip((spec.name for spec in student.inputs), placeholders, strict=True))
    first = next(iter(module.graph.nodes))
    for spec in teacher.inputs:
        if by_name[spec.name] is first:
            first = first.next
        else:
            first.prepend(by_name[spec.name])
    module.recompile()
    specs = {spec.name: spec for spec in student.inputs}
    return replace(
        student,
        module=module,
        inputs=tuple(specs[spec.name] for spec in teacher.inputs),
        outputs=tuple(
            replace(one, name=other.name) for one, other in zip(student.outputs, teacher.outputs, strict=True)
        ),
        tokenizer=teacher.tokenizer,
        source=None,
    )


def _pairs(features: FeatureLoss, teacher: Network, student: Network) -> list[Pair]:
    known = taps(teacher)
    wanted = None if features.layers == "auto" else features.layers
    if wanted is not None:
        check_known([tap.path for tap in known], wanted)
    found = pairs(known, taps(student), wanted)
    if not found:
        raise Unsupported(
            "no_features",
            "no layer of the student computes at the same positions as one of the teacher's; leave features out, or "
            "name layers of the teacher that have a counterpart",
        )
    return found


def _told(found: list[Pair]) -> list[str]:
    if not found:
        return []
    told = (
        pair.teacher.path if pair.teacher.path == pair.student.path else f"{pair.teacher.path} by {pair.student.path}"
        for pair in found
    )
    return [f"features were learned of {', '.join(told)}"]
