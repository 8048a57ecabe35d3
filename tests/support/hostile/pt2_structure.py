"""``.pt2`` files whose JSON makes no sense, and weights that do not fit."""

import json
from collections.abc import Callable
from typing import Any

from tests.support.hostile.case import ACCEPTED, Group, Make
from tests.support.hostile.pt2_parts import CONFIG, MODEL, edited, holders, written

STRUCTURE = Group("pt2")
UNSAFE = "unsafe_format"
SCHEMA = "schema_invalid"
GRAPH = "graph_invalid"
WEIGHTS = "weights_invalid"
OPERATOR = "unsupported_operator"
INPUT = "unsupported_input"
VERSION = "schema_version_unsupported"
INCOMPLETE = "file_incomplete"
RUNS = "model_does_not_run"
ATTRIBUTE = "unsupported_attribute"


def sized(**fields: object) -> Make:
    """The first weight described in another way."""

    def change(document: Any, canary: str) -> None:
        meta = document["config"]["layer.weight"]["tensor_meta"]
        for key, value in fields.items():
            numbers = isinstance(value, (list, int)) and key != "dtype" and key != "layout"
            meta[key] = _as_ints(value) if numbers else value

    return edited(CONFIG, change)


def _as_ints(value: object) -> object:
    return [{"as_int": item} for item in value] if isinstance(value, list) else {"as_int": value}


_WEIGHTS = {
    "huge": {"sizes": [2**40, 16]},
    "overflow": {"sizes": [2**62, 2**62]},
    "wraps": {"sizes": [2**60, 16]},
    "huge-of-stride-0": {"sizes": [2**40, 16], "strides": [0, 0]},
    "zero-times-huge": {"sizes": [0, 2**62], "strides": [1, 1]},
    "negative": {"sizes": [-2, 16]},
    "negative-stride": {"strides": [-16, 1]},
    "stride-overflow": {"strides": [2**62, 2**62]},
    "offset": {"storage_offset": 1},
    "offset-negative": {"storage_offset": -1},
    "offset-huge": {"storage_offset": 2**62},
    "fewer-strides": {"strides": [1]},
    "rank-100": {"sizes": [1] * 100, "strides": [1] * 100},
    "dtype-wide": {"dtype": 8},
    "dtype-unknown": {"dtype": 999},
    "dtype-negative": {"dtype": -1},
    "layout-sparse": {"layout": 2},
    "beyond-64-bits": {"sizes": [2**70, 16]},
    "device": {"device": {"type": "cuda", "index": 99}},
    "device-odd": {"device": {"type": "../../dev/mem", "index": None}},
}
for _name, _fields in _WEIGHTS.items():
    STRUCTURE.model(
        f"weight-{_name}", sized(**_fields), WEIGHTS, INPUT, SCHEMA, *([ACCEPTED] if "device" in _name else [])
    )


def path_name(text: str, **fields: object) -> Make:
    """The first weight lies in another entry."""
    return edited(CONFIG, lambda document, canary: document["config"]["layer.weight"].update(path_name=text, **fields))


for _name, _path in {
    "up": "../../../etc/passwd",
    "weight-up": "weight_/../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "missing": "weight_9",
    "other": "weight_1",
    "nul": "weight_0\0",
    "folder": "weight_",
}.items():
    STRUCTURE.model(f"weight-path-{_name}", path_name(_path), UNSAFE, INCOMPLETE, WEIGHTS)
STRUCTURE.model("weight-pickled", path_name("weight_0", use_pickle=True), UNSAFE)
STRUCTURE.model("weight-pickled-as-text", path_name("weight_0", use_pickle="false"), UNSAFE, SCHEMA, ACCEPTED)


def nested(depth: int) -> Make:
    """Graphs inside of graphs."""

    def change(document: Any, canary: str) -> None:
        graph = document["graph_module"]["graph"]
        for _ in range(depth):
            argument = {"name": "", "arg": {"as_graph": {"name": "g", "graph": graph}}, "kind": 1}
            call = {
                "target": "torch.ops.higher_order.wrap_with_set_grad_enabled",
                "inputs": [argument],
                "outputs": [],
                "metadata": {},
            }
            graph = {**graph, "nodes": [call]}
        document["graph_module"]["graph"] = graph

    return edited(MODEL, change)


def doubled(count: int) -> Make:
    """A chain in which each node joins the value before with itself."""

    def change(document: Any, canary: str) -> None:
        graph = document["graph_module"]["graph"]
        last = graph["nodes"][-1]["outputs"][0]["as_tensor"]["name"]
        meta = graph["tensor_values"][last]
        for index in range(count):
            name = f"d{index}"
            joined = {"as_tensors": [{"name": last}, {"name": last}]}
            axis = {"as_int": 1}
            inputs = [{"name": "tensors", "arg": joined, "kind": 1}, {"name": "dim", "arg": axis, "kind": 1}]
            graph["nodes"].append(
                {
                    "target": "torch.ops.aten.cat.default",
                    "inputs": inputs,
                    "outputs": [{"as_tensor": {"name": name}}],
                    "metadata": {},
                }
            )
            graph["tensor_values"][name] = meta
            last = name
        graph["outputs"] = [{"as_tensor": {"name": last}}]
        outputs = document["graph_module"]["signature"]["output_specs"]
        outputs[0]["user_output"]["arg"] = {"as_tensor": {"name": last}}

    return edited(MODEL, change)


for _depth in (5, 60, 120):
    STRUCTURE.model(f"graphs-nested-{_depth}", nested(_depth), SCHEMA, GRAPH, OPERATOR)
STRUCTURE.model("sizes-that-double", doubled(50), GRAPH, RUNS, "out_of_memory")
_JSON = {
    "deep-lists": b"[" * 5_000_000,
    "deep-objects": b'{"a":' * 200_000,
    "not-json": b"graph!",
    "empty": b"",
    "null": b"null",
    "a-number": b"1",
    "a-list": b"[]",
    "nan": b'{"schema_version": NaN}',
    "huge-number": b'{"schema_version": 1e999999}',
    "digits": b'{"schema_version": {"major": ' + b"9" * 10_000 + b', "minor": 1}}',
    "not-utf8": b'{"a": "\xff"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "bom": b"\xef\xbb\xbf{}",
    "surrogate": b'{"schema_version": "\\ud800"}',
    "key-twice": b'{"schema_version": {"major": 8, "minor": 8}, "schema_version": {"major": 9, "minor": 0}}',
    "many-keys": json.dumps({f"k{i}": i for i in range(100_000)}).encode(),
    "empty-lists": b'{"graph_module": [' + b"[]," * 300_000 + b"[]]}",
}
for _name, _data in _JSON.items():
    STRUCTURE.model(f"json-{_name}", written(MODEL, _data), SCHEMA, VERSION)
    STRUCTURE.model(f"json-of-weights-{_name}", written(CONFIG, _data), SCHEMA)


def _graph(change: Callable[[Any], object]) -> Make:
    return edited(MODEL, lambda document, canary: change(document["graph_module"]["graph"]))


_GRAPHS = {
    "nodes-reversed": lambda g: g["nodes"].reverse(),
    "no-nodes": lambda g: g["nodes"].clear(),
    "no-outputs": lambda g: g["outputs"].clear(),
    "no-inputs": lambda g: g["inputs"].clear(),
    "nodes-twice": lambda g: g["nodes"].extend(list(g["nodes"])),
    "no-values": lambda g: g["tensor_values"].clear(),
    "unknown-field": lambda g: g.update(surprise=1),
    "outputs-many": lambda g: g["outputs"].extend(g["outputs"] * 100),
    "negative-sizes": lambda g: [h.update(as_int=-7) for h in holders(g, "as_int")],
    "largest-sizes": lambda g: [h.update(as_int=2**63 - 1) for h in holders(g, "as_int")],
    "beyond-64-bits": lambda g: [h.update(as_int=2**64) for h in holders(g, "as_int")],
    "floats-for-ints": lambda g: [h.update(as_int=1.5) for h in holders(g, "as_int")],
    "dtypes-unknown": lambda g: [h.update(dtype=77) for h in holders(g, "dtype")],
    "dtypes-swapped": lambda g: [h.update(dtype=12) for h in holders(g, "dtype")],
    "inputs-twice": lambda g: g["inputs"].append(g["inputs"][-1]),
}
for _name, _change in _GRAPHS.items():
    STRUCTURE.model(
        f"graph-{_name}", _graph(_change), GRAPH, SCHEMA, INPUT, RUNS, OPERATOR, ACCEPTED, ATTRIBUTE, WEIGHTS
    )
for _major, _minor in ((9, 0), (8, 10**6), (7, 3), (-1, 0), (2**80, 1), (8, -1)):
    STRUCTURE.model(
        f"version-{_major}.{_minor}",
        edited(MODEL, lambda d, c, v=(_major, _minor): d.update(schema_version={"major": v[0], "minor": v[1]})),
        VERSION,
        SCHEMA,
        *([ACCEPTED] if _minor < 0 else []),
    )
