"""``quantize.static``: int8 weights and activations on grids found once, on calibration samples.

Batch norms are folded, `placement` decides where integers are used, one pass over the samples collects a histogram
per value, a calibrator turns each into a range, weights get scales of least squared error, and the mean shift that
rounding the weights causes is taken back through the biases: ``b' = b - mean(conv(E[x], W' - W))``, which is exact for
means because a layer is linear (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.2).
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, fx, nn

from app.recipes import Grid, Step
from app.recipes.methods import QuantizeStatic
from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.methods.layers import check_quantizable, layer_rows, left_notes
from worker.engine.network import Network
from worker.engine.quantized.affine import Affine, affine
from worker.engine.quantized.calibrators import CALIBRATORS, Calibration
from worker.engine.quantized.form import Quantization, Weight
from worker.engine.quantized.observe import Statistics, observe
from worker.engine.quantized.placement import LAYERS, Layer, Placement, layer_calls, place, source_of
from worker.engine.quantized.weights import quantize_weight
from worker.engine.state import Compressed, Context


def quantize_static(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Quantize for every grid that the job asks for.

    Raises:
        Unsupported: ``unknown_layer`` where a glob matches nothing.
        InvalidDataset: ``calibration_required``; ``not_finite`` where a sample leads to NaN or infinity.
    """
    if not isinstance(step, QuantizeStatic):
        raise TypeError(f"{type(step).__name__} is not QuantizeStatic")
    if context.calibration is None:
        raise InvalidDataset("calibration_required", "quantize.static needs calibration samples")
    network = fold_batch_norm(compressed.network)
    check_quantizable(network, step.layers)
    placement = place(network, step.layers)
    statistics = _observe(network, placement, step, context, context.calibration)
    made: dict[tuple[str, bool], Quantization] = {}
    quantized = {}
    for name, grid in context.grids.items():
        symmetric = grid.symmetric_activations if step.symmetric_activations is None else step.symmetric_activations
        key = (grid.activation_dtype, symmetric)
        if key not in made:
            made[key] = _quantize(network, placement, statistics, step, grid, symmetric)
        quantized[name] = made[key]
    first = next(iter(made.values()))
    return replace(
        compressed,
        quantized={**compressed.quantized, **quantized},
        layers=layer_rows(first),
        notes=[*compressed.notes, *left_notes(placement.left)],
    )


def _observe(
    network: Network, placement: Placement, step: QuantizeStatic, context: Context, samples: Samples
) -> Statistics:
    if len(samples) > step.samples:
        chosen = np.sort(np.random.default_rng(context.seed).permutation(len(samples))[: step.samples])
        samples = samples.take(chosen.astype(np.intp))
    means = {
        source_of(node).name
        for node, layer in layer_calls(network.module)
        if step.bias_correction
        and node.name in placement.integer
        and isinstance(layer, LAYERS)
        and layer.bias is not None
    }
    own = {name for name, source in placement.values.items() if name == source}
    return observe(network, samples, own, means, device=context.device, progress=context.progress)


def _quantize(
    network: Network,
    placement: Placement,
    statistics: Statistics,
    step: QuantizeStatic,
    grid: Grid,
    symmetric: bool,
) -> Quantization:
    calibration = Calibration(2**step.activation_bits, symmetric, step.percentile)
    grids: dict[str, Affine] = {}
    for name, histogram in statistics.histograms.items():
        low, high = CALIBRATORS[step.calibration](histogram, calibration)
        signed = grid.activation_dtype == "int8"
        grids[name] = affine(low, high, bits=step.activation_bits, signed=signed, symmetric=symmetric)
    # A symmetric signed grid reaches below zero, so it cannot stand in for a ReLU: that one stays in the graph.
    absorbed = {node: tail for node, tail in placement.absorbed.items() if grids[placement.values[tail]].range[0] >= 0}
    return Quantization(
        network=network,
        scheme="static",
        weights=_weights(network, placement, statistics.means, grids, step),
        activations={name: grids[source] for name, source in placement.values.items()},
        integer=placement.integer,
        absorbed=absorbed,
    )


def _weights(
    network: Network,
    placement: Placement,
    means: Mapping[str, Tensor],
    grids: Mapping[str, Affine],
    step: QuantizeStatic,
) -> dict[str, Weight]:
    weights: dict[str, Weight] = {}
    for node, layer in layer_calls(network.module):
        path = str(node.target)
        if not isinstance(layer, LAYERS) or node.name not in placement.integer or path in weights:
            continue
        source = source_of(node).name
        scale = grids[placement.values[source]].scale
        weight = quantize_weight(
            layer.weight, layer.bias, bits=step.weight_bits, granularity=step.granularity, input_scale=scale
        )
        weights[path] = _corrected(node, layer, weight, means.get(source))
    return weights


@torch.no_grad()
def _corrected(node: fx.Node, layer: Layer, weight: Weight, mean: Tensor | None) -> Weight:
    """`weight` with its bias moved by the mean shift that rounding causes.

    Args:
        mean: the layer's mean input, (1, ...); None leaves the bias alone.
    """
    if mean is None or weight.bias is None:
        return weight
    # The layer applied to the mean input with the rounding error as its weight: the shift of the mean output.
    error = weight.dequantized() - layer.weight.detach().float()
    mean = mean.to(error.device)
    if isinstance(layer, nn.Linear):
        shift = nn.functional.linear(mean, error).reshape(-1, error.shape[0]).mean(0)
    else:
        shift = layer._conv_forward(mean, error, None)
        shift = shift.mean(dim=[0, *range(2, shift.dim())])
    return replace(weight, bias=weight.bias - shift)
