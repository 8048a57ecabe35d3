"""What depends on a size that can vary is right for every size, or refused."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.support.onnx_models import agree, answers, model, read, runtime
from worker.engine.errors import Unsupported

FLOAT = np.float32
LENGTHS = (1, 4, 7, 30)


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(FLOAT)


def right_for_every_length(content, folder, *more):
    network = read(content, folder)
    for length in LENGTHS:
        arrays = (random(2, length, *more),)
        for got, want in zip(answers(network, *arrays), runtime(content, *arrays), strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-4)


def plus(nodes, constants):
    """`x` and the number `q`, which the nodes compute from the second size of `x`."""
    around = [
        helper.make_node("Shape", ["x"], ["size"], start=1, end=2),
        *nodes,
        helper.make_node("Cast", ["q"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "number"], ["y"]),
    ]
    numbers = {name: np.array([value]) for name, value in constants.items()}
    return model(around, {"x": (FLOAT, ["n", "t"])}, {"y": (FLOAT, 2)}, numbers)


@pytest.mark.parametrize(("start", "end"), [(0, 10), (0, 1), (2, 9), (-3, 2**31)])
def test_a_slice_is_no_longer_than_its_axis(tmp_path, start, end):
    """Both long sizes that are tried have ten steps to give; a sequence of four has four."""
    nodes = [
        helper.make_node("Slice", ["x", "start", "end", "axis"], ["part"]),
        helper.make_node("Shape", ["part"], ["size"], start=1, end=2),
        helper.make_node("Cast", ["size"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["part", "axis"], ["total"], keepdims=0),
        helper.make_node("Add", ["total", "number"], ["y"]),
    ]
    constants = {"start": np.array([start]), "end": np.array([end]), "axis": np.array([1])}
    content = model(nodes, {"x": (FLOAT, ["n", "t", 3])}, {"y": (FLOAT, 2)}, constants)
    right_for_every_length(content, tmp_path, 3)


@pytest.mark.parametrize("op", ["Min", "Max"])
def test_the_smaller_of_a_size_and_a_number(tmp_path, op):
    right_for_every_length(plus([helper.make_node(op, ["size", "ten"], ["q"])], {"ten": 10}), tmp_path)


@pytest.mark.parametrize(("op", "fmod"), [("Div", None), ("Mod", 0), ("Mod", 1)])
@pytest.mark.parametrize("divisor", [2, 3, -3])
def test_negative_sizes_divide_as_onnx_says(tmp_path, op, fmod, divisor):
    attributes = {} if fmod is None else {"fmod": fmod}
    nodes = [
        helper.make_node("Sub", ["five", "size"], ["left"]),
        helper.make_node(op, ["left", "divisor"], ["q"], **attributes),
    ]
    right_for_every_length(plus(nodes, {"five": 5, "divisor": divisor}), tmp_path)


def test_a_divided_difference_is_a_size(tmp_path):
    nodes = [
        helper.make_node("Shape", ["x"], ["size"], start=1, end=2),
        helper.make_node("Sub", ["size", "ten"], ["left"]),
        helper.make_node("Div", ["left", "two"], ["half"]),
        helper.make_node("Add", ["half", "ten"], ["length"]),
        helper.make_node("Expand", ["one", "length"], ["y"]),
    ]
    constants = {"ten": np.array([10]), "two": np.array([2]), "one": np.ones(1, FLOAT)}
    right_for_every_length(model(nodes, {"x": (FLOAT, ["n", "t"])}, {"y": (FLOAT, 1)}, constants), tmp_path)


@pytest.mark.parametrize("number", [-1, 1, 7])
def test_a_size_compared_with_a_number(tmp_path, number):
    right_for_every_length(plus([helper.make_node("Equal", ["size", "k"], ["q"])], {"k": number}), tmp_path)


def test_a_difference_of_sizes_may_be_negative(tmp_path):
    nodes = [helper.make_node("Sub", ["size", "k"], ["left"]), helper.make_node("Equal", ["left", "minus"], ["q"])]
    right_for_every_length(plus(nodes, {"k": 5, "minus": -1}), tmp_path)


@pytest.mark.parametrize("other", [7, 8])
def test_two_sizes_compared(tmp_path, other):
    nodes = [
        helper.make_node("Shape", ["x"], ["a"], start=1),
        helper.make_node("Shape", ["z"], ["b"], start=1),
        helper.make_node("Equal", ["a", "b"], ["q"]),
        helper.make_node("Cast", ["q"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "number"], ["y"]),
    ]
    content = model(nodes, {"x": (FLOAT, ["n", "t"]), "z": (FLOAT, ["n", "u"])}, {"y": (FLOAT, 2)})
    agree(content, tmp_path, random(2, 7), random(2, other))


def test_a_branch_that_a_varying_size_decides_is_refused(tmp_path):
    def branch(op):
        result = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
        return helper.make_graph([helper.make_node(op, ["x"], ["r"])], op, [], result)

    nodes = [
        helper.make_node("Shape", ["x"], ["size"], start=1),
        helper.make_node("Equal", ["size", "one"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch("Identity"), else_branch=branch("Neg")),
    ]
    content = model(nodes, {"x": (FLOAT, ["n", "t"])}, {"y": (FLOAT, 2)}, {"one": np.array([1])})
    with pytest.raises(Unsupported, match="a size that can vary"):
        read(content, tmp_path)
