"""Graphs of ONNX models that never end, names that are code, and files that make no sense."""

import onnx
from onnx import helper

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, FULL
from tests.support.hostile.onnx_parts import (
    ONNX,
    chain,
    changed,
    deep,
    doubling,
    field,
    functions,
    named_input,
    node,
    of,
    recursive_type,
    with_weight,
)

GRAPH = "graph_invalid"
LARGE = "archive_too_large"
DAMAGED = "file_damaged"
OPERATOR = "unsupported_operator"
INPUT = "unsupported_input"
RUNS = "model_does_not_run"
ATTRIBUTE = "unsupported_attribute"
VERSION = "schema_version_unsupported"
UNKNOWN = "unknown_format"


def _cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "y"


def _self_loop(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "z"


ONNX.model("cycle", changed(_cycle), GRAPH)
ONNX.model("node-that-feeds-itself", changed(_self_loop), GRAPH)
ONNX.model("a-value-twice", changed(lambda m: m.graph.node[1].output.__setitem__(0, "h")), GRAPH)
ONNX.model("a-weight-twice", with_weight(good.weight(), good.weight()), GRAPH)
ONNX.model("an-input-twice", changed(lambda m: m.graph.input.append(m.graph.input[0])), GRAPH)
ONNX.model("an-output-twice", changed(lambda m: m.graph.output.append(m.graph.output[0])), GRAPH, ACCEPTED)
ONNX.model("output-of-nothing", changed(lambda m: setattr(m.graph.output[0], "name", "nothing")), GRAPH)
ONNX.model("output-is-the-input", changed(lambda m: setattr(m.graph.output[0], "name", "x")), ACCEPTED, GRAPH)
ONNX.model("output-is-a-weight", changed(lambda m: setattr(m.graph.output[0], "name", "w")), ACCEPTED, GRAPH)
ONNX.model("empty-names", changed(lambda m: m.graph.node[0].output.__setitem__(0, "")), GRAPH)
ONNX.model("no-nodes", changed(lambda m: m.graph.ClearField("node")), GRAPH)
ONNX.model("no-inputs", changed(lambda m: m.graph.ClearField("input")), GRAPH)
ONNX.model(
    "code-in-names",
    changed(lambda m: [setattr(n, "name", f"x): import os  # canary {i}") for i, n in enumerate(m.graph.node)]),
    ACCEPTED,
)
ONNX.model(
    "code-in-values",
    lambda c: good.onnx_file().replace(b"\x12\x01h", b"\x12\x01(").replace(b"\x0a\x01h", b"\x0a\x01("),
    ACCEPTED,
)
ONNX.model("code-in-symbols", of([node("Relu")], shape=["__import__('os')", 4]), ACCEPTED)
ONNX.model("dunder-values", of([node("Relu", "x", "__class__"), node("Relu", "__class__", "y")]), ACCEPTED)
ONNX.model(
    "keyword-values",
    of([node("Relu", "x", "import"), node("Relu", "import", "self"), node("Relu", "self", "y")]),
    ACCEPTED,
)
ONNX.model("weight-named-like-a-method", of([node("MatMul", "x forward", "y")], [good.weight("forward")]), ACCEPTED)
ONNX.model("weight-named-by-dots", of([node("MatMul", "x ../../a..b", "y")], [good.weight("../../a..b")]), ACCEPTED)
ONNX.model(
    "not-utf8-names",
    lambda c: good.onnx_file().replace(b"\x12\x01h", b"\x12\x01\xff").replace(b"\x0a\x01h", b"\x0a\x01\xff"),
    ACCEPTED,
)
for _name, _input in {
    "nul": b"a\0b",
    "not-utf8": b"\xff\xfe",
    "newline": b"a\nb",
    "code": b"x): import os #",
    "megabytes": b"x" * 9_000_000,
}.items():
    ONNX.model(
        f"input-named-{_name}",
        lambda c, n=_input: named_input(n),
        {"megabytes": LARGE, "not-utf8": GRAPH}.get(_name, ACCEPTED),
    )
ONNX.model("custom-domain", of([helper.make_node("Magic", ["x"], ["y"], domain="evil")], domains=["evil"]), OPERATOR)
ONNX.model(
    "python-domain",
    of(
        [helper.make_node("PyOp", ["x"], ["y"], domain="ai.onnx.contrib", func="os.system")],
        domains=["ai.onnx.contrib"],
    ),
    OPERATOR,
)
ONNX.model(
    "aten-domain",
    of(
        [helper.make_node("ATen", ["x"], ["y"], domain="org.pytorch.aten", operator="load_library")],
        domains=["org.pytorch.aten"],
    ),
    OPERATOR,
)
ONNX.model("undeclared-domain", of([helper.make_node("Magic", ["x"], ["y"], domain="evil")]), OPERATOR, GRAPH)
ONNX.model("many-nodes", chain(500), ACCEPTED)
ONNX.model("too-many-nodes", chain(200_100), LARGE)
ONNX.model("doubling-sizes", doubling(60), GRAPH, RUNS, ACCEPTED)
ONNX.model("deep-subgraphs", lambda c: deep(40), DAMAGED, GRAPH, OPERATOR)
ONNX.model("deeper-subgraphs", lambda c: deep(3000), DAMAGED, UNKNOWN)
ONNX.model("deep-types", lambda c: recursive_type(2000), DAMAGED)
ONNX.model("function-of-itself", functions(("f", ["f"])), GRAPH)
ONNX.model("functions-in-a-circle", functions(("f", ["g"]), ("g", ["h"]), ("h", ["f"])), GRAPH)
ONNX.model(
    "functions-that-double", functions(*((f"f{i}", [f"f{i + 1}"] * 2) for i in range(40)), ("f40", ["Relu"])), LARGE
)
ONNX.model(
    "functions-in-a-chain", functions(*((f"f{i}", [f"f{i + 1}"]) for i in range(200)), ("f200", ["Relu"])), GRAPH
)
ONNX.model("function-named-as-an-operator", functions(("relu", ["Relu"])), ACCEPTED)
_SHAPES = {
    "huge": [2**40, 4],
    "overflow": [2**33, 2**33],
    "largest": [2**63 - 1, 4],
    "zero": ["n", 0],
    "negative": [-1, 4],
    "rank-20": ["n", *[1] * 20],
    "rank-0": [],
    "no-batch": [4],
    "wide": ["n", 2**31],
}
for _name, _shape in _SHAPES.items():
    ONNX.model(f"input-{_name}", of([node("Relu")], shape=_shape), GRAPH, RUNS, INPUT, ACCEPTED, FULL)

ONNX.model("opset-negative", changed(lambda m: setattr(m.opset_import[0], "version", -1)), VERSION)
ONNX.model("opset-largest", changed(lambda m: setattr(m.opset_import[0], "version", 2**63 - 1)), VERSION)
ONNX.model(
    "opset-twice",
    changed(lambda m: m.opset_import.append(helper.make_opsetid("", 9))),
    ACCEPTED,
    GRAPH,
    OPERATOR,
    ATTRIBUTE,
)
ONNX.model("ir-version-largest", changed(lambda m: setattr(m, "ir_version", 2**62)), GRAPH)
ONNX.model("training-info", changed(lambda m: m.training_info.add().initialization.CopyFrom(m.graph)), ACCEPTED, GRAPH)
ONNX.model(
    "metadata-huge", changed(lambda m: m.metadata_props.add(key="k" * 1_000_000, value="v" * 4_000_000)), ACCEPTED
)
ONNX.model("unknown-fields", lambda c: good.onnx_file() + field(999, b"x" * 100), UNKNOWN, ACCEPTED)
ONNX.model("endless-varint", lambda c: b"\x08" + b"\xff" * 60, UNKNOWN)
ONNX.model("length-beyond", lambda c: b"\x08\x09\x3a\xff\xff\xff\xff\x0f" + b"x", DAMAGED, UNKNOWN)
ONNX.model("two-graphs", lambda c: good.onnx_file() + good.onnx_file(), GRAPH, ACCEPTED)
