"""``quantize.static``: integer weights and activations on grids found once, on calibration samples.

Batch norms are folded, scales move between layers where that was asked (`equalize`, `smooth`), `placement` decides
where integers are used, one pass over the samples collects a histogram per value, `static` makes the numbers of them,
and `adaround` rounds weights again where ``rounding: adaptive`` was asked. One quantization for each different grid.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from app.recipes import Step
from app.recipes.methods import IntegerStep, QuantizeStatic
from worker.engine.data.samples import Samples
from worker.engine.errors import Unsupported
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.methods.layers import (
    calibration_samples,
    check_quantizable,
    layer_rows,
    merged,
    saturation_note,
    with_left,
)
from worker.engine.network import Network
from worker.engine.progress import Part, Within
from worker.engine.quantized.adaround import adaround
from worker.engine.quantized.equalize import equalize
from worker.engine.quantized.form import Quantization
from worker.engine.quantized.observe import observe
from worker.engine.quantized.placement import Placement
from worker.engine.quantized.smooth import smooth
from worker.engine.quantized.static import Setting, placements, setting_of, static_form, watched
from worker.engine.state import Compressed, Context

#: Share of the step's time that calibration takes where rounding follows.
_CALIBRATION: Final = 0.05


def quantize_static(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Quantize for every grid that the job asks for.

    Raises:
        Unsupported: ``unknown_layer`` where a glob matches nothing.
        InvalidDataset: ``calibration_required``; ``not_finite`` where a sample leads to NaN or infinity.
    """
    if not isinstance(step, QuantizeStatic):
        raise TypeError(f"{type(step).__name__} is not QuantizeStatic")
    samples = calibration_samples(context, step.samples, step.method)
    compressed, network = prepared(compressed, step, samples, context)
    settings = {target: setting_of(step, grid, context.saturating) for target, grid in context.grids.items()}
    places = placements(network, step, settings.values())
    forms = rounded(step, calibrate(network, step, places, samples, _begun(step, context)), samples, context)
    quantized = {
        target: forms[setting].beside(compressed.quantized.get(target)) for target, setting in settings.items()
    }
    where = {target: places[setting] for target, setting in settings.items()}
    careful = [target for target, setting in settings.items() if setting.avoid_saturation and step.weight_bits == 8]
    return replace(
        compressed,
        quantized={**compressed.quantized, **quantized},
        layers=merged(compressed.layers, layer_rows(next(iter(quantized.values())), samples, context), network),
        notes=[*with_left(compressed.notes, where, quantized), *saturation_note(careful)],
    )


def prepared(
    compressed: Compressed, step: IntegerStep, samples: Samples, context: Context
) -> tuple[Compressed, Network]:
    """The state to go on from, and the network to calibrate: batch norms folded, scales moved as the step asks.

    Raises:
        Unsupported: as `check_quantizable`; ``invalid_order`` where scales would move under an earlier quantization.
    """
    folded = fold_batch_norm(compressed.network)
    check_quantizable(folded, step.layers)
    if (step.equalize or step.smooth) and compressed.quantized:
        raise Unsupported("invalid_order", "equalize and smooth change weights: they go into the first quantize step")
    network, notes = folded, compressed.notes
    if step.equalize:
        network, told = equalize(network, step.layers)
        notes = [*notes, *told]
    if step.smooth:
        network, told = smooth(network, step.smooth, samples, step.layers, context.device)
        notes = [*notes, *told]
    kept = compressed.network if network is folded else network
    return replace(compressed, network=kept, notes=notes), network


def calibrate(
    network: Network, step: IntegerStep, places: Mapping[Setting, Placement], samples: Samples, context: Context
) -> dict[Setting, Quantization]:
    """The static quantization for each setting, after one pass over the samples; equal ones are one object."""
    values, means = watched(network, step, list(places.values()))
    statistics = observe(network, samples, values, means, device=context.device, progress=context.progress)
    forms: dict[Setting, Quantization] = {}
    for setting, place in places.items():
        twins = [form for other, form in forms.items() if (other.numbers, places[other]) == (setting.numbers, place)]
        forms[setting] = twins[0] if twins else static_form(network, place, statistics, step, setting)
    return forms


def rounded(
    step: QuantizeStatic, forms: Mapping[Setting, Quantization], samples: Samples, context: Context
) -> Mapping[Setting, Quantization]:
    """The quantizations with their weights rounded as the step asks for."""
    if step.rounding == "nearest":
        return forms
    unique = list({id(form): form for form in forms.values()}.values())
    whole = Part(context.reporter, "compressing", _CALIBRATION, 1.0)
    found = {
        id(form): adaround(
            form,
            samples,
            device=context.device,
            seed=context.seed,
            bias_correction=step.bias_correction,
            progress=whole.slice(index, len(unique)),
        )
        for index, form in enumerate(unique)
    }
    return {setting: found[id(form)] for setting, form in forms.items()}


def _begun(step: QuantizeStatic, context: Context) -> Context:
    """The context of calibration: the step's progress ends where rounding begins."""
    if step.rounding == "nearest":
        return context
    part = Part(context.reporter, "compressing", 0.0, _CALIBRATION)
    return replace(context, reporter=Within(context.reporter, part))
