"""``quantize.ternary`` and ``quantize.binary``: weights of three and of two values (see `quantized.signs`).

Rounded as they are, or trained straight-through: then a float weight is kept during the training, and batch norms
compute on what its projection gives.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import torch

from app.recipes import Step
from app.recipes.methods import QuantizeBinary, QuantizeTernary, SignStep
from worker.engine.errors import Unsupported
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.methods.layers import check_quantizable
from worker.engine.methods.lesson import Lesson, training_samples
from worker.engine.methods.stored import layers_in, narrowed_to, store, stored_places, train_weights
from worker.engine.network import Network
from worker.engine.quantized.codebook import Finder, StraightLayer, by_numbers
from worker.engine.quantized.form import Weight, bias_beside, original
from worker.engine.quantized.placement import LAYERS, layer_calls
from worker.engine.quantized.signs import binary, ternary
from worker.engine.state import Compressed, Context

_NOTE: Final = "weights are looked up in codebooks and layers compute in float: smaller, not faster"
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
    samples = training_samples(step, context) if step.epochs else None
    if samples is not None:
        compressed = compressed.to("cpu")  # only the training itself is worth a GPU: it takes copies there
    folded = fold_batch_norm(compressed.network)
    check_quantizable(folded, step.layers)
    places = stored_places(folded, step.layers, context)
    kept = _ends(folded) if step.first_last == "keep" else ()
    paths = tuple(path for path in layers_in(places) if path not in kept)
    if not paths:
        raise Unsupported(
            "no_layers", "no convolution or linear layer is left beside the first and the last: first_last: quantize"
        )
    left = dict.fromkeys(kept, "the first and the last layer are kept (first_last)")
    places = narrowed_to(places, paths, left, "two or three values are for convolutions and linear layers")
    bits, find = _VALUES[type(step)]
    project = partial(by_numbers, whole=step.scale == "layer", bits=bits, find=find)
    if samples is None:
        return store(compressed, folded, places, _rounded(folded, paths, project), context, [_NOTE])
    lesson = Lesson(step, context, compressed.network, folded, samples)
    compressed, network, weights = train_weights(
        compressed,
        lesson,
        paths,
        lambda path, layer, norms: StraightLayer(layer, norms, project, whole=step.scale == "layer"),
    )
    return store(compressed, network, places, weights, replace(context, device="cpu"), [_NOTE])


@torch.no_grad()
def _rounded(network: Network, paths: tuple[str, ...], project: Callable[..., Weight]) -> dict[str, Weight]:
    module = network.module
    return {path: project(original(module, path), bias_beside(module.get_submodule(path), "weight")) for path in paths}


def _ends(network: Network) -> tuple[str, ...]:
    """The first and the last layer of the network."""
    paths = [str(node.target) for node, layer in layer_calls(network.module) if isinstance(layer, LAYERS)]
    return (paths[0], paths[-1]) if paths else ()
