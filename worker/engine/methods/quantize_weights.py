"""``quantize.weights``: weights of 8 to 2 bits in groups with a scale each; activations and arithmetic stay in float.

Where most of the time goes into reading weights, as in language models at small batches, this makes a model faster as
well as smaller. Linear layers and convolutions are rounded as the step's `algorithm` says; embeddings, recurrent layers
and 3-D convolutions to the nearest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from torch import Tensor

from app.recipes import Step
from app.recipes.methods import QuantizeWeights
from worker.engine.data.samples import Samples, chosen
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.methods.layers import check_quantizable
from worker.engine.methods.stored import layers_in, store, stored_places, tables_in
from worker.engine.network import Network
from worker.engine.quantized.awq import activation_aware, input_power
from worker.engine.quantized.form import Weight
from worker.engine.quantized.gptq import gptq
from worker.engine.quantized.groups import Grids, GroupForm, grids_of, nearest
from worker.engine.quantized.hqq import half_quadratic
from worker.engine.state import Compressed, Context

_NOTE: Final = "layers compute in float from weights of few bits: smaller, not faster"


@dataclass(frozen=True)
class Rounding:
    """What is to be rounded.

    Attributes:
        forms: path of a layer -> how it is stored, in graph order.
        held: key -> weight that is stored already.
    """

    network: Network
    forms: dict[str, GroupForm]
    held: Mapping[str, Weight]
    samples: Samples | None
    context: Context

    def seen(self) -> Samples:
        """The samples that inputs are seen on. Raises InvalidDataset (``calibration_required``)."""
        if self.samples is None:
            raise InvalidDataset("calibration_required", "gptq and awq need calibration samples")
        return self.samples


def quantize_weights(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Store the weights of every layer in groups of few bits.

    Raises:
        Unsupported: ``unknown_layer``, ``no_layers``, ``dtype_unsupported``; ``invalid_order`` where awq would move
            scales under an earlier quantization.
        InvalidDataset: ``calibration_required``; ``not_finite`` where a sample leads to NaN or infinity.
    """
    if not isinstance(step, QuantizeWeights):
        raise TypeError(f"{type(step).__name__} is not QuantizeWeights")
    if context.calibration is None and "calibration" in step.needed:
        raise InvalidDataset("calibration_required", f"algorithm {step.algorithm} needs calibration samples")
    network = fold_batch_norm(compressed.network)
    check_quantizable(network, step.layers)
    samples = None if context.calibration is None else chosen(context.calibration, step.samples, context.seed)
    form = GroupForm(step.bits, step.group_size, step.symmetric)
    notes = [_NOTE]
    if step.algorithm == "awq" and samples is not None:
        if compressed.quantized:
            raise Unsupported("invalid_order", "awq changes weights: it goes into the first quantize step")
        moved, told = activation_aware(network, samples, step.layers, form, context.device)
        compressed = compressed if moved is network else replace(compressed, network=moved)
        network, notes = moved, [*notes, *told]
    places = stored_places(network, step.layers, context)
    tables = {key: nearest(network, key, form) for key in tables_in(places)}
    forms = dict.fromkeys(layers_in(places), form)
    weights = rounded(step.algorithm, Rounding(network, forms, held(compressed, tables), samples, context))
    return store(compressed, network, places, {**weights, **tables}, context, notes)


def held(compressed: Compressed, tables: Mapping[str, Weight]) -> dict[str, Weight]:
    """The weights that are stored before layers are rounded: by earlier steps, and `tables`."""
    earlier = next(iter(compressed.quantized.values()), None)
    return {**({} if earlier is None else earlier.weights), **tables}


def rounded(algorithm: str, task: Rounding) -> dict[str, Weight]:
    """Path -> weight, for every layer of the task."""
    return _ALGORITHMS[algorithm](task)


def _rtn(task: Rounding) -> dict[str, Weight]:
    return _each(task, lambda path: grids_of)


def _hqq(task: Rounding) -> dict[str, Weight]:
    return _each(task, lambda path: half_quadratic)


def _each(task: Rounding, fit: Callable[[str], Callable[[Tensor, GroupForm], Grids]]) -> dict[str, Weight]:
    """Every layer to the nearest, on the grids that `fit` of its path finds."""
    found: dict[str, Weight] = {}
    for path, form in task.forms.items():
        found[path] = nearest(task.network, path, form, fit(path))
        task.context.progress(len(found) / len(task.forms))
    return found


def _awq(task: Rounding) -> dict[str, Weight]:
    """On grids whose errors are weighted by the power of the inputs; scales were moved before."""
    power = input_power(task.network, task.seen(), list(task.forms), task.context.device)

    def fit(path: str) -> Callable[[Tensor, GroupForm], Grids]:
        return lambda rows, form: grids_of(rows, form, power[path].expand(len(rows), -1).reshape(rows.shape))

    return _each(task, fit)


def _gptq(task: Rounding) -> dict[str, Weight]:
    context = task.context
    return gptq(
        task.network, task.seen(), task.forms, held=task.held,
        device=context.device, seed=context.seed, progress=context.progress,
    )  # fmt: skip


_ALGORITHMS: Final[Mapping[str, Callable[[Rounding], dict[str, Weight]]]] = {
    "rtn": _rtn,
    "gptq": _gptq,
    "awq": _awq,
    "hqq": _hqq,
}
