"""Embeddings and recurrent layers of an ONNX graph whose weights are stored in few bits.

An embedding gathers rows of the stored table and their scales, so that no more than the rows in use are ever float. A
recurrent operator's matrices are rows of all gates, in ONNX's order and all directions together: they are found in the
graph by their values, and written as they are stored.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper
from torch import nn

from worker.engine.errors import RuntimeFailure
from worker.engine.quantized.form import Weight, original
from worker.engine.targets.onnx_storage import Storage, is_packed, scalar, stored_array

Array = NDArray[np.generic]
#: Class -> position in PyTorch's order of each of ONNX's gates: ``i f g o`` against ``i o f c``, ``r z n`` against
#: ``z r h``.
_GATES: Final[Mapping[type[nn.RNNBase], tuple[int, ...]]] = {nn.LSTM: (0, 3, 1, 2), nn.GRU: (1, 0, 2), nn.RNN: (0,)}
_RECURRENT: Final = ("LSTM", "GRU", "RNN")
#: Stored types that ONNX's Gather is not made for: such a table is widened when the file is loaded.
_WIDENED: Final = {torch.float8_e4m3fn: TensorProto.FLOAT}


def write_embedding(storage: Storage, region: list[NodeProto], path: str, call: str, weight: Weight) -> None:
    """Let the Gather in `region` read the stored table of the layer at `path`.

    Raises:
        RuntimeFailure: ``export_failed`` where there is no such Gather.
    """
    constants = {tensor.name: tuple(tensor.dims) for tensor in storage.graph.initializer}
    shape = tuple(weight.shape)
    gather = next((n for n in region if n.op_type == "Gather" and constants.get(n.input[0]) == shape), None)
    if gather is None:
        raise RuntimeFailure("export_failed", f"layer {path} has no place in the ONNX graph")
    result, indices = gather.output[0], gather.input[1]
    if is_packed(weight):
        storage.node("Gather", [storage.unpacked(path, call, weight), indices], result, axis=0)
        storage.graph.node.remove(gather)
        return
    table = storage.constant(f"{path}.weight_stored", stored_array(weight))
    if weight.bits == 4 or weight.values.dtype in _WIDENED:
        wide = _WIDENED.get(weight.values.dtype, TensorProto.INT8)
        table = storage.node("Cast", [table], f"{call}.weight_widened", to=wide)
    rows = storage.node("Gather", [table, indices], f"{call}.rows", axis=0)
    if bool((weight.scale == 1).all()):
        storage.node("Cast", [rows], result, to=TensorProto.FLOAT)
    else:
        rows = storage.node("Cast", [rows], f"{call}.rows_float", to=TensorProto.FLOAT)
        scale = storage.constant(f"{path}.weight_scale", scalar(weight.scale.reshape(-1, 1).numpy()))
        if len(weight.scale) > 1:
            scale = storage.node("Gather", [scale, indices], f"{call}.rows_scale", axis=0)
        storage.node("Mul", [rows, scale], result)
    storage.graph.node.remove(gather)


def write_recurrent(storage: Storage, module: nn.Module, path: str, weights: Mapping[str, Weight]) -> None:
    """Let the recurrent operators of the layer at `path` read what is stored.

    Args:
        weights: name of a parameter -> its weight.
    Raises:
        RuntimeFailure: ``export_failed`` where an operator is not found.
    """
    layer = module.get_submodule(path)
    if not isinstance(layer, nn.RNNBase):
        raise TypeError(f"{path} is not a recurrent layer")
    for stem in _stems(layer):
        names = [f"{stem}{suffix}" for suffix in ([""] if not layer.bidirectional else ["", "_reverse"])]
        order = _GATES[type(layer)]
        floats = np.stack([_gates(original(module, f"{path}.{name}").numpy(), order) for name in names])
        joined = _joined([weights[name] for name in names], order)
        fold = partial(_folded, directions=len(names))
        where = f"{path}.{stem}"
        for node, position in _readers(storage.graph, path, floats):
            node.input[position] = storage.float_weight(where, where, joined, fold, None)


def _stems(layer: nn.RNNBase) -> Iterator[str]:
    return (f"weight_{kind}_l{index}" for index in range(layer.num_layers) for kind in ("ih", "hh"))


def _gates(matrix: Array, order: tuple[int, ...]) -> Array:
    """The rows of `matrix` with the gates in another order."""
    parts = np.split(matrix, len(order), axis=0)
    return np.concatenate([parts[index] for index in order])


def _joined(weights: list[Weight], order: tuple[int, ...]) -> Weight:
    """All directions as one weight of (directions * gates * hidden, ...), gates in ONNX's order."""

    def rows(values: torch.Tensor) -> torch.Tensor:
        parts = values.chunk(len(order), 0)
        return torch.cat([parts[index] for index in order])

    scales = [w.scale if w.scale.dim() > 1 or len(w.scale) > 1 else w.scale.expand(len(w.values)) for w in weights]
    # Concatenation knows no float8: its bytes do.
    values = [w.values.view(torch.uint8) if w.values.itemsize == 1 else w.values for w in weights]
    joined = torch.cat([rows(value) for value in values]).view(weights[0].values.dtype)
    points = [w.zero_point for w in weights if w.zero_point is not None]
    zero_point = torch.cat([rows(point) for point in points]) if points else None
    return Weight(joined, torch.cat([rows(scale) for scale in scales]), None, weights[0].bits, zero_point)


def _folded(values: Array, directions: int) -> Array:
    """(directions * rows, columns or 1) as (directions, rows, columns or 1)."""
    return values.reshape(directions, len(values) // directions, -1)


def _readers(graph: GraphProto, path: str, floats: Array) -> list[tuple[NodeProto, int]]:
    """The recurrent operators that read `floats`, one for each call, and at which input."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    found = []
    for node in graph.node:
        for position in (1, 2) if node.op_type in _RECURRENT else ():
            tensor = constants.get(node.input[position])
            if tensor is not None and np.array_equal(numpy_helper.to_array(tensor), floats):
                found.append((node, position))
    if found:
        return found
    raise RuntimeFailure("export_failed", f"layer {path} has no place in the ONNX graph")
