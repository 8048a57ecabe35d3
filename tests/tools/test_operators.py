"""The page and the client's table are what the readers say today."""

import json

import pytest
from torch import nn

from tools import operators
from worker.engine.formats import aten
from worker.engine.formats.layers import RULES
from worker.engine.formats.onnx_reader.file import MIN_OPSET
from worker.engine.formats.onnx_reader.operators import OPERATORS
from worker.engine.formats.transformers_reader.architectures import ARCHITECTURES, HEADS


@pytest.mark.parametrize("path", operators.contents(), ids=lambda path: path.name)
def test_the_files_are_up_to_date(path):
    assert path.read_text("utf-8") == operators.contents()[path], "run `make operators` and commit what it writes"


def test_every_operator_is_on_the_page():
    text = operators.page()
    assert all(f"`{operators.domain_of(name)[1]}`" in text for name in OPERATORS)
    assert all(f"`{name}`" in text for name in aten.ALLOWED | aten.ASSERTIONS | aten.SYMBOLIC.keys())


def test_layers_are_told_from_the_code():
    assert operators.layers_of(OPERATORS["Conv"]) == ["Conv1d", "Conv2d", "Conv3d"]
    assert operators.layers_of(OPERATORS["Gemm"]) == ["Linear"]
    assert operators.layers_of(OPERATORS["Relu"]) == []
    assert operators.layers_of(RULES["convolution"].build)[-1] == "ConvTranspose3d"
    assert all(hasattr(nn, name) for one in OPERATORS.values() for name in operators.layers_of(one))


def test_opsets():
    ranges = operators.opsets()
    assert ranges["Conv"] == (MIN_OPSET, operators.newest_opset())
    assert ranges["Gelu"][0] == 20
    assert ranges["GroupNormalization"] == (18, operators.newest_opset())


def test_the_table_agrees_with_the_reader():
    table = json.loads(operators.TABLE.read_text("utf-8"))["pt2"]
    for target in (
        "aten.relu.default",
        "aten.relu_.default",
        "aten.add.Tensor",
        "aten.add.out",
        "aten.from_file.default",
    ):
        _, name, overload = target.split(".")
        assert (overload in table["aten"].get(name, "").split()) == (aten.resolve(f"torch.ops.{target}") is not None)


def test_architectures_are_listed():
    assert all(f"`{name}`" in operators.page() for name in (*ARCHITECTURES, *HEADS))
