"""``quantize.ternary`` and ``quantize.binary``: weights of three and of two values (see `quantized.signs`).

Rounded as they are, or trained straight-through: then a float weight is kept during the training, and batch norms
compute on what its projection gives.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import torch

from app.recipes import Step
from app.recipes.methods import QuantizeBinary, QuantizeTernary, SignStep
from worker.engine.errors import Unsupported
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.methods.layers import check_quantizable
from worker.engine.methods.lesson import Lesson, training_samples
from worker.engine.methods.stored import (
    LARGER,
    LOOKED_UP,
    NOTHING,
    layers_in,
    narrowed_to,
    store,
    stored_places,
    train_and_store,
)
from worker.engine.network import Network
from worker.engine.quantized.codebook import Finder, StraightLayer, by_numbers
from worker.engine.quantized.form import Weight, bias_beside, original
from worker.engine.quantized.placement import LAYERS, layer_calls
from worker.engine.quantized.signs import binary, ternary
from worker.engine.state import Compressed, Context

_KEPT: Final = "the first and the last layer are kept (first_last)"
#: Step -> width, and what finds the values.
_VALUES: Final[Mapping[type[SignStep], tuple[int, Finder]]] = {
    QuantizeTernary: (2, ternary),
    QuantizeBinary: (1, binary),
}


def quantize_signs(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Two or three values for the weights of every convolution and linear layer; other layers stay in float.

    Raises:
        Unsupported: ``unknown_layer``, ``dtype_unsupported``, ``invalid_order``; ``no_layers`` where only the first
            and the last layer could be stored, and are kept; of a training also ``training_diverged``,
            ``task_unsupported``.
        InvalidDataset: of a training: ``training_required``, ``labels_required``, ``too_few_samples``.
    """
    if not isinstance(step, SignStep):
        raise TypeError(f"{type(step).__name__} has no signs")
    samples = training_samples(step, context, taught=step.teacher) if step.epochs else None
    if samples is not None:
        compressed = compressed.to("cpu")  # only the training itself is worth a GPU: it takes copies there
    folded = fold_batch_norm(compressed.network)
    check_quantizable(folded, step.layers)
    places = stored_places(folded, step.layers, context)
    kept = _ends(folded) if step.first_last == "keep" else ()
    paths = layers_in(places)
    if not paths:
        raise Unsupported("no_layers", NOTHING)
    bits, find = _VALUES[type(step)]
    project = partial(by_numbers, whole=step.scale == "layer", bits=bits, find=find)
    rounded = _rounded(folded, [path for path in paths if path not in kept], project)
    weights = {path: weight for path, weight in rounded.items() if weight.smaller}
    if not weights:
        raise Unsupported(
            "no_layers",
            "nothing becomes smaller beside the first and the last layer: first_last: quantize stores these",
        )
    left = {path: _KEPT if path in kept else LARGER for path in paths if path not in weights}
    places = narrowed_to(places, weights, left, "two or three values are for convolutions and linear layers")
    if samples is None:
        return store(compressed, folded, places, weights, context, [LOOKED_UP])
    # One scale for all channels does not commute with folding: there the folded network is what trains.
    network = folded if step.scale == "layer" else compressed.network
    lesson = Lesson(step, context, network, folded, samples, step.teacher)
    return train_and_store(compressed, lesson, places, lambda path, layer, norms: StraightLayer(layer, norms, project))


@torch.no_grad()
def _rounded(network: Network, paths: list[str], project: Callable[..., Weight]) -> dict[str, Weight]:
    module = network.module
    return {path: project(original(module, path), bias_beside(module.get_submodule(path), "weight")) for path in paths}


def _ends(network: Network) -> tuple[str, ...]:
    """The first and the last layer of the network."""
    paths = [str(node.target) for node, layer in layer_calls(network.module) if isinstance(layer, LAYERS)]
    return (paths[0], paths[-1]) if paths else ()
