"""Operators of ONNX with settings that would fill memory, or that make no sense."""

import math

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, FULL
from tests.support.hostile.onnx_parts import ONNX, node, numbers, of

WEIGHTS = "weights_invalid"
GRAPH = "graph_invalid"
LARGE = "archive_too_large"
OPERATOR = "unsupported_operator"
INPUT = "unsupported_input"
RUNS = "model_does_not_run"
ATTRIBUTE = "unsupported_attribute"

_MEMORY = {
    "constant-of-shape": of(
        [node("ConstantOfShape", "s", "h"), node("Add", "x h", "y")], [numbers("s", [2**20, 2**20, 4])]
    ),
    "expand": of([node("Expand", "x s", "y")], [numbers("s", [2**40, 1, 4])]),
    "tile": of([node("Tile", "x s", "y")], [numbers("s", [1, 2**40])]),
    "range": of(
        [node("Range", "a b c", "h"), node("Add", "x h", "y")], [numbers("a", 0), numbers("b", 2**40), numbers("c", 1)]
    ),
    "one-hot": of(
        [node("OneHot", "i d v", "h"), node("Add", "x h", "y")],
        [numbers("i", [1]), numbers("d", 2**40), numbers("v", [0, 1], np.float32)],
    ),
    "pad": of([node("Pad", "x p", "y")], [numbers("p", [0, 2**40, 0, 2**40])]),
    "resize": of([node("Resize", "x  s", "y")], [numbers("s", [1e9, 1e9], np.float32)]),
    "eye-like": of(
        [node("ConstantOfShape", "s", "h"), node("EyeLike", "h", "e"), node("Add", "x e", "y")],
        [numbers("s", [2**20, 2**20])],
    ),
    "conv-pads": of([node("Conv", "x w", "y", pads=[2**31] * 4)], [good.weight("w", (1, 1, 1, 1))], ["n", 1, 4, 4]),
    "pool-kernel": of([node("MaxPool", "x", "y", kernel_shape=[2**31, 2**31])], None, ["n", 1, 4, 4]),
    "depth-to-space": of([node("DepthToSpace", "x", "y", blocksize=2**31)], None, ["n", 4, 4, 4]),
    "hann-window": of([node("HannWindow", "s", "h"), node("Add", "x h", "y")], [numbers("s", 2**40)]),
    "split": of([node("Split", "x", " ".join(["y", *(f"v{i}" for i in range(3000))]), num_outputs=3001)]),
    "lstm-size": of(
        [node("LSTM", "x w r", "y", hidden_size=2**40)],
        [good.weight("w", (1, 4, 4)), good.weight("r", (1, 4, 1))],
        [1, "n", 4],
    ),
}
for _name, _make in _MEMORY.items():
    ONNX.model(f"memory-{_name}", _make, GRAPH, RUNS, OPERATOR, ATTRIBUTE, WEIGHTS, LARGE, ACCEPTED, FULL)
_WRONG = {
    "reshape-negative": of([node("Reshape", "x s", "y")], [numbers("s", [-1, -1])]),
    "reshape-huge": of([node("Reshape", "x s", "y")], [numbers("s", [2**62, -1])]),
    "gather-beyond": of([node("Gather", "x i", "y", axis=1)], [numbers("i", [2**40])]),
    "slice-of-extremes": of(
        [node("Slice", "x a b c d", "y")],
        [numbers("a", [-(2**63)]), numbers("b", [2**63 - 1]), numbers("c", [1]), numbers("d", [-(2**63)])],
    ),
    "slice-step-zero": of(
        [node("Slice", "x a b c d", "y")], [numbers("a", [0]), numbers("b", [4]), numbers("c", [1]), numbers("d", [0])]
    ),
    "divide-by-zero": of([node("Div", "a b", "h"), node("Add", "x h", "y")], [numbers("a", [1]), numbers("b", [0])]),
    "transpose-twice": of([node("Transpose", "x", "y", perm=[0, 0])]),
    "transpose-far": of([node("Transpose", "x", "y", perm=[7, 9])]),
    "axis-far": of([node("Softmax", "x", "y", axis=2**40)]),
    "axis-not-a-number": of([node("Softmax", "x", "y", axis="one")]),
    "conv-group-zero": of([node("Conv", "x w", "y", group=0)], [good.weight("w", (1, 1, 1, 1))], ["n", 1, 4, 4]),
    "conv-stride-zero": of(
        [node("Conv", "x w", "y", strides=[0, 0])], [good.weight("w", (1, 1, 1, 1))], ["n", 1, 4, 4]
    ),
    "conv-negative-pads": of(
        [node("Conv", "x w", "y", pads=[-9] * 4)], [good.weight("w", (1, 1, 1, 1))], ["n", 1, 4, 4]
    ),
    "conv-dilation-huge": of(
        [node("Conv", "x w", "y", dilations=[2**62] * 2)], [good.weight("w", (1, 1, 3, 3))], ["n", 1, 9, 9]
    ),
    "einsum-code": of([node("Einsum", "x x", "y", equation="__import__('os').system('canary')")]),
    "einsum-letters": of([node("Einsum", "x x", "y", equation="ab,cd->abcdefghijkl")]),
    "cast-to-nothing": of([node("Cast", "x", "y", to=12345)]),
    "weight-as-text": of([node("MatMul", "x w", "y")], [numpy_helper.from_array(np.array(["a"] * 4, object), "w")]),
    "no-arguments": of([node("Relu", "", "y")]),
    "hundred-arguments": of([node("Relu", " ".join(["x"] * 100), "y")]),
    "loop": of([node("Loop", "", "y", body=helper.make_graph([], "b", [], []))]),
    "if-on-data": of(
        [
            node("Cast", "x", "c", to=9),
            node(
                "If",
                "c",
                "y",
                then_branch=helper.make_graph([], "b", [], []),
                else_branch=helper.make_graph([], "b", [], []),
            ),
        ]
    ),
    "quantized-scale-zero": of(
        [node("QuantizeLinear", "x s", "h"), node("DequantizeLinear", "h s", "y")], [numbers("s", 0.0, np.float32)]
    ),
    "quantized-scale-nan": of(
        [node("QuantizeLinear", "x s", "h"), node("DequantizeLinear", "h s", "y")], [numbers("s", math.nan, np.float32)]
    ),
    "input-of-strings": of([node("Identity")], kind=TensorProto.STRING),
    "input-of-complex": of([node("Identity")], kind=TensorProto.COMPLEX64),
}
for _name, _make in _WRONG.items():
    ONNX.model(f"wrong-{_name}", _make, GRAPH, RUNS, OPERATOR, ATTRIBUTE, INPUT, WEIGHTS, ACCEPTED)
