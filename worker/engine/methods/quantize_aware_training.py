"""``quantize.aware_training``: static quantization whose weights are then trained under it.

`static` finds the grids on calibration samples, `student` puts learned quantizers (`learned`, LSQ) around the
network's own layers, and `training.loop` trains them: on the float model's answers, and on the labels where there are
any (`lesson`). Batch norms are folded at its end. One training serves every target: on the strictest of their settings.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch

from app.recipes import Step
from app.recipes.methods import QuantizeAwareTraining
from worker.engine.data.samples import Samples, chosen
from worker.engine.errors import Unsupported
from worker.engine.methods.layers import layer_rows, merged, saturation_note, with_left
from worker.engine.methods.lesson import Lesson, teach, training_samples
from worker.engine.methods.quantize_static import calibrate, prepared
from worker.engine.network import Network
from worker.engine.progress import Part, Within
from worker.engine.quantized.affine import Affine, integer_range
from worker.engine.quantized.form import Weight
from worker.engine.quantized.learned import LearnedLayer, WeightForm
from worker.engine.quantized.placement import Placement
from worker.engine.quantized.static import Setting, placements, setting_of, stored_weights
from worker.engine.quantized.student import Start, Student, graduate, make_student, narrowed
from worker.engine.state import Compressed, Context
from worker.engine.training.loop import NotResumable

#: Share of the progress that calibration takes.
_CALIBRATION: Final = 0.05


@dataclass(frozen=True)
class _Task:
    """What is to be done.

    Attributes:
        network: float, with its batch norms: what trains.
        folded: the same with them folded: what is calibrated, and what teaches.
        setting / placement: what is trained on, the strictest of all targets.
        samples: to calibrate on.
        held: weights that an earlier step has quantized.
    """

    step: QuantizeAwareTraining
    context: Context
    network: Network
    folded: Network
    setting: Setting
    placement: Placement
    samples: Samples
    held: Mapping[str, Weight]


def quantize_aware_training(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Train, and quantize for every grid that the job asks for.

    Raises:
        Unsupported: ``unknown_layer``, ``no_layers``, ``dtype_unsupported``, ``training_diverged``;
            ``task_unsupported`` where there is no teacher and the labels' task has no loss.
        InvalidDataset: ``training_required``, ``labels_required``, ``too_few_samples``, ``not_finite``.
    """
    if not isinstance(step, QuantizeAwareTraining):
        raise TypeError(f"{type(step).__name__} is not QuantizeAwareTraining")
    training = training_samples(step, context, taught=step.teacher)
    source = training if context.calibration is None else context.calibration
    samples = chosen(source, step.samples, context.seed)
    # Only the training itself is worth a GPU: it takes copies there.
    compressed, folded = prepared(compressed.to("cpu"), step, samples, replace(context, device="cpu"))
    # Scales move between layers after folding: where they did, the folded network is what trains.
    network = folded if step.equalize or step.smooth else compressed.network
    settings = {target: setting_of(step, grid, context.saturating) for target, grid in context.grids.items()}
    setting = strictest(settings.values())
    placement = placements(folded, step, [setting])[setting]
    if not placement.layers:
        raise Unsupported("no_layers", "no convolution or linear layer is left to train; quantize.static does the rest")
    again = {*placement.layers, *placement.stored}
    earlier = [form.weights for form in compressed.quantized.values()]
    held = {key: weight for weights in earlier for key, weight in weights.items() if key not in again}
    task = _Task(step, context, network, folded, setting, placement, samples, held)
    lesson = Lesson(
        step, context, network, folded, training, step.teacher, pruned=compressed.pruned, started=_CALIBRATION
    )
    student, curves = teach(lesson, lambda points: _student(task, points))
    trained, form = graduate(student)
    places = placements(folded, step, settings.values())
    forms = {each: narrowed(form, place, each.signed) for each, place in places.items()}
    quantized = {target: forms[each].beside(compressed.quantized.get(target)) for target, each in settings.items()}
    where = {target: places[each] for target, each in settings.items()}
    careful = [target for target in settings if setting.avoid_saturation and step.weight_bits == 8]
    return replace(
        compressed.with_curves(curves),
        network=trained,
        quantized={**compressed.quantized, **quantized},
        layers=merged(
            compressed.layers,
            layer_rows(next(iter(quantized.values())), samples, replace(context, device="cpu")),
            trained,
        ),
        notes=[*with_left(compressed.notes, where, quantized), *_notes(task), *saturation_note(careful)],
    )


def strictest(settings: Iterable[Setting]) -> Setting:
    """One setting whose numbers all others can hold.

    Symmetric where one asks for it; signed where a symmetric one is, because there half of the integers are lost
    behind a ReLU; other signed grids are unsigned ones, shifted.
    """
    every = list(settings)
    return Setting(
        signed=any(setting.signed and setting.symmetric for setting in every),
        symmetric=any(setting.symmetric for setting in every),
        avoid_saturation=any(setting.avoid_saturation for setting in every),
        operators=frozenset().union(*(setting.operators for setting in every)),
        stored=frozenset().union(*(setting.stored for setting in every)),
        integer_results=any(setting.integer_results for setting in every),
    )


def _student(task: _Task, zero_points: Mapping[str, int] | None) -> Student:
    """The student at its start; or, of a training that is to go on, one whose scales are still to be filled in."""
    if zero_points is None:
        return _calibrated(task)
    return make_student(task.network, task.placement, _start(task, _grids_again(task, zero_points)))


def _start(task: _Task, activations: Mapping[str, Affine]) -> Start:
    step = task.step
    stored = stored_weights(task.folded, task.placement.stored, bits=step.weight_bits, granularity=step.granularity)
    form = WeightForm(step.weight_bits, step.granularity, task.setting.avoid_saturation, step.learned_scale)
    return Start(
        activations,
        {**task.held, **stored},
        lambda path, layer, norms: LearnedLayer(layer, norms, form),
        learned=step.learned_scale,
    )


def _grids_again(task: _Task, zero_points: Mapping[str, int]) -> dict[str, Affine]:
    """Grids whose scales are still to be filled in."""
    low, high = integer_range(task.step.activation_bits, task.setting.signed)
    own = {name for name, source in task.placement.values.items() if name == source}
    if zero_points.keys() != own or not all(low <= point <= high for point in zero_points.values()):
        raise NotResumable("its zero points are those of another network")
    return {name: Affine(1.0, point, low, high) for name, point in zero_points.items()}


@torch.no_grad()
def _calibrated(task: _Task) -> Student:
    """The student as quantize.static would leave the network."""
    part = Part(task.context.reporter, "compressing", 0.0, _CALIBRATION)
    quiet = replace(task.context, reporter=Within(task.context.reporter, part), device="cpu")
    form = calibrate(task.folded, task.step, {task.setting: task.placement}, task.samples, quiet)[task.setting]
    own = {name: form.activations[name] for name, source in task.placement.values.items() if name == source}
    student = make_student(task.network, task.placement, _start(task, own))
    for path, learned in student.layers.items():
        bias, corrected = learned.layer.bias, form.weights[path].bias
        if not learned.norms and bias is not None and corrected is not None:
            bias.copy_(corrected)
    return student


def _notes(task: _Task) -> list[str]:
    if not task.placement.stored:
        return []
    return [
        f"{', '.join(task.placement.stored)}: stored in few bits as they were, the other layers trained around them"
    ]
