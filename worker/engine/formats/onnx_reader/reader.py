"""The import itself: nodes in order, each through the function that the table has for its operator."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from torch import Tensor, fx

from worker.engine.errors import InvalidModel, Unsupported
from worker.engine.formats import codes
from worker.engine.formats.failures import FAILURES
from worker.engine.formats.lift import unsupported_operators
from worker.engine.formats.names import identifier
from worker.engine.formats.onnx_reader import widening
from worker.engine.formats.onnx_reader.file import OnnxSource, load, opset_of
from worker.engine.formats.onnx_reader.functions import inline_functions
from worker.engine.formats.onnx_reader.node import Node
from worker.engine.formats.onnx_reader.operators import OPERATORS
from worker.engine.formats.onnx_reader.sizes import on_sizes
from worker.engine.formats.onnx_reader.tensors import DTYPES, to_torch
from worker.engine.formats.onnx_reader.values import WHICH, Builder, Value
from worker.engine.formats.prints import fingerprints
from worker.engine.formats.program import dtype_name
from worker.engine.network import Dim, Network, TensorSpec

_Trial = tuple[int, int, int]
#: Sizes tried for the batch, for other symbolic dimensions, and for those of token inputs: they pick rows of a table of
#: positions whose length no shape shows, so there are few at first. The first with which all shapes fit are taken.
#: The third of each size is small, so that what a long dimension hides is seen: it is 1, or what the model needs.
_TRIALS: Final[tuple[tuple[_Trial, _Trial, _Trial], ...]] = (
    ((24, 40, 1), (224, 320, 1), (8, 12, 1)),
    ((24, 40, 2), (224, 320, 64), (8, 12, 3)),
    ((24, 40, 2), (224, 320, 256), (8, 12, 7)),
    ((24, 40, 1), (32, 64, 1), (32, 64, 1)),
    ((24, 40, 2), (32, 64, 16), (32, 64, 16)),
    ((24, 40, 1), (8, 12, 1), (8, 12, 1)),
    ((24, 40, 2), (8, 12, 4), (8, 12, 4)),
    ((4, 6, 1), (2, 3, 1), (2, 3, 1)),
)
_TOKENS: Final = (torch.int32, torch.int64, torch.bool)
_TO: Final = torch.ops.aten.to.dtype


def read_onnx(path: Path) -> Network:
    """Read an ONNX file.

    Every node that stands for an ONNX value carries its name as ``meta["onnx_value"]``; the nodes of layers also
    ``onnx_node`` and ``onnx_weight``. `Network.source` is an `OnnxSource` with the checked file.

    Raises:
        InvalidModel: a file that breaks its format.
        Unsupported: operators (all of them named), attributes or inputs that a network cannot have.
    """
    source = load(path)
    flat = inline_functions(source.outline)
    _refuse_unknown(flat.graph)
    constants = {tensor.name: source.tensor(tensor) for tensor in flat.graph.initializer}
    widened = widening.other_types(flat.graph, constants)
    constants = {name: widening.to_float32(tensor, widened) for name, tensor in constants.items()}
    failure: Exception = ValueError("no sizes")
    for choices in _TRIALS:
        try:
            return _Import(flat, source, constants, widened, choices).network()
        except FAILURES as error:
            failure = error
    raise InvalidModel(
        codes.GRAPH_INVALID, f"The shapes in the model do not fit together: {failure}"[:500]
    ) from failure


def _refuse_unknown(graph: onnx.GraphProto) -> None:
    unknown = sorted({name for name in map(_full_name, graph.node) if name not in OPERATORS})
    if unknown:
        raise unsupported_operators(unknown)


def _full_name(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


class _Import:
    """One pass over the graph under one choice of sizes."""

    def __init__(
        self,
        model: onnx.ModelProto,
        source: OnnxSource,
        constants: dict[str, Tensor],
        widened: frozenset[torch.dtype],
        choices: tuple[_Trial, _Trial, _Trial],
    ) -> None:
        self.graph = model.graph
        self.source = source
        self.opset = opset_of(model)
        self.build = Builder({id(tensor): name for name, tensor in constants.items()}, source.mapped, widened)
        self.values: dict[str, Value] = dict(constants)
        self.choices = choices
        self.symbols: dict[str, str] = {}
        self.sizes: dict[str, _Trial] = {}
        self.kept: list[Tensor] = []  # ids of what branches bring stay unique while it lives

    def network(self) -> Network:
        """Import everything."""
        inputs = [self.input(value) for value in self.graph.input if value.name not in self.values]
        for index, node in enumerate(self.graph.node):
            self.node(node, index)
        results = [self.build.attribute(self.result(output)) for output in self.graph.output]
        outputs = [self.output(output.name, node) for output, node in zip(self.graph.output, results, strict=True)]
        self.build.graph.output(tuple(results))
        for node in self.build.graph.nodes:
            shadows = node.meta.pop("shadows", None)
            if shadows is not None and isinstance(shadows[0], Tensor):
                node.meta["rank"] = shadows[0].dim()
        module = fx.GraphModule(self.build.root, self.build.graph, class_name="Network")
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.graph.lint()
        module.recompile()
        if self.source.mapped is not None:
            self.source.mapped.settle(module)
        self.source.prints.update(fingerprints(module))
        told = [*widening.notes(self.build.widened), *self.build.notes]
        # What computes or answers in another type than the file cannot be written back from the file's own graph.
        source = None if told else self.source
        return Network(module.eval(), tuple(inputs), tuple(outputs), "onnx", told, source=source)

    def result(self, output: onnx.ValueInfoProto) -> Any:
        """An output in the type that the file gives it."""
        value = self.build.tensor(self.lookup(output.name))
        kind = DTYPES.get(output.type.tensor_type.elem_type)
        inner = kind in self.build.widened and self.build.dtype(value) == torch.float32
        return self.build.call(_TO, value, kind) if inner else value

    def input(self, value: onnx.ValueInfoProto) -> TensorSpec:
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or kind.elem_type not in DTYPES:
            raise Unsupported(codes.UNSUPPORTED_INPUT, f"Input {value.name[:80]!r} is not a tensor of a known type.")
        if not kind.HasField("shape"):
            raise Unsupported(
                codes.UNSUPPORTED_INPUT,
                f"Input {value.name[:80]!r} has no shape. Export the model with its number of dimensions.",
            )
        others = self.choices[2 if DTYPES[kind.elem_type] in _TOKENS else 1]
        dims = [self.dimension(dim, value.name, axis, others) for axis, dim in enumerate(kind.shape.dim)]
        shapes = [[dim if isinstance(dim, int) else self.sizes[dim][which] for dim in dims] for which in WHICH]
        shadows = tuple(torch.empty(shape, dtype=DTYPES[kind.elem_type], device="meta") for shape in shapes)
        node = self.build.placeholder(identifier(value.name), shadows)
        node.meta["onnx_value"] = value.name
        inner = shadows[0].dtype in self.build.widened
        self.values[value.name] = self.build.call(_TO, node, torch.float32) if inner else node
        sizes = tuple(2 if dim == "batch" else size for dim, size in zip(dims, shapes[0], strict=True))
        return TensorSpec(value.name, dtype_name(DTYPES[kind.elem_type]), tuple(dims), sizes)

    def dimension(self, dim: Any, owner: str, axis: int, others: _Trial) -> Dim:
        """A size, or the name of a symbolic one; the one that comes first in an input is the batch."""
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            return int(dim.dim_value)
        key = dim.dim_param or f"{owner}.{axis}"
        if key not in self.symbols:
            is_batch = axis == 0 and "batch" not in self.sizes
            name = "batch" if is_batch else f"s{len(self.symbols)}"
            self.symbols[key] = name
            self.sizes[name] = self.choices[0] if axis == 0 else others
        return self.symbols[key]

    def lookup(self, name: str) -> Value:
        if not name:
            return None
        if name not in self.values:
            raise InvalidModel(codes.GRAPH_INVALID, f"The value {name[:80]!r} is used before it is defined.")
        return self.values[name]

    def node(self, proto: onnx.NodeProto, index: int) -> None:
        node = Node(
            self.build,
            proto.name or f"{proto.op_type}_{index}",
            proto.op_type,
            self.opset,
            tuple(self.lookup(name) for name in proto.input),
            tuple(proto.input),
            tuple(proto.output),
            {a.name: widening.to_float32(_attribute(a), self.build.widened) for a in proto.attribute},
            self.branch,
        )
        results: Any = on_sizes(node)
        if results is None:
            results = OPERATORS[_full_name(proto)](node)
        if not isinstance(results, tuple):
            results = (results,)
        for name, result in zip(proto.output, results, strict=False):
            if name:
                self.values[name] = result
            if name and isinstance(result, fx.Node):
                result.meta.setdefault("onnx_value", name)

    def branch(self, graph: onnx.GraphProto) -> tuple[Value, ...]:
        """The results of an inner graph, as if its nodes stood here."""
        _refuse_unknown(graph)
        brought = {tensor.name: to_torch(tensor) for tensor in graph.initializer}
        self.add_constants({n: widening.to_float32(t, self.build.widened) for n, t in brought.items()})
        for index, inner in enumerate(graph.node):
            self.node(inner, index)
        results = tuple(self.lookup(output.name) for output in graph.output)
        for name in (*brought, *(name for inner in graph.node for name in inner.output)):
            self.values.pop(name, None)  # names inside mean nothing outside
        return results

    def add_constants(self, constants: dict[str, Tensor]) -> None:
        """Weights that a branch brings along."""
        self.build.initializers.update({id(tensor): name for name, tensor in constants.items()})
        self.kept.extend(constants.values())
        self.values.update(constants)

    def output(self, name: str, node: fx.Node) -> TensorSpec:
        shadows = node.meta["shadows"]
        first = shadows[0]
        names = {sizes: symbol for symbol, sizes in reversed(self.sizes.items())}  # the first of equal ones
        shape: list[Dim] = []
        for axis, seen in enumerate(zip(*(shadow.shape for shadow in shadows), strict=True)):
            fixed = len(set(seen)) == 1
            shape.append(int(seen[0]) if fixed else names.get(seen, f"{identifier(name)}_{axis}"))
        sizes = tuple(2 if dim == "batch" else int(size) for dim, size in zip(shape, first.shape, strict=True))
        return TensorSpec(name, dtype_name(first.dtype), tuple(shape), sizes)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return to_torch(value)
    if isinstance(value, Iterable) and not isinstance(value, (str, onnx.GraphProto, onnx.SparseTensorProto)):
        return [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in value]
    return value
