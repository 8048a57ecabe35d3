"""What methods that store weights in few bits and leave the arithmetic in float have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from app.recipes.methods import LayerFilter
from worker.engine.methods.layers import layer_rows, with_left
from worker.engine.network import Network
from worker.engine.quantized.form import Quantization, Weight
from worker.engine.quantized.placement import Placement, place
from worker.engine.state import Compressed, Context


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


def store(
    compressed: Compressed,
    network: Network,
    places: dict[str, Placement],
    weights: Mapping[str, Weight],
    context: Context,
    notes: Sequence[str],
) -> Compressed:
    """The state after a step that stored weights.

    Args:
        network: with its batch norms folded.
        weights: by the keys of `layers_in` and `tables_in`.
    """
    forms: dict[int, Quantization] = {}
    for place_ in places.values():
        keys = (*place_.layers, *place_.stored)
        forms.setdefault(id(place_), Quantization(network, {key: weights[key] for key in keys}))
    quantized = {name: forms[id(place_)].beside(compressed.quantized.get(name)) for name, place_ in places.items()}
    return replace(
        compressed,
        quantized={**compressed.quantized, **quantized},
        layers=layer_rows(next(iter(quantized.values())), context.calibration, context),
        notes=[*with_left(compressed.notes, places, quantized), *notes],
    )
