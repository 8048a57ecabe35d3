"""Attributes and constants that make no sense end in a sentence, soon and without filling the memory."""

import contextlib

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.support.onnx_models import agree, answers, model, read, runtime
from worker.engine.errors import InvalidModel, Unsupported, UserError
from worker.engine.formats import codes
from worker.engine.formats.onnx_reader.operators import OPERATORS

FLOAT = np.float32
IMAGE = ["n", 4, 4, 4]


def one(op, shape=IMAGE, constants=None, inputs=None, kind=FLOAT, **attributes):
    names = ["x", *(constants or {})] if inputs is None else inputs
    node = helper.make_node(op, names, ["y"], **attributes)
    return model([node], {"x": (kind, shape)}, {"y": (FLOAT, len(shape))}, constants)


ZEROS = {
    "blocks": one("DepthToSpace", blocksize=0),
    "blocks of space": one("SpaceToDepth", blocksize=0),
    "strides": one("MaxPool", kernel_shape=[2, 2], strides=[0, 0]),
    "strides that fit": one("MaxPool", kernel_shape=[2, 2], strides=[0, 0], auto_pad="SAME_UPPER"),
    "strides and ceil": one("AveragePool", kernel_shape=[2, 2], strides=[0, 0], dilations=[2, 2], ceil_mode=1),
    "parts": one("Split", ["n", 4], num_outputs=0),
    "power": one("LpPool", kernel_shape=[2, 2], p=0),
    "groups": one("GroupNormalization", constants={"s": np.ones(2, FLOAT), "b": np.ones(2, FLOAT)}, num_groups=0),
    "scale": one("Resize", constants={"s": np.array([1, 1, 0, 0], FLOAT)}, inputs=["x", "", "s"], mode="cubic"),
    "split of a scalar": one("Split", [], num_outputs=1),
    "sum of a scalar": one("CumSum", [], {"axis": np.array(3)}),
    "norm of a scalar": one("LayerNormalization", [], {"s": np.ones((), FLOAT)}),
    "grid": one("GridSample", constants={"g": np.zeros((2, 2), FLOAT)}),
    "axis": one("Softmax", ["n", 4], axis=99),
    "axes": one("ReduceSum", ["n", 4], {"axes": np.array([7])}),
    "auto_pad": one("MaxPool", kernel_shape=[2, 2], auto_pad="WRONG"),
}


@pytest.mark.parametrize("content", ZEROS.values(), ids=ZEROS)
def test_settings_that_make_no_sense(tmp_path, content):
    with pytest.raises(UserError):
        read(content, tmp_path)


def zero(attribute):
    types = onnx.defs.OpSchema.AttrType
    values = {types.INT: 0, types.INTS: [0, 0], types.FLOAT: 0.0, types.FLOATS: [0.0], types.STRING: "x"}
    return values.get(attribute.type)


@pytest.mark.parametrize("op", sorted(name for name in OPERATORS if "." not in name))
def test_zero_in_every_attribute(tmp_path, op):
    """All at once, the required ones alone, and each optional one: read or refused, never a bare exception."""
    try:
        schema = onnx.defs.get_schema(op, 21)
    except onnx.defs.SchemaError:
        pytest.skip("of a later opset or another domain")
    zeros = {name: value for name, a in schema.attributes.items() if (value := zero(a)) is not None}
    required = {name: zeros[name] for name, a in schema.attributes.items() if a.required and name in zeros}
    constants = {f"c{i}": np.ones(1, FLOAT) for i in range(max(min(schema.max_input, 3) - 1, 0))}
    inputs = ["x", *constants] if schema.max_input else []
    for attributes in (zeros, required, *({**required, name: value} for name, value in zeros.items())):
        for shape in ([], ["n", 4], IMAGE):
            with contextlib.suppress(UserError):
                read(one(op, shape, constants, inputs, **attributes), tmp_path)


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
@pytest.mark.parametrize("scale", [1e7, 1e30, float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("place", ["half_pixel_symmetric", "asymmetric"])
def test_resizing_without_bound(tmp_path, scale, place):
    scales = {"s": np.array([1, 1, scale, scale], FLOAT)}
    content = one("Resize", IMAGE, scales, ["x", "", "s"], mode="linear", coordinate_transformation_mode=place)
    with pytest.raises(UserError):
        read(content, tmp_path)


def test_resizing_of_an_endless_axis(tmp_path):
    scales = {"s": np.array([1, 1, 2e-10, 1], FLOAT)}
    content = one("Resize", ["n", 1, 10**10, 1], scales, ["x", "", "s"], mode="linear", antialias=1)
    with pytest.raises(Unsupported, match="elements along an axis"):
        read(content, tmp_path)


def too_large(content, folder):
    with pytest.raises(InvalidModel) as caught:
        read(content, folder)
    assert caught.value.code == codes.ARCHIVE_TOO_LARGE


@pytest.mark.timeout(60)
def test_indices_and_masks_without_bound(tmp_path):
    back = {"a": np.array([-1]), "b": np.array([-(2**40)]), "axis": np.array([1]), "step": np.array([-2])}
    too_large(one("Slice", ["n", 2**32], back), tmp_path)
    too_large(one("EyeLike", [2**20, 2**20]), tmp_path)
    classes = {"depth": np.array(2**40), "v": np.array([0, 1], FLOAT)}
    too_large(one("OneHot", ["n"], classes, kind=np.int64), tmp_path)


@pytest.mark.parametrize(("start", "end", "step"), [(5, -10, -2), (3, 0, -1), (100, -100, -3), (0, 3, -1)])
def test_slices_backwards(tmp_path, start, end, step):
    bounds = {"s": np.array([start]), "e": np.array([end]), "a": np.array([-1]), "t": np.array([step])}
    content = one("Slice", ["n", 7], bounds)
    x = np.arange(14, dtype=FLOAT).reshape(2, 7)
    agree(content, tmp_path, x)


def test_an_output_of_one_element(tmp_path):
    """PyTorch's half pixels put a single element at the first of the input."""
    scales = {"s": np.array([1, 1, 3, 0.6], FLOAT)}
    place = "pytorch_half_pixel"
    content = one("Resize", [2, 2, 3, 3], scales, ["x", "", "s"], mode="linear", coordinate_transformation_mode=place)
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(FLOAT)
    np.testing.assert_allclose(answers(read(content, tmp_path), x)[0], runtime(content, x)[0], atol=1e-5)
