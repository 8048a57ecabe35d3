"""What methods that store weights in few bits and leave the arithmetic in float have in common."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch

from app.recipes.methods import LayerFilter
from worker.engine.methods.layers import layer_rows, merged, with_left
from worker.engine.methods.lesson import Lesson, teach
from worker.engine.network import Network
from worker.engine.quantized.fake import put
from worker.engine.quantized.form import Quantization, Weight, check_apart
from worker.engine.quantized.placement import Placement, place
from worker.engine.quantized.student import Maker, Start, graduate, make_student
from worker.engine.state import Compressed, Context

#: What the user should know of weights that are looked up.
LOOKED_UP: Final = "weights are looked up in codebooks and layers compute in float: smaller, not faster"
#: Why a layer is left out, and why a network is refused.
LARGER: Final = "its codebook would be larger than its weights"
NOTHING: Final = (
    "no convolution or linear layer is left to store; quantize.weights also stores embeddings and recurrent layers"
)
_RANGES: Final = "activation ranges of an earlier step were found before this training and stay as they are"


def stored_places(network: Network, layers: LayerFilter, context: Context) -> dict[str, Placement]:
    """Target -> the layers that it stores in few bits, of `network` with its batch norms folded."""
    places = {grid.stored: place(network, layers, stored=grid.stored) for grid in context.grids.values()}
    return {name: places[grid.stored] for name, grid in context.grids.items()}


def layers_in(places: dict[str, Placement]) -> list[str]:
    """Paths of the convolutions and linear layers, in graph order."""
    return list(dict.fromkeys(path for place in places.values() for path in place.layers))


def tables_in(places: dict[str, Placement]) -> list[str]:
    """Keys of embeddings, recurrent layers' matrices and 3-D convolutions that some target stores."""
    return list(dict.fromkeys(key for place in places.values() for key in place.stored))


def narrowed_to(
    places: Mapping[str, Placement], paths: Collection[str], left: Mapping[str, str], tables: str
) -> dict[str, Placement]:
    """`places` with the layers at `paths` alone.

    Args:
        left: path of a layer that is left out -> why.
        tables: why embeddings, recurrent layers and 3-D convolutions are.
    """
    # Tables are looked up by row already, and recurrent layers' matrices are read whole at every step.
    reasons = {**left, **{key: tables for place_ in places.values() for key in place_.stored}}
    return {
        name: replace(
            place_,
            layers=tuple(path for path in place_.layers if path in paths),
            stored=(),
            left={**reasons, **place_.left},
        )
        for name, place_ in places.items()
    }


def store(
    compressed: Compressed,
    network: Network,
    places: dict[str, Placement],
    weights: Mapping[str, Weight],
    context: Context,
    notes: Sequence[str],
    origin: Network | None = None,
) -> Compressed:
    """The state after a step that stored weights.

    Args:
        network: with its batch norms folded.
        weights: by the keys of `layers_in` and `tables_in`.
        origin: what ``metrics.layers`` compares with, where that is not `network`: the network before a training.
    """
    forms: dict[int, Quantization] = {}
    for place_ in places.values():
        keys = (*place_.layers, *place_.stored)
        forms.setdefault(id(place_), Quantization(network, {key: weights[key] for key in keys}))
    quantized = {name: forms[id(place_)].beside(compressed.quantized.get(name)) for name, place_ in places.items()}
    return replace(
        compressed,
        quantized={**compressed.quantized, **quantized},
        layers=merged(
            compressed.layers, layer_rows(next(iter(quantized.values())), context.calibration, context, origin), network
        ),
        notes=[*with_left(compressed.notes, places, quantized), *notes],
    )


def train_and_store(compressed: Compressed, lesson: Lesson, places: dict[str, Placement], make: Maker) -> Compressed:
    """Train the layers of `places` as what `make` puts in their place, and everything else that is float; `store`.

    The trained network goes on with its batch norms folded and with the stored values in its trained layers.

    Args:
        compressed: on CPU; the training takes copies to the device.
    Raises:
        Unsupported: ``invalid_order`` where an earlier step has stored one of the layers; ``training_diverged``.
        InvalidDataset: ``too_few_samples``.
    """
    earlier = {key: weight for form in compressed.quantized.values() for key, weight in form.weights.items()}
    paths = tuple(layers_in(places))
    check_apart(paths, earlier)
    placement = Placement(frozenset(), {}, {}, paths, (), {})
    student, curves = teach(lesson, lambda points: make_student(lesson.network, placement, Start({}, earlier, make)))
    network, form = graduate(student)
    with torch.no_grad():  # the float weights behind a rounding are no network of use
        for path, weight in form.weights.items():
            put(network.module, path, weight.dequantized(), weight.bias)
    ranges = any(form.activations for form in compressed.quantized.values())
    notes = [*compressed.notes, *([_RANGES] if ranges else [])]
    done = replace(compressed.with_curves(curves), network=network, notes=notes)
    on_cpu = replace(lesson.context, device="cpu")
    return store(done, network, places, form.weights, on_cpu, [LOOKED_UP], origin=lesson.teacher)
