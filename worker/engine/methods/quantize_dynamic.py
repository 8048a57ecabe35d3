"""``quantize.dynamic``: int8 weights; linear layers quantize their input while running, over its own range.

For an input x: ``scale = (max(x, 0) - min(x, 0)) / 255``, ``zero_point = round(-min(x, 0) / scale)`` (ONNX
DynamicQuantizeLinear), so no data is needed. Convolutions store int8 weights and compute in float: the runtimes'
dynamic convolutions (ONNX ConvInteger) were measured at 2 to 14 times the time of the float kernel.
"""

from dataclasses import replace

from torch import nn

from app.recipes import Grid, Step
from app.recipes.methods import QuantizeDynamic
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.methods.layers import check_quantizable, layer_rows, left_notes
from worker.engine.network import Network
from worker.engine.quantized.form import Quantization
from worker.engine.quantized.placement import LAYERS, Placement, layer_calls, place
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
    placement = place(network, step.layers)
    stored = _quantize(network, placement, step)
    quantized = {name: _for_grid(stored, grid) for name, grid in context.grids.items()}
    convolutions = any(not isinstance(network.module.get_submodule(path), nn.Linear) for path in stored.weights)
    context.progress(1.0)
    return replace(
        compressed,
        quantized={**compressed.quantized, **quantized},
        layers=layer_rows(stored),
        notes=[*compressed.notes, *left_notes(placement.left), *([_CONVOLUTIONS_NOTE] if convolutions else [])],
    )


def _quantize(network: Network, placement: Placement, step: QuantizeDynamic) -> Quantization:
    layers = {str(node.target): layer for node, layer in layer_calls(network.module) if node.name in placement.integer}
    weights = {
        path: quantize_weight(layer.weight, layer.bias, bits=step.weight_bits, granularity=step.granularity)
        for path, layer in layers.items()
        if isinstance(layer, LAYERS)
    }
    linear = [node.name for node, layer in layer_calls(network.module) if isinstance(layer, nn.Linear)]
    return Quantization(network, "dynamic", weights, integer=placement.integer & frozenset(linear))


def _for_grid(stored: Quantization, grid: Grid) -> Quantization:
    """A runtime that does not quantize while running gets integer weights alone."""
    return stored if grid.dynamic_activations else replace(stored, integer=frozenset())
