"""Static quantization of a network: from what one pass over the samples saw to a `Quantization`.

A calibrator turns each histogram into a range, weights get scales of least squared error, and the mean shift that
rounding the weights causes is taken back through the biases: ``b' = b - mean(conv(E[x], W' - W))``, which is exact for
means because a layer is linear (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.2).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from app.recipes import Grid
from app.recipes.methods import IntegerStep
from worker.engine.network import Network
from worker.engine.quantized.affine import Affine, affine
from worker.engine.quantized.calibrators import CALIBRATORS, Calibration
from worker.engine.quantized.form import Quantization, Weight, original
from worker.engine.quantized.observe import Statistics
from worker.engine.quantized.placement import LAYERS, Layer, Placement, layer_calls, place, source_of
from worker.engine.quantized.weights import Granularity, quantize_weight


@dataclass(frozen=True)
class Setting:
    """What of a grid decides a quantization: targets with equal settings share one.

    Attributes:
        signed / symmetric: of the activations' integers.
        avoid_saturation: keep neighbouring weights small (see `quantize_weight`).
        operators: what computes on integers beside layers.
        stored: layers of which few bits are stored alone.
        integer_results: whether layers return what they compute as integers (`Grid.integer_results`).
    """

    signed: bool
    symmetric: bool
    avoid_saturation: bool
    operators: frozenset[str]
    stored: frozenset[str]
    integer_results: bool = False

    @property
    def numbers(self) -> tuple[bool, bool, bool]:
        """What decides the numbers of one placement."""
        return self.signed, self.symmetric, self.avoid_saturation


def setting_of(step: IntegerStep, grid: Grid, saturating: bool) -> Setting:
    """The setting for a target.

    Args:
        saturating: whether this processor's kernels add pairs of products in 16 bits.
    """
    wanted, careful = step.symmetric_activations, step.avoid_saturation
    return Setting(
        signed=grid.activation_dtype == "int8",
        symmetric=grid.symmetric_activations if wanted is None else wanted,
        avoid_saturation=(grid.saturates and saturating) if careful is None else careful,
        operators=frozenset(grid.operators),
        stored=frozenset(grid.stored_beside_integers),
        integer_results=grid.integer_results,
    )


def placements(network: Network, step: IntegerStep, settings: Iterable[Setting]) -> dict[Setting, Placement]:
    """Where each setting uses integers."""
    return {
        setting: place(network, step.layers, setting.operators, setting.stored, integer_results=setting.integer_results)
        for setting in settings
    }


def watched(
    network: Network, step: IntegerStep, chosen: Collection[Placement]
) -> tuple[frozenset[str], dict[str, bool]]:
    """The FX nodes to keep histograms of, and those to keep means of (see `observe`)."""
    own = {name for placement in chosen for name, source in placement.values.items() if name == source}
    means: dict[str, bool] = {}
    for node, layer in layer_calls(network.module):
        integer = any(node.name in placement.integer for placement in chosen)
        if step.bias_correction and integer and isinstance(layer, LAYERS) and layer.bias is not None:
            source = source_of(node).name
            means[source] = means.get(source, True) and isinstance(layer, nn.Linear)
    return frozenset(own), means


def static_form(
    network: Network, placement: Placement, statistics: Statistics, step: IntegerStep, setting: Setting
) -> Quantization:
    """The quantization that the statistics call for, weights rounded to nearest."""
    grids = _grids(placement, statistics, step, setting)
    # A symmetric signed grid reaches below zero, so it cannot stand in for a ReLU: that one stays in the graph.
    absorbed = {node: tail for node, tail in placement.absorbed.items() if grids[placement.values[tail]].range[0] >= 0}
    return Quantization(
        network=network,
        weights={
            **_weights(network, placement, statistics.means, grids, step, setting),
            **stored_weights(network, placement.stored, bits=step.weight_bits, granularity=step.granularity),
        },
        activations={name: grids[source] for name, source in placement.values.items()},
        integer=placement.integer,
        absorbed=absorbed,
    )


def stored_weights(network: Network, keys: Iterable[str], *, bits: int, granularity: Granularity) -> dict[str, Weight]:
    """Weights of the layers that compute in float: embeddings, recurrent and 3-D layers; their biases stay as they
    are."""
    weights = {}
    for key in keys:
        layer = network.module.get_submodule(key) if not _is_parameter(network, key) else None
        bias = getattr(layer, "bias", None)
        weights[key] = quantize_weight(original(network.module, key), bias, bits=bits, granularity=granularity)
    return weights


def _is_parameter(network: Network, key: str) -> bool:
    return isinstance(network.module.get_submodule(key.rpartition(".")[0]), nn.RNNBase)


def _grids(placement: Placement, statistics: Statistics, step: IntegerStep, setting: Setting) -> dict[str, Affine]:
    calibration = Calibration(2**step.activation_bits, setting.symmetric, step.percentile)
    grids: dict[str, Affine] = {}
    for name, source in placement.values.items():
        if name == source:
            low, high = CALIBRATORS[step.calibration](statistics.histograms[name], calibration)
            grids[name] = affine(
                low, high, bits=step.activation_bits, signed=setting.signed, symmetric=setting.symmetric
            )
    return grids


def _weights(
    network: Network,
    placement: Placement,
    means: Mapping[str, Tensor],
    grids: Mapping[str, Affine],
    step: IntegerStep,
    setting: Setting,
) -> dict[str, Weight]:
    weights: dict[str, Weight] = {}
    for node, layer in layer_calls(network.module):
        path = str(node.target)
        if not isinstance(layer, LAYERS) or node.name not in placement.integer or path in weights:
            continue
        source = source_of(node).name
        weight = quantize_weight(
            layer.weight,
            layer.bias,
            bits=step.weight_bits,
            granularity=step.granularity,
            input_scale=grids[placement.values[source]].scale,
            avoid_saturation=setting.avoid_saturation,
        )
        weights[path] = corrected(node, layer, weight, means.get(source))
    return weights


@torch.no_grad()
def corrected(node: fx.Node, layer: Layer, weight: Weight, mean: Tensor | None) -> Weight:
    """`weight` with its bias moved by the mean shift that rounding causes.

    Args:
        mean: the layer's mean input, (1, ...); None leaves the bias alone.
    """
    if mean is None or weight.bias is None:
        return weight
    # The layer applied to the mean input with the rounding error as its weight: the shift of the mean output.
    error = weight.dequantized().sub_(layer.weight.detach().float())
    mean = mean.to(error.device)
    if isinstance(layer, nn.Linear):
        shift = nn.functional.linear(mean, error).reshape(-1, error.shape[0]).mean(0)
    else:
        shift = layer._conv_forward(mean, error, None)
        shift = shift.mean(dim=[0, *range(2, shift.dim())])
    return replace(weight, bias=weight.bias - shift)
