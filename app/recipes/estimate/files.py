"""How large the file of a target is: weights as they are stored, and the graph around them.

The graph's share was taken from exported files (a test holds it to 5 %): bytes for each call, and for each layer whose
weight is stored in another way than in float. In a small model it is most of the file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as default
from typing import Final

from app.recipes.estimate.layers import LAYERS, RECURRENT, Layer, Outline, storable
from app.recipes.methods.effects import Form, Storage
from app.recipes.targets import TARGETS, Grid

_FLOAT_BITS: Final = 32


@dataclass(frozen=True)
class Graph:
    """What a target's file holds beside weights, in bytes.

    Attributes:
        base: of any file.
        call: for each layer and operator.
        recurrent: more for each recurrent layer.
        stored: more for each layer that is stored in that form; `linear`: for linear layers, where that differs.
        packed / field: more for a layer whose integers of less than 8 bits are packed, and for each further bit field
            that a width falls into: 3 bits are 2 and 1.
        books: more for a layer with a codebook to each channel.
        offset_bits: of a zero point of a group; None: as many as a weight has.
        floats: whether short floating-point formats stay short.
        dense: forms that layers other than linear ones keep in float.
        blocks: whether linear layers of 4 bits have a form of their own, with packed zero points.
    """

    base: int
    call: int
    recurrent: int = 0
    stored: Mapping[Form, int] = default(default_factory=dict)
    linear: Mapping[Form, int] = default(default_factory=dict)
    packed: int = 0
    field: int = 0
    books: int = 0
    offset_bits: int | None = 8
    floats: bool = True
    dense: tuple[Form, ...] = ()
    blocks: bool = False


GRAPHS: Final[Mapping[str, Graph]] = {
    "onnxruntime": Graph(
        base=0, call=1140, recurrent=28_000, packed=260, field=930, books=250, offset_bits=32, blocks=True,
        stored={"integer": 140, "dynamic": -150, "float": -300, "groups": 520, "codes": 700},
        linear={"dynamic": -500, "integer": 300},
    ),
    "openvino": Graph(
        base=0, call=1200, recurrent=13_600, offset_bits=None, floats=False,
        stored={"integer": 6800, "dynamic": 1450, "float": 0, "groups": 3400, "codes": 6000},
        linear={"integer": 5000},
    ),
    "torch": Graph(
        base=5000, call=1900, recurrent=7600, packed=10_000, field=10_000, books=4200, offset_bits=8,
        stored={"integer": 12_200, "dynamic": 4200, "float": 1950, "groups": 12_000, "codes": 16_000},
        linear={"dynamic": 17_800, "integer": 7500},
    ),
    "executorch": Graph(base=4000, call=600, dense=("dynamic",), stored={"integer": 600, "dynamic": 600}),
    "litert": Graph(base=4000, call=300, stored={"integer": 600, "dynamic": 300}),
    "tensorrt": Graph(base=200_000, call=4000, stored={"integer": 1000}),
}  # fmt: skip
#: A target without a row in the table.
_USUAL: Final = GRAPHS["onnxruntime"]
#: What linear layers of 4 bits in blocks cost, as `Graph.stored`, and the sizes that blocks can have.
_BLOCKED: Final = -700
_BLOCKS: Final = (16, 32, 64, 128, 256)
#: Width -> further bit fields.
_FIELDS: Final[Mapping[int, int]] = {3: 1, 5: 1, 6: 1, 7: 2}


def file_bytes(model: Outline, target: str, graph_bytes: int | None = None) -> int:
    """The size of the file.

    Args:
        model: with its layers as they are to be stored.
        graph_bytes: of the float file's graph, where it is known: that of an uploaded ONNX file.
    """
    graph, grid = GRAPHS.get(target, _USUAL), TARGETS[target]
    around = graph.base + graph.call * model.calls
    around += graph.recurrent * sum(layer.kind in RECURRENT for layer in model.layers)
    total = float(around if graph_bytes is None else graph_bytes) + 4 * model.loose
    for layer in model.layers:
        stored = layer.stored
        if stored is None or not storable(layer, _tables(stored, grid)) or not _kept(layer, graph):
            total += layer.float_bytes
        else:
            total += _stored(layer, stored, graph) / 8 + 4 * layer.others + _graph(layer, stored, graph)
    return max(round(total), 0)


def _tables(stored: Storage, grid: Grid) -> tuple[str, ...]:
    """The layers that compute in float from few bits, beside what is stored in this way."""
    if not stored.tables:
        return ()
    return grid.stored_beside_integers if stored.form == "integer" else grid.stored


def stored_bits(layer: Layer, stored: Storage, offset_bits: int | None = 8) -> float:
    """What a layer's weights take in few bits, with scales, zero points and centroids."""
    total = 0.0
    for weight in layer.weights:
        count, scales = math.prod(weight), scale_count(weight, stored)
        each = _FLOAT_BITS * (stored.centroids * stored.vector if stored.centroids else 1)
        points = (stored.bits if offset_bits is None else offset_bits) if stored.points else 0
        total += count * stored.bits + scales * (each + points)
    return total


def scale_count(weight: tuple[int, ...], stored: Storage) -> int:
    """How many scales, or codebooks, a weight has."""
    channels = weight[0]
    if stored.per is None:
        return 0
    if stored.per == "layer":
        return 1
    if stored.per == "channel":
        return channels
    return channels * group_count(math.prod(weight) // channels, stored.per)


def group_count(each: int, size: int) -> int:
    """How many groups `each` weights of a channel fall into, as the engine makes them.

    They are of one length, the largest divisor that is not above `size`; one group where that is less than half of
    `size`, and where that is -1.
    """
    if size < 0 or each <= size:
        return 1
    fitting = next((length for length in range(size, 0, -1) if each % length == 0), 1)
    return each // fitting if 2 * fitting >= size else 1


def _kept(layer: Layer, graph: Graph) -> bool:
    """Whether the target really stores this layer's form in few bits."""
    stored = layer.stored
    if stored is None or (stored.form == "float" and not graph.floats):
        return False
    return not (stored.form in graph.dense and layer.kind not in LAYERS)


def _stored(layer: Layer, stored: Storage, graph: Graph) -> float:
    offset = None if graph.blocks and _blocked(layer, stored) else graph.offset_bits
    return stored_bits(layer, stored, offset)


def _graph(layer: Layer, stored: Storage, graph: Graph) -> float:
    """What the file says of how to read the layer's weights."""
    if graph.blocks and _blocked(layer, stored):
        return _BLOCKED
    # What computes in float beside integers is written as beside a dynamic quantization.
    form = "dynamic" if stored.form == "integer" and layer.kind not in LAYERS else stored.form
    table = graph.linear if layer.kind == "Linear" and form in graph.linear else graph.stored
    around = table.get(form, 0) + graph.field * _FIELDS.get(round(stored.bits), 0)
    if stored.form == "groups" and stored.bits < 8:
        around += graph.packed
    if stored.form == "codes" and stored.per == "channel":
        around += graph.books
    return around * len(layer.weights)


def _blocked(layer: Layer, stored: Storage) -> bool:
    if layer.kind != "Linear" or stored.form != "groups" or stored.bits != 4:
        return False
    weight = layer.weights[0]
    groups = scale_count(weight, stored) // weight[0]
    return weight[1] // max(groups, 1) in _BLOCKS
