"""Where a layer's weights are in an ONNX graph, and how to put others there."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from worker.engine.targets.onnx_graph import region

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Site:
    """One call of a layer in an ONNX graph.

    Attributes:
        node: the Conv, Gemm or MatMul; its second input is the weight.
        transposed: whether the weight is stored as (in, out).
        adder: the node that adds the bias, where `node` does not do it itself.
        norm: the batch norm behind it, where there is one.
    """

    node: NodeProto
    transposed: bool
    adder: NodeProto | None = None
    norm: NodeProto | None = None

    @property
    def axis(self) -> int:
        """The weight's output channels."""
        return 1 if self.transposed else 0

    @property
    def bias(self) -> tuple[NodeProto, int] | None:
        """The node that reads the bias and at which position, None where there is none."""
        if self.adder is not None:
            return self.adder, 0 if self.adder.input[1] == self.node.output[0] else 1
        return (self.node, 2) if len(self.node.input) > 2 and self.node.input[2] else None


class Sites:
    """Finds the sites of layers in a graph."""

    def __init__(self, graph: GraphProto, made_by: dict[str, NodeProto], stops: Collection[str]) -> None:
        self._made_by, self._stops = made_by, stops
        self._constants: Mapping[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}

    def find(self, value: str, shape: tuple[int, ...]) -> Site | None:
        """The layer that computes `value` with a weight of `shape`; None where it is written in another way."""
        nodes = region(self._made_by, value, self._stops)
        layers = [n for n in nodes if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[1] in self._constants]
        norms = [n for n in nodes if n.op_type == "BatchNormalization"]
        adders = [n for n in nodes if n.op_type == "Add" and any(name in self._constants for name in n.input)]
        if len(layers) != 1 or len(norms) > 1 or len(adders) > 1 or len(nodes) != 1 + len(norms) + len(adders):
            return None
        node = layers[0]
        settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if settings.get("alpha", 1.0) != 1.0 or settings.get("beta", 1.0) != 1.0 or settings.get("transA", 0):
            return None
        transposed = node.op_type == "MatMul" or (node.op_type == "Gemm" and not settings.get("transB", 0))
        stored = tuple(self._constants[node.input[1]].dims)
        if (stored[::-1] if transposed else stored) != shape:
            return None
        return Site(node, transposed, adders[0] if adders else None, norms[0] if norms else None)


def place_of_bias(site: Site, added: list[NodeProto]) -> tuple[NodeProto, int]:
    """The node that reads the bias and at which position, made where exporters left a bias of zeros out.

    Args:
        added: where a node that has to be added goes.
    """
    if site.bias is not None:
        return site.bias
    if site.node.op_type == "MatMul":
        result = site.node.output[0]
        site.node.output[0] = f"{result}_product"
        added.append(helper.make_node("Add", [site.node.output[0], ""], [result], name=f"{result}_add_bias"))
        return added[-1], 1
    site.node.input.extend([""] * (3 - len(site.node.input)))
    return site.node, 2


def put_float(graph: GraphProto, site: Site, name: str, weight: Floats, bias: Floats | None) -> None:
    """Write a layer's weight (out, in, ...) and bias (out,) as initializers of its own, called after `name`."""
    site.node.input[1] = put_initializer(graph, f"{name}.weight", weight.T if site.transposed else weight)
    if bias is not None:
        node, position = place_of_bias(site, [])
        node.input[position] = put_initializer(graph, f"{name}.bias", bias)


def put_initializer(graph: GraphProto, name: str, values: Floats) -> str:
    """An initializer of that name with these values, whatever was there; a name in use by nobody else is kept."""
    for tensor in graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
            return name
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return name
