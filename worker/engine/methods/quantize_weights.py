"""``quantize.weights``: weights of 8 to 2 bits in groups with a scale each; activations and arithmetic stay in float.

Where most of the time goes into reading weights, as in language models at small batches, this makes a model faster as
well as smaller. Linear layers and convolutions are rounded as the step's `algorithm` says; embeddings, recurrent layers
and 3-D convolutions to the nearest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from app.recipes import Step
from app.recipes.methods import QuantizeWeights
from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.methods.layers import check_quantizable
from worker.engine.methods.quantize_static import chosen
from worker.engine.methods.stored import layers_in, store, stored_places
from worker.engine.network import Network
from worker.engine.quantized.awq import activation_aware, input_power
from worker.engine.quantized.form import Weight, original, stored_in
from worker.engine.quantized.gptq import gptq
from worker.engine.quantized.groups import GroupForm, grids_of, grouped, weight_on
from worker.engine.quantized.hqq import half_quadratic
from worker.engine.state import Compressed, Context

_NOTE: Final = "layers compute in float from weights of few bits: smaller; faster where a kernel reads them packed"


@dataclass(frozen=True)
class _Task:
    """What is to be rounded: the layers at `paths`, in graph order."""

    network: Network
    paths: list[str]
    form: GroupForm
    samples: Samples | None
    context: Context


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
    found = _ALGORITHMS[step.algorithm](_Task(network, layers_in(places), form, samples, context))
    return store(
        compressed, network, places, lambda key: found.get(key) or _nearest(network, key, form), context, notes
    )


def _nearest(network: Network, key: str, form: GroupForm) -> Weight:
    """The weight that a key of `Quantization.weights` stands for, on grids of least squared error."""
    layer, name = stored_in(network.module, key)
    rows = grouped(original(network.module, key), form)
    grids = grids_of(rows, form)
    return weight_on(layer, name, grids, grids.nearest(rows))


def _rtn(task: _Task) -> dict[str, Weight]:
    found = {}
    for index, path in enumerate(task.paths):
        found[path] = _nearest(task.network, path, task.form)
        task.context.progress((index + 1) / len(task.paths))
    return found


def _hqq(task: _Task) -> dict[str, Weight]:
    found = {}
    for index, path in enumerate(task.paths):
        rows = grouped(original(task.network.module, path), task.form)
        grids = half_quadratic(rows, task.form)
        found[path] = weight_on(task.network.module.get_submodule(path), "weight", grids, grids.nearest(rows))
        task.context.progress((index + 1) / len(task.paths))
    return found


def _awq(task: _Task) -> dict[str, Weight]:
    """On grids whose errors are weighted by the power of the inputs; scales were moved before."""
    if task.samples is None:
        return _rtn(task)
    power = input_power(task.network, task.samples, task.paths, task.context.device)
    found = {}
    for path in task.paths:
        rows = grouped(original(task.network.module, path), task.form)
        grids = grids_of(rows, task.form, importance=power[path].expand(len(rows), -1).reshape(rows.shape))
        found[path] = weight_on(task.network.module.get_submodule(path), "weight", grids, grids.nearest(rows))
    task.context.progress(1.0)
    return found


def _gptq(task: _Task) -> dict[str, Weight]:
    if task.samples is None:
        return _rtn(task)
    context = task.context
    return gptq(
        task.network, task.samples, task.paths, task.form,
        device=context.device, seed=context.seed, progress=context.progress,
    )  # fmt: skip


_ALGORITHMS: Final[Mapping[str, Callable[[_Task], dict[str, Weight]]]] = {
    "rtn": _rtn,
    "gptq": _gptq,
    "awq": _awq,
    "hqq": _hqq,
}
