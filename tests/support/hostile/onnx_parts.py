"""What hostile ONNX models are made of."""

import itertools
from collections.abc import Callable

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.support.hostile import good
from tests.support.hostile.case import Group, Make

#: Models that lead out of their archive, never end, or say sizes that nothing has.
ONNX = Group("onnx")
Change = Callable[[onnx.ModelProto], object]


def changed(change: Change) -> Make:
    """The good model, changed."""

    def make(canary: object) -> bytes:
        model = good.onnx_model()
        change(model)
        return model.SerializeToString()

    return make


def of(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto] | None = None,
    shape: list | None = None,
    kind: int = TensorProto.FLOAT,
    **more: object,
) -> Make:
    """A model from ``x`` to ``y``."""
    shape = ["n", 4] if shape is None else shape
    ends = [good.value("x", shape, kind), good.value("y", [f"y{axis}" for axis in range(len(shape))], kind)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights or [])
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(name, 1) for name in more.pop("domains", ()))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)
    return lambda canary: model.SerializeToString()


def node(operator: str, inputs: str = "x", outputs: str = "y", **attributes: object) -> onnx.NodeProto:
    """A node; values are separated by spaces."""
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def numbers(name: str, values: object, kind: type = np.int64) -> onnx.TensorProto:
    """An initializer of these values."""
    return numpy_helper.from_array(np.array(values, kind), name)


def external(where: dict[str, str], **files: bytes) -> Make:
    """A zip of a model whose weight lies elsewhere."""
    return lambda canary: good.zip_of(good.onnx_bundle(**where) | files)


def located(*keys_and_values: str) -> Make:
    """External data with keys in any number."""

    def make(canary: object) -> bytes:
        model = good.external_model()
        for key, value in zip(keys_and_values[::2], keys_and_values[1::2], strict=True):
            model.graph.initializer[0].external_data.add(key=key, value=value)
        return good.zip_of({"m.onnx": model.SerializeToString(), "w.data": bytes(64)})

    return make


def named_input(name: bytes) -> bytes:
    """``y = relu(name)``, written by hand: protobuf's writer refuses some names."""
    shape = field(2, field(1, b"\x08\x01" + field(2, field(1, field(2, b"n")) + field(1, b"\x08\x04"))))
    graph = field(1, field(1, name) + field(2, b"y") + field(4, b"Relu")) + field(2, b"g")
    return (
        b"\x08\x09"
        + field(7, graph + field(11, field(1, name) + shape) + field(12, field(1, b"y") + shape))
        + field(8, b"\x0a\0\x10\x14")
    )


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def field(number: int, data: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def deep(depth: int) -> bytes:
    """Graphs in attributes of nodes of graphs, by hand: protobuf's own writer would not."""
    graph = b""
    for _ in range(depth):
        attribute = field(1, b"body") + field(6, graph) + varint(20 << 3) + varint(AttributeProto.GRAPH)
        graph = field(1, field(4, b"If") + field(5, attribute))
    return b"\x08\x09" + field(7, graph + field(12, field(1, b"y"))) + field(8, varint(2 << 3) + varint(20))


def recursive_type(depth: int) -> bytes:
    """A type of sequences of sequences."""
    kind = field(1, b"\x08\x01")
    for _ in range(depth):
        kind = field(4, field(1, kind))
    return b"\x08\x09" + field(7, field(11, field(1, b"x") + field(2, kind)) + field(12, field(1, b"y")))


def functions(*bodies: tuple[str, list[str]]) -> Make:
    """A model that calls the first of these functions; each calls others by name, or standard operators."""
    made = []
    for name, calls in bodies:
        inner = [
            helper.make_node(call, [f"v{i}"], [f"v{i + 1}"], domain="" if call[0].isupper() else "local")
            for i, call in enumerate(calls)
        ]
        imports = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
        made.append(helper.make_function("local", name, ["v0"], [f"v{len(calls)}"], inner, imports))
    call = helper.make_node(bodies[0][0], ["x"], ["y"], domain="local")
    return of([call], functions=made, domains=["local"])


def chain(count: int, operator: str = "Relu") -> Make:
    """Very many nodes one behind the other."""
    names = ["x", *(f"v{i}" for i in range(count - 1)), "y"]
    nodes = [helper.make_node(operator, [a], [b]) for a, b in itertools.pairwise(names)]
    return of(nodes)


def doubling(count: int) -> Make:
    """Each node joins the value before with itself: 2 ** count numbers."""
    names = ["x", *(f"v{i}" for i in range(count - 1)), "y"]
    return of([helper.make_node("Concat", [a, a], [b], axis=1) for a, b in itertools.pairwise(names)])


def tensor(**fields: object) -> onnx.TensorProto:
    """An initializer ``w`` whose fields say anything."""
    made = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT)
    dims = fields.pop("dims", [4, 4])
    made.dims.extend(dims)
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(made, name).extend(value)
        else:
            setattr(made, name, value)
    return made


def with_weight(*tensors: onnx.TensorProto) -> Make:
    """The good model with another ``w``."""

    def change(model: onnx.ModelProto) -> None:
        del model.graph.initializer[0]
        model.graph.initializer.extend(tensors)

    return changed(change)
