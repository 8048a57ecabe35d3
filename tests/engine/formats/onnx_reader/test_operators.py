"""Operators that the cases of the onnx package do not reach, and forms that exporters write."""

import logging

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from torch import nn

from tests.support.onnx_models import agree, answers, model, read, runtime
from worker.engine import formats
from worker.engine.errors import Unsupported
from worker.engine.targets.onnx_export import export_onnx

FLOAT = np.float32


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(FLOAT)


# -- resizing ----------------------------------------------------------------------------------------------------------

PLACES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


@given(
    mode=st.sampled_from(("nearest", "linear", "cubic")),
    place=st.sampled_from(PLACES),
    rounding=st.sampled_from(("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")),
    sizes=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    source=st.tuples(st.integers(2, 6), st.integers(2, 6)),
)
@settings(max_examples=60, deadline=None)
def test_resize_to_any_size(tmp_path_factory, mode, place, rounding, sizes, source):
    node = helper.make_node(
        "Resize",
        ["x", "", "", "sizes"],
        ["y"],
        mode=mode,
        coordinate_transformation_mode=place,
        nearest_mode=rounding,
    )
    constants = {"sizes": np.array([2, 3, *sizes], np.int64)}
    content = model([node], {"x": (FLOAT, [2, 3, *source])}, {"y": (FLOAT, 4)}, constants)
    network = read(content, tmp_path_factory.mktemp("resize"))
    x = random(2, 3, *source)
    got, want = answers(network, x)[0], runtime(content, x)[0]
    assert got.shape == want.shape
    # A coordinate that lies between two elements to the last bit may go to either.
    assert np.mean(np.abs(got - want) < 1e-4) > (0.7 if mode == "nearest" else 0.999)


# -- branches ----------------------------------------------------------------------------------------------------------


def branches(condition, nodes=(), taken="Relu", left="Neg"):
    def branch(name, op):
        inner = [helper.make_node(op, ["x"], ["inner"]), helper.make_node("Add", ["inner", "one"], [f"{name}_y"])]
        result = [helper.make_tensor_value_info(f"{name}_y", onnx.TensorProto.FLOAT, ["a", "b"])]
        return helper.make_graph(inner, name, [], result, [numpy_helper.from_array(np.ones(1, FLOAT), "one")])

    node = helper.make_node(
        "If", [condition], ["y"], then_branch=branch("then", taken), else_branch=branch("else", left)
    )
    return [*nodes, node]


def test_the_branch_of_a_constant_condition(tmp_path):
    for value in (True, False):
        content = model(branches("c"), {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, 2)}, {"c": np.array(value)})
        agree(content, tmp_path, random(4, 3))


def test_the_branch_that_a_size_decides(tmp_path):
    """The older exporter of PyTorch asks whether a dimension is 1 before it squeezes it."""
    ask = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "axis"], ["size"]),
        helper.make_node("Equal", ["size", "one"], ["c"]),
    ]
    constants = {"axis": np.array(1), "one": np.array(1)}
    agree(model(branches("c", ask), {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, 2)}, constants), tmp_path, random(4, 3))


def test_a_condition_from_data_is_refused(tmp_path):
    ask = [helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0), helper.make_node("Cast", ["m"], ["c"], to=9)]
    content = model(branches("c", ask), {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, 2)})
    with pytest.raises(Unsupported, match="If whose condition depends on data"):
        read(content, tmp_path)


def test_operators_of_the_branch_that_is_left_out_do_not_matter(tmp_path):
    for value in (True, False):
        content = model(branches("c", left="Det"), {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, 2)}, {"c": np.array(value)})
        if value:
            agree(content, tmp_path, random(4, 3))
        else:
            with pytest.raises(Unsupported, match="Det"):
                read(content, tmp_path)


# -- what ONNX Runtime's optimizer writes ------------------------------------------------------------------------------

FUSED = {
    "FusedMatMul": (["x", "w"], {"w": random(6, 4)}, {"transB": 0, "alpha": 0.5}),
    "Gelu": (["x"], {}, {}),
    "BiasGelu": (["x", "b"], {"b": random(6)}, {}),
    "FastGelu": (["x", "b"], {"b": random(6)}, {}),
    "QuickGelu": (["x"], {}, {"alpha": 1.5}),
    "SkipLayerNormalization": (
        ["x", "x", "w", "b", "c"],
        {"w": random(6), "b": random(6, seed=1), "c": random(6, seed=2)},
        {"epsilon": 1e-3},
    ),
    "SkipSimplifiedLayerNormalization": (["x", "x", "w"], {"w": random(6)}, {"epsilon": 1e-3}),
}


@pytest.mark.parametrize("op", list(FUSED))
def test_fused_operators(tmp_path, op):
    inputs, constants, attributes = FUSED[op]
    node = helper.make_node(op, inputs, ["y"], domain="com.microsoft", **attributes)
    content = model(
        [node], {"x": (FLOAT, ["n", 5, 6])}, {"y": (FLOAT, 3)}, constants, domains={"com.microsoft": 1}, opset=17
    )
    agree(content, tmp_path, random(2, 5, 6), atol=1e-4)


# -- precision ---------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
@pytest.mark.filterwarnings("ignore")
def test_weights_of_other_precision_become_float32(tmp_path, kind):
    """Inputs and outputs keep their type, so that what a user feeds stays the same; the file that is written, too."""
    torch.manual_seed(0)
    module = Small().eval().to(kind)
    x = torch.randn(2, 3, 8, 8, dtype=kind)
    logging.disable(logging.WARNING)
    torch.onnx.export(module, (x,), tmp_path / "m.onnx", dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    logging.disable(logging.NOTSET)
    network = formats.read(tmp_path / "m.onnx")
    name = str(kind).removeprefix("torch.")
    assert [spec.dtype for spec in (*network.inputs, *network.outputs)] == [name, name]
    assert {p.dtype for p in network.module.parameters()} == {torch.float32}
    assert any(name in note for note in network.notes)
    with torch.no_grad():
        got, want = network.module(x)[0], module(x)
    assert got.dtype == kind
    torch.testing.assert_close(got, want, atol=2e-3, rtol=1e-2)
    written = export_onnx(network, tmp_path / "again")
    np.testing.assert_allclose(runtime(written.path, x.numpy())[0], want.numpy(), atol=2e-3, rtol=1e-2)


def test_float32_models_are_left_as_they_are(tmp_path):
    content = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (FLOAT, ["n", 3])},
        {"y": (FLOAT, 2)},
        {"w": random(3, 2)},
    )
    assert read(content, tmp_path).notes == []


# -- others ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("op", ["Less", "Greater", "Max", "Min"])
def test_the_order_of_large_unsigned_integers(tmp_path, kind, op):
    """Beyond half of the range a signed integer of the same width would be negative."""
    top = np.iinfo(kind).max
    left, right = np.array([0, 1, top, top // 2], kind), np.array([top, 0, top - 1, top // 2 + 1], kind)
    result = kind if op in ("Max", "Min") else np.bool_
    node = helper.make_node(op, ["x", "z"], ["y"])
    content = model([node], {"x": (kind, [4]), "z": (kind, [4])}, {"y": (result, 1)})
    expected = {"Less": np.less, "Greater": np.greater, "Max": np.maximum, "Min": np.minimum}[op](left, right)
    np.testing.assert_array_equal(answers(read(content, tmp_path), left, right)[0], expected)


def test_attributes_of_old_opsets(tmp_path):
    """Clip and Upsample of opset 9 have their numbers as attributes."""
    nodes = [
        helper.make_node("Clip", ["x"], ["c"], min=-0.5, max=0.5),
        helper.make_node("Upsample", ["c", "s"], ["y"], mode="nearest"),
    ]
    constants = {"s": np.array([1, 1, 2, 3], FLOAT)}
    content = model(nodes, {"x": (FLOAT, [1, 2, 3, 4])}, {"y": (FLOAT, 4)}, constants, opset=9)
    agree(content, tmp_path, random(1, 2, 3, 4))
