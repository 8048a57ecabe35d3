"""Weights of ONNX models: in files outside of the archive, and of sizes that do not fit."""

import math
import struct

import numpy as np
from onnx import TensorProto

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED
from tests.support.hostile.onnx_parts import ONNX, changed, external, located, tensor, with_weight

EXTERNAL = "external_data_refused"
INCOMPLETE = "file_incomplete"
WEIGHTS = "weights_invalid"
GRAPH = "graph_invalid"
INPUT = "unsupported_input"
RUNS = "model_does_not_run"

_FOUR = np.ones((4, 4), np.float32).tobytes()
_OUTSIDE = {
    "up": "../w.data",
    "up-far": "../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "root": "/",
    "dot": ".",
    "empty": "",
    "proc": "/proc/self/environ",
    "backslash": "..\\..\\w.data",
    "through": "a/../../w.data",
    "nul": "w.data\0.txt",
    "url": "file:///etc/passwd",
    "http": "http://127.0.0.1/w",
    "itself": "m.onnx",
    "twice-down": "./x/../w.data",
    "long": "a/" * 50_000 + "w",
    "device": "/dev/zero",
}
for _name, _location in _OUTSIDE.items():
    _said = {"itself": (WEIGHTS, ACCEPTED), "twice-down": (ACCEPTED,)}.get(_name, (EXTERNAL, INCOMPLETE))
    ONNX.model(f"external-{_name}", external({"location": _location}), *_said)
    ONNX.model(
        f"external-{_name}-alone",
        lambda c, at=_location: good.external_model(location=at).SerializeToString(),
        EXTERNAL,
    )
_WHERE = {
    "offset-huge": {"offset": "9" * 40},
    "offset-negative": {"offset": "-4"},
    "offset-word": {"offset": "x"},
    "offset-digits": {"offset": "1" * 5000},
    "offset-exotic": {"offset": "٣"},
    "offset-underscore": {"offset": "1_0"},
    "offset-float": {"offset": "1e9"},
    "offset-at-end": {"offset": "64", "length": "0"},
    "length-huge": {"length": str(2**63)},
    "length-negative": {"length": "-64"},
    "length-short": {"length": "60"},
    "length-zero": {"length": "0"},
    "offset-wraps": {"offset": str(2**64 - 32), "length": "64"},
}
for _name, _where in _WHERE.items():
    ONNX.model(f"external-{_name}", external(_where), WEIGHTS)
ONNX.model("external-keys-twice", located("location", "../../etc/passwd"), EXTERNAL)
ONNX.model("external-odd-keys", located("basepath", "/etc", "checksum", "x" * 1000), ACCEPTED)
ONNX.model("external-and-raw", with_weight(tensor(raw_data=_FOUR, data_location=1)), EXTERNAL)
ONNX.model(
    "external-overlapping",
    lambda c: good.zip_of({"m.onnx": _both_at_zero(), "w.data": bytes(range(64))}),
    ACCEPTED,
    WEIGHTS,
)


def _both_at_zero() -> bytes:
    model = good.external_model()
    bias = model.graph.initializer[1]
    bias.ClearField("raw_data")
    bias.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.data"), ("offset", "2"), ("length", "16")):
        bias.external_data.add(key=key, value=value)
    return model.SerializeToString()


_DIMS = {
    "huge": [2**40],
    "overflow": [2**33, 2**33],
    "wraps-to-16": [2**62, 4],
    "negative": [-4, -4],
    "zero-times-huge": [0, 2**62],
    "rank": [1] * 40,
    "largest": [2**63 - 1],
}
for _name, _dims in _DIMS.items():
    ONNX.model(f"weight-{_name}", with_weight(tensor(dims=_dims, raw_data=_FOUR)), WEIGHTS, GRAPH)
    ONNX.model(f"large-weight-{_name}", with_weight(tensor(dims=_dims, raw_data=bytes(80_000))), WEIGHTS, GRAPH)
ONNX.model("weight-too-short", with_weight(tensor(raw_data=_FOUR[:-4])), WEIGHTS, GRAPH)
ONNX.model("weight-too-long", with_weight(tensor(raw_data=_FOUR * 2)), WEIGHTS, GRAPH)
ONNX.model("weight-without-data", with_weight(tensor()), WEIGHTS, GRAPH)
ONNX.model("weight-of-two-fields", with_weight(tensor(raw_data=_FOUR, float_data=[1.0] * 16)), WEIGHTS, GRAPH)
ONNX.model("weight-of-the-wrong-field", with_weight(tensor(int32_data=[1] * 16)), WEIGHTS, GRAPH)
ONNX.model("weight-of-no-type", with_weight(tensor(raw_data=_FOUR, data_type=0)), INPUT, GRAPH)
ONNX.model("weight-of-type-999", with_weight(tensor(raw_data=_FOUR, data_type=999)), INPUT, GRAPH)
ONNX.model("weight-of-strings", with_weight(tensor(string_data=[b"x"] * 16, data_type=8)), INPUT)
ONNX.model("weight-of-nan", with_weight(tensor(raw_data=struct.pack("<16f", *[math.nan] * 16))), WEIGHTS)
ONNX.model(
    "weight-of-infinity", with_weight(tensor(raw_data=struct.pack("<16f", *[math.inf] * 16))), ACCEPTED, WEIGHTS, RUNS
)
ONNX.model(
    "weight-in-segments",
    changed(lambda m: setattr(m.graph.initializer[0].segment, "end", 2**62)),
    ACCEPTED,
    WEIGHTS,
    GRAPH,
)
