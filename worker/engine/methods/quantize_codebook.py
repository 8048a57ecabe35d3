"""``quantize.codebook``: weights as the numbers of centroids, which k-means finds (Han et al. 2015,
https://arxiv.org/abs/1510.00149, section 3; product quantization: Gong et al. 2014, https://arxiv.org/abs/1412.6115).

A layer whose centroids and codes would take more than its float weights stays in float.
"""

import math
from dataclasses import replace

import torch

from app.recipes import Step
from app.recipes.methods import QuantizeCodebook
from worker.engine.errors import Unsupported
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.methods.layers import check_quantizable
from worker.engine.methods.stored import layers_in, store, stored_places
from worker.engine.network import Network
from worker.engine.quantized.form import Weight, bias_beside, original
from worker.engine.quantized.kmeans import codebooks, vector_codebook
from worker.engine.state import Compressed, Context

_NOTE = "weights are looked up in codebooks and layers compute in float: smaller, not faster"


def quantize_codebook(compressed: Compressed, step: Step, context: Context) -> Compressed:
    """Find a codebook for every convolution and linear layer; other layers stay in float.

    Raises:
        Unsupported: ``unknown_layer``, ``dtype_unsupported``; ``no_layers`` where nothing would become smaller.
    """
    if not isinstance(step, QuantizeCodebook):
        raise TypeError(f"{type(step).__name__} is not QuantizeCodebook")
    network = fold_batch_norm(compressed.network)
    check_quantizable(network, step.layers)
    places = stored_places(network, step.layers, context)
    paths, weights, left = layers_in(places), {}, {}
    for index, path in enumerate(paths):
        weight = clustered(network, path, step, context.seed)
        if weight.stored_bits < 32 * math.prod(weight.shape):
            weights[path] = weight
        else:
            left[path] = "its codebook would be larger than its weights"
        context.progress((index + 1) / len(paths))
    if not weights:
        raise Unsupported("no_layers", "every codebook would be larger than the weights: take fewer bits, group layer")
    # Tables are looked up by row already, and recurrent layers' matrices are read whole at every step.
    left |= {
        key: "codebooks are for convolutions and linear layers" for place in places.values() for key in place.stored
    }
    places = {
        name: replace(
            place,
            layers=tuple(path for path in place.layers if path in weights),
            stored=(),
            left={**place.left, **left},
        )
        for name, place in places.items()
    }
    return store(compressed, network, places, weights, context, [_NOTE])


@torch.no_grad()
def clustered(network: Network, path: str, step: QuantizeCodebook, seed: int) -> Weight:
    """The layer's weight by codebooks of ``2^bits`` centroids."""
    weight = original(network.module, path)
    rows = weight.reshape(len(weight), -1)
    vector = next(length for length in range(step.vector, 0, -1) if rows.shape[1] % length == 0)
    books = rows if step.group == "channel" else rows.reshape(1, -1)
    if vector == 1:
        centroids, codes = codebooks(books, step.bits)
        centroids = centroids[..., None]
    else:
        found = [vector_codebook(book.reshape(-1, vector), step.bits, seed) for book in books]
        centroids, codes = (torch.stack(part) for part in zip(*found, strict=True))
    return Weight(
        values=codes.reshape(len(rows), -1),
        scale=torch.ones(1, device=weight.device),
        bias=bias_beside(network.module.get_submodule(path), "weight"),
        bits=step.bits,
        centroids=centroids,
        size=tuple(weight.shape),
    )
