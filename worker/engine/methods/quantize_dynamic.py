"""``quantize.dynamic``: int8 weights; linear layers quantize their input while running, over its own range.

For an input x: ``scale = (max(x, 0) - min(x, 0)) / 255``, ``zero_point = round(-min(x, 0) / scale)`` (ONNX
DynamicQuantizeLinear), so no data is needed. Convolutions store int8 weights and compute in float: the runtimes'
dynamic convolutions (ONNX ConvInteger) were measured at 2 to 14 times the time of the float kernel. Embeddings and
recurrent layers are stored in int8 too.
"""

from dataclasses import replace

from torch import nn

from app.recipes import Grid, Step
from app.recipes.methods import QuantizeDynamic
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.methods.layers import check_quantizable, layer_rows, merged, saturation_note, with_left
from worker.engine.network import Network
from worker.engine.quantized.form import Quantization
from worker.engine.quantized.placement import LAYERS, Placement, layer_calls, place
from worker.engine.quantized.static import stored_weights
from worker.engine.quantized.weights import quantize_weight
from worker.engine.state import Compressed, Context

_CONVOLUTIONS_NOTE = "convolutions store int8 weights and compute in float: smaller, not faster; see quantize.static"


def quantize_dynamic(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Quantize for every grid that the job asks for.

    Raises:
        Unsupported: ``unknown_layer`` where a glob matches nothing, ``no_layers`` where nothing is left.
    """
    if not isinstance(step, QuantizeDynamic):
        raise TypeError(f"{type(step).__name__} is not QuantizeDynamic")
    network = fold_batch_norm(compressed.network)
    check_quantizable(network, step.layers)
    careful = {name: _careful(step, grid, context.saturating) for name, grid in context.grids.items()}
    keys = {name: (careful[name], grid.stored) for name, grid in context.grids.items()}
    places = {stored: place(network, step.layers, stored=stored) for _, stored in keys.values()}
    forms = {key: _quantize(network, places[key[1]], step, key[0]) for key in set(keys.values())}
    quantized = {
        name: _for_grid(forms[keys[name]], grid).beside(compressed.quantized.get(name))
        for name, grid in context.grids.items()
    }
    placement = next(iter(places.values()))
    where = {name: places[stored] for name, (_, stored) in keys.items()}
    context.progress(1.0)
    return replace(
        compressed,
        quantized={**compressed.quantized, **quantized},
        layers=merged(
            compressed.layers, layer_rows(next(iter(quantized.values())), context.calibration, context), network
        ),
        notes=[
            *with_left(compressed.notes, where, quantized),
            *([_CONVOLUTIONS_NOTE] if _convolutions(network, placement) else []),
            *saturation_note([name for name, flag in careful.items() if flag]),
        ],
    )


def _careful(step: QuantizeDynamic, grid: Grid, saturating: bool) -> bool:
    if step.avoid_saturation is not None:
        return step.avoid_saturation
    return grid.saturates and grid.dynamic_activations and saturating


def _convolutions(network: Network, placement: Placement) -> bool:
    return any(not isinstance(network.module.get_submodule(path), nn.Linear) for path in placement.layers)


def _quantize(network: Network, placement: Placement, step: QuantizeDynamic, avoid_saturation: bool) -> Quantization:
    layers = {str(node.target): layer for node, layer in layer_calls(network.module) if node.name in placement.integer}
    weights = {
        path: quantize_weight(
            layer.weight,
            layer.bias,
            bits=step.weight_bits,
            granularity=step.granularity,
            avoid_saturation=avoid_saturation,
        )
        for path, layer in layers.items()
        if isinstance(layer, LAYERS)
    }
    stored = stored_weights(network, placement.stored, bits=step.weight_bits, granularity=step.granularity)
    linear = [node.name for node, layer in layer_calls(network.module) if isinstance(layer, nn.Linear)]
    integer = placement.integer & frozenset(linear)
    return Quantization(network, {**weights, **stored}, integer=integer, dynamic=integer)


def _for_grid(form: Quantization, grid: Grid) -> Quantization:
    """A runtime that does not quantize while running gets integer weights alone."""
    return form if grid.dynamic_activations else replace(form, integer=frozenset(), dynamic=frozenset())
