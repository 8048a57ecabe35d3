"""``quantize.codebook``: weights as the numbers of centroids, which k-means finds (Han et al. 2015,
https://arxiv.org/abs/1510.00149, section 3; product quantization: Gong et al. 2014, https://arxiv.org/abs/1412.6115),
and which are then tuned where that is asked for.

A layer whose centroids and codes would take more than its float weights stays in float.
"""

import math
from typing import Final

import torch
from torch import Tensor

from app.recipes import Step
from app.recipes.methods import QuantizeCodebook
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
from worker.engine.quantized.codebook import TunedLayer, by_numbers
from worker.engine.quantized.form import Weight, bias_beside, original
from worker.engine.quantized.kmeans import codebooks, vector_codebook
from worker.engine.state import Compressed, Context

#: Share of the progress that k-means takes in front of a training.
_FOUND: Final = 0.1


def quantize_codebook(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Find a codebook for every convolution and linear layer; other layers stay in float.

    Raises:
        Unsupported: ``unknown_layer``, ``dtype_unsupported``, ``invalid_order``; ``no_layers`` where nothing would
            become smaller; of a training also ``training_diverged``, ``task_unsupported``.
        InvalidDataset: of a training: ``training_required``, ``labels_required``, ``too_few_samples``.
    """
    if not isinstance(step, QuantizeCodebook):
        raise TypeError(f"{type(step).__name__} is not QuantizeCodebook")
    samples = training_samples(step, context, taught=step.teacher) if step.finetune else None
    if samples is not None:
        compressed = compressed.to("cpu")  # only the training itself is worth a GPU: it takes copies there
    network = fold_batch_norm(compressed.network)
    check_quantizable(network, step.layers)
    places = stored_places(network, step.layers, context)
    paths, weights, left = layers_in(places), {}, {}
    for index, path in enumerate(paths):
        weight = clustered(network, path, step, context.seed)
        if weight.smaller:
            weights[path] = weight
        else:
            left[path] = LARGER
        context.progress((index + 1) / len(paths) * (1.0 if samples is None else _FOUND))
    if not paths:
        raise Unsupported("no_layers", NOTHING)
    if not weights:
        raise Unsupported("no_layers", "every codebook would be larger than the weights: take fewer bits, group layer")
    places = narrowed_to(places, weights, left, "codebooks are for convolutions and linear layers")
    if samples is None:
        return store(compressed, network, places, weights, context, [LOOKED_UP])
    # Batch norms are folded already: what is tuned are centroids of the weights that are stored.
    lesson = Lesson(step, context, network, network, samples, step.teacher, started=_FOUND)
    return train_and_store(
        compressed, lesson, places, lambda path, layer, norms: TunedLayer(layer, norms, weights[path])
    )


@torch.no_grad()
def clustered(network: Network, path: str, step: QuantizeCodebook, seed: int) -> Weight:
    """The layer's weight by codebooks of ``2^bits`` centroids."""
    weight = original(network.module, path)
    per_channel = math.prod(weight.shape[1:])
    vector = next(length for length in range(step.vector, 0, -1) if per_channel % length == 0)

    def find(books: Tensor) -> tuple[Tensor, Tensor]:
        if vector == 1:
            centroids, codes = codebooks(books, step.bits)
            return centroids[..., None], codes
        found = [vector_codebook(book.reshape(-1, vector), step.bits, seed) for book in books]
        centroids, codes = (torch.stack(part) for part in zip(*found, strict=True))
        return centroids, codes

    bias = bias_beside(network.module.get_submodule(path), "weight")
    return by_numbers(weight, bias, whole=step.group == "layer", bits=step.bits, find=find)
