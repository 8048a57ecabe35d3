"""The structure of an ONNX file, without protobuf's library: what it calls, takes, gives and holds."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from modelpress.inspection.protobuf import BYTES, VARINT, Wire, signed
from modelpress.views import TensorSpec

Call = tuple[str, str]
STANDARD: Final = ("", "ai.onnx")
_MAX_DIMS: Final = 32
_MAX_KEPT: Final = 100_000
#: Twice what the service reads: beyond that, nobody needs to know how many.
_MAX_NODES: Final = 400_000
#: Field of TensorProto that holds values -> least number of bytes that one takes when packed.
_PACKED: Final = {4: 4, 5: 1, 7: 1, 10: 8, 11: 1}
_RAW, _STRINGS, _EXTERNAL = 9, 6, 1


class TooManyNodes(Exception):
    """More nodes than the service reads."""


@dataclass(slots=True)
class Tensor:
    """A weight without its values. `stored`: at least as many bytes or values as the service counts in it."""

    name: str = ""
    dims: list[int] = field(default_factory=list)
    type: int = 0
    stored: int = 0
    external: bool = False
    location: str = ""

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)


@dataclass(slots=True)
class Input:
    """An input or output; `shape` None where the file has none, `type` None where it is no tensor."""

    name: str = ""
    type: int | None = None
    shape: tuple[int | str | None, ...] | None = None

    def spec(self, dtypes: dict[str, str]) -> TensorSpec:
        """As the report has it."""
        return TensorSpec(name=self.name, dtype=dtypes.get(str(self.type)), shape=self.shape)


@dataclass(slots=True)
class Body:
    """What a graph or a function calls, inner graphs included."""

    calls: Counter[Call] = field(default_factory=Counter)
    nodes: int = 0


@dataclass(slots=True)
class OnnxModel:
    """All that the check looks at."""

    ir: int = 0
    producer: str = ""
    opset: int = 0
    opsets: int = 0
    graph: Body = field(default_factory=Body)
    functions: dict[Call, Body] = field(default_factory=dict)
    initializers: list[Tensor] = field(default_factory=list)
    constants: list[Tensor] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Input] = field(default_factory=list)
    statistics: set[str] = field(default_factory=set)
    has_graph: bool = False
    sparse: bool = False

    @property
    def nodes(self) -> int:
        """Number of nodes as they are in the file."""
        return self.graph.nodes + sum(body.nodes for body in self.functions.values())


def read(wire: Wire) -> OnnxModel:
    """Walk over a ModelProto."""
    model = OnnxModel()
    names = ["", ""]
    for number, kind, value in wire.fields(wire.stream.size):
        if number == 1 and kind == VARINT:
            model.ir = value
        elif number in (2, 3) and kind == BYTES:
            names[number - 2] = wire.text(value)
        elif number == 7 and kind == BYTES:
            model.has_graph = True
            _Graphs(wire, model).graph(value, model.graph, top=True)
        elif number == 8 and kind == BYTES:
            domain, version = _opset(wire, value)
            model.opsets += 1
            if domain in STANDARD:
                model.opset = max(model.opset, version)
        elif number == 25 and kind == BYTES:
            _Graphs(wire, model).function(value)
    model.producer = " ".join(name for name in names if name)
    return model


def _opset(wire: Wire, end: int) -> tuple[str, int]:
    domain, version = "", 0
    for number, kind, value in wire.fields(end):
        if number == 1 and kind == BYTES:
            domain = wire.text(value)
        elif number == 2 and kind == VARINT:
            version = signed(value)
    return domain, version


class _Graphs:
    """Graphs, functions and nodes, which contain each other."""

    def __init__(self, wire: Wire, model: OnnxModel) -> None:
        self.wire = wire
        self.model = model

    def graph(self, end: int, body: Body, *, top: bool = False) -> None:
        for number, kind, value in self.wire.fields(end):
            if kind != BYTES:
                continue
            if number == 1:
                self.node(value, body)
            elif number == 5:
                weights = self.model.initializers if top else self.model.constants
                self.keep(weights, _tensor(self.wire, value))
            elif number == 15:
                self.model.sparse = True
            elif number in (11, 12) and top:
                (self.model.inputs if number == 11 else self.model.outputs).append(_value(self.wire, value))

    def function(self, end: int) -> None:
        name, domain, body = "", "", Body()
        for number, kind, value in self.wire.fields(end):
            if kind != BYTES:
                continue
            if number == 1:
                name = self.wire.text(value)
            elif number == 10:
                domain = self.wire.text(value)
            elif number == 7:
                self.node(value, body)
        self.model.functions[domain, name] = body

    def node(self, end: int, body: Body) -> None:
        operator, domain = "", ""
        inputs: list[str] = []
        for number, kind, value in self.wire.fields(end):
            if kind != BYTES:
                continue
            if number == 1 and len(inputs) < 5:
                inputs.append(self.wire.text(value))
            elif number == 4:
                operator = self.wire.text(value)
            elif number == 7:
                domain = self.wire.text(value)
            elif number == 5:
                self.attribute(value, body)
        body.nodes += 1
        if body.nodes > _MAX_NODES:
            raise TooManyNodes
        if len(body.calls) < _MAX_KEPT:
            body.calls[domain, operator] += 1
        if operator == "BatchNormalization":
            self.model.statistics.update(inputs[3:5])

    def attribute(self, end: int, body: Body) -> None:
        for number, kind, value in self.wire.fields(end):
            if kind != BYTES:
                continue
            if number in (5, 10):
                self.keep(self.model.constants, _tensor(self.wire, value))
            elif number in (6, 11):
                self.graph(value, body)

    @staticmethod
    def keep(weights: list[Tensor], tensor: Tensor) -> None:
        if len(weights) < 2 * _MAX_KEPT:
            weights.append(tensor)


def _tensor(wire: Wire, end: int) -> Tensor:
    tensor = Tensor()
    counts: Counter[int] = Counter()
    for number, kind, value in wire.fields(end):
        size = value - wire.stream.position if kind == BYTES else 0
        if number == 1:
            tensor.dims += wire.numbers(kind, value, _MAX_DIMS)[: _MAX_DIMS - len(tensor.dims)]
        elif number == 2 and kind == VARINT:
            tensor.type = value
        elif number == 8 and kind == BYTES:
            tensor.name = wire.text(value)
        elif number in _PACKED:
            counts[number] += size // _PACKED[number] if kind == BYTES else 1
        elif number == _STRINGS:
            counts[number] += 1
        elif number == _RAW and kind == BYTES:
            counts[number] = size
        elif number == 13 and kind == BYTES:
            tensor.external = True
            key, text = _entry(wire, value)
            if key == "location":
                tensor.location = text
        elif number == 14 and kind == VARINT:
            tensor.external |= value == _EXTERNAL
    tensor.stored = max(counts.values(), default=0)
    return tensor


def _entry(wire: Wire, end: int) -> tuple[str, str]:
    texts = {number: wire.text(value) for number, kind, value in wire.fields(end) if kind == BYTES and number in (1, 2)}
    return texts.get(1, ""), texts.get(2, "")


def _value(wire: Wire, end: int) -> Input:
    found = Input()
    for number, kind, value in wire.fields(end):
        if number == 1 and kind == BYTES:
            found.name = wire.text(value)
        elif number == 2 and kind == BYTES:
            for inner, kind_, value_ in wire.fields(value):
                if inner == 1 and kind_ == BYTES:
                    _tensor_type(wire, value_, found)
    return found


def _tensor_type(wire: Wire, end: int, found: Input) -> None:
    found.type = 0
    for number, kind, value in wire.fields(end):
        if number == 1 and kind == VARINT:
            found.type = value
        elif number == 2 and kind == BYTES:
            dims = [_dimension(wire, inner) for one, k, inner in wire.fields(value) if one == 1 and k == BYTES]
            found.shape = tuple(dims)


def _dimension(wire: Wire, end: int) -> int | str | None:
    size: int | str | None = None
    for number, kind, value in wire.fields(end):
        if number == 1 and kind == VARINT:
            size = signed(value) if signed(value) > 0 else None
        elif number == 2 and kind == BYTES:
            size = wire.text(value) or None
    return size
