"""``quantize.mixed``: each layer's weights get as many bits as its rounding needs, in a budget (see `sensitivity`).

Costs are measured on weights rounded to nearest; the chosen widths are then rounded as `algorithm` says, all layers
together, as ``quantize.weights`` does it. Embeddings, recurrent layers and 3-D convolutions get the largest choice.
"""

import math
from dataclasses import replace
from typing import Final

from app.recipes import Step
from app.recipes.methods import QuantizeMixed
from worker.engine.errors import Unsupported
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.methods.layers import calibration_samples, check_quantizable
from worker.engine.methods.quantize_weights import Rounding, held, rounded
from worker.engine.methods.stored import layers_in, store, stored_places, tables_in
from worker.engine.network import Network
from worker.engine.progress import Part, Within
from worker.engine.quantized.form import Weight
from worker.engine.quantized.groups import GroupForm, nearest
from worker.engine.quantized.sensitivity import Table, allotted, costs
from worker.engine.state import Compressed, Context

#: Share of the progress that measuring takes.
_MEASURING: Final = 0.4


def quantize_mixed(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Choose bits for every layer, and store its weights in them.

    Raises:
        Unsupported: ``unknown_layer``, ``no_layers``, ``dtype_unsupported``; ``budget_too_small`` where the smallest
            choice of every layer is more than `max_size_ratio` allows.
        InvalidDataset: ``calibration_required``; ``not_finite`` where a sample leads to NaN or infinity.
    """
    if not isinstance(step, QuantizeMixed):
        raise TypeError(f"{type(step).__name__} is not QuantizeMixed")
    samples = calibration_samples(context, step.samples, step.method)
    network = fold_batch_norm(compressed.network)
    check_quantizable(network, step.layers)
    places = stored_places(network, step.layers, context)
    forms: dict[int, GroupForm] = {
        bits: GroupForm(bits, step.group_size, step.symmetric) for bits in sorted(step.choices, reverse=True)
    }
    candidates: dict[str, dict[int, Weight]] = {
        path: {bits: nearest(network, path, form) for bits, form in forms.items()} for path in layers_in(places)
    }
    widest = forms[max(forms)]
    tables = {key: nearest(network, key, widest) for key in tables_in(places)}
    measuring = Part(context.reporter, "compressing", 0.0, _MEASURING)
    found = costs(network, samples, candidates, context.device, measuring)
    bits = _bits(step, network, candidates, tables, found)
    part = Part(context.reporter, "compressing", _MEASURING, 1.0)
    rest = replace(context, reporter=Within(context.reporter, part))
    chosen_forms = {path: forms[width] for path, width in bits.items()}
    weights = rounded(step.algorithm, Rounding(network, chosen_forms, held(compressed, tables), samples, rest))
    average = sum(weights[path].values.numel() * width for path, width in bits.items()) / sum(
        weight.values.numel() for weight in weights.values()
    )
    notes = [f"{average:.2f} bits on average: " + _counted(bits)]
    done = store(compressed, network, places, {**weights, **tables}, context, notes)
    return replace(done, sensitivity=[*compressed.sensitivity, *_rows(found, bits)])


def _bits(
    step: QuantizeMixed,
    network: Network,
    candidates: dict[str, dict[int, Weight]],
    tables: dict[str, Weight],
    found: Table,
) -> dict[str, int]:
    """Path -> bits, in the step's budget."""
    one_of_each = [next(iter(weights.values())) for weights in candidates.values()]
    if step.max_size_ratio is None:
        average = step.average_bits or (min(step.choices) + max(step.choices)) / 2
        budget = average * sum(weight.values.numel() for weight in one_of_each)
    else:
        everything = 32.0 * sum(value.numel() for value in network.module.state_dict().values())
        rest = everything - 32.0 * sum(weight.values.numel() for weight in (*one_of_each, *tables.values()))
        budget = step.max_size_ratio * everything - rest - sum(weight.stored_bits for weight in tables.values())
    counted = step.max_size_ratio is not None  # scales and zero points too
    sizes = {
        path: {
            bits: float(weight.stored_bits if counted else weight.values.numel() * bits)
            for bits, weight in weights.items()
        }
        for path, weights in candidates.items()
    }
    try:
        if budget <= 0:
            raise ValueError("what is not quantized is larger than that")
        return allotted(found, sizes, budget)
    except ValueError as error:
        raise Unsupported(
            "budget_too_small",
            f"max_size_ratio {step.max_size_ratio:g} cannot be reached with choices {sorted(step.choices)}: {error}; "
            "raise it, or add smaller choices"
            if step.max_size_ratio is not None
            else str(error),
        ) from error


def _counted(bits: dict[str, int]) -> str:
    widths = sorted(set(bits.values()), reverse=True)
    return ", ".join(f"{sum(width == one for width in bits.values())} layers in {one}" for one in widths)


def _rows(found: Table, bits: dict[str, int]) -> list[dict[str, object]]:
    """``metrics.sensitivity``: the most sensitive layers first."""
    rows = [
        {
            "name": path,
            "bits": bits[path],
            "output_sqnr_db": {str(width): _db(cost) for width, cost in by_bits.items()},
        }
        for path, by_bits in found.items()
    ]
    return sorted(rows, key=lambda row: min(row["output_sqnr_db"].values()))  # type: ignore[attr-defined]


def _db(cost: float) -> float:
    return round(min(200.0, -10 * math.log10(max(cost, 1e-20))), 2)
