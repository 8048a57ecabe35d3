"""int8 models as input: their weights become float layers, their rounding stays."""

import logging

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnxruntime import quantization
from torch import nn

from tests.support.onnx_models import agree, answers, model, read, runtime
from worker.engine.errors import Unsupported
from worker.engine.formats.lift import quiet_export


class Samples(quantization.CalibrationDataReader):
    def __init__(self, arrays):
        self.left = iter([{"x": array} for array in arrays])

    def get_next(self):
        return next(self.left, None)


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    folder = tmp_path_factory.mktemp("quantized")
    logging.disable(logging.WARNING)
    torch.onnx.export(
        body.eval(), (torch.randn(2, 3, 8, 8),), folder / "f.onnx", dynamo=False, input_names=["x"], opset_version=17
    )
    logging.disable(logging.NOTSET)
    return folder / "f.onnx", [torch.randn(2, 3, 8, 8).numpy() for _ in range(4)]


@pytest.mark.parametrize("form", list(quantization.QuantFormat), ids=lambda form: form.name)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_statically_quantized(tmp_path, floats, form, per_channel):
    """ONNX Runtime rounds in another order here and there: a step of the last grid is allowed."""
    path, arrays = floats
    logging.disable(logging.WARNING)
    quantization.quantize_static(
        str(path), str(tmp_path / "q.onnx"), Samples(arrays), quant_format=form, per_channel=per_channel
    )
    logging.disable(logging.NOTSET)
    content = onnx.load(tmp_path / "q.onnx")
    network = read(content, tmp_path)
    got, want = answers(network, arrays[0])[0], runtime(content, arrays[0])[0]
    np.testing.assert_allclose(got, want, atol=0.02 * np.ptp(want))
    kinds = [type(layer) for layer in network.module.modules()]
    assert nn.Conv2d in kinds
    assert nn.Linear in kinds
    x = torch.from_numpy(arrays[0])
    again = quiet_export(network.module, (x,), None).module()
    torch.testing.assert_close(again(x), network.module(x))


@pytest.mark.filterwarnings("ignore")
def test_dynamically_quantized(tmp_path, floats):
    path, arrays = floats
    logging.disable(logging.WARNING)
    quantization.quantize_dynamic(str(path), str(tmp_path / "q.onnx"))
    logging.disable(logging.NOTSET)
    content = onnx.load(tmp_path / "q.onnx")
    network = read(content, tmp_path)
    want = runtime(content, arrays[0])[0]
    np.testing.assert_allclose(answers(network, arrays[0])[0], want, atol=0.02 * np.ptp(want))
    assert any(isinstance(layer, nn.Linear) for layer in network.module.modules())


@given(
    values=st.lists(st.floats(-50, 50, width=32), min_size=4, max_size=4),
    exponent=st.integers(-6, 3),
    zero=st.integers(0, 255),
)
@settings(max_examples=40, deadline=None)
def test_quantize_rounds_like_the_runtime(tmp_path_factory, values, exponent, zero):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    constants = {"s": np.array(2.0**exponent, np.float32), "z": np.array(zero, np.uint8)}
    content = model(nodes, {"x": (np.float32, [4])}, {"q": (np.uint8, 1), "y": (np.float32, 1)}, constants)
    agree(content, tmp_path_factory.mktemp("q"), np.array(values, np.float32), atol=0)


def test_weights_of_4_bits_in_blocks_become_a_layer(tmp_path):
    generator = np.random.default_rng(0)
    packed = helper.make_tensor("w", onnx.TensorProto.INT4, [8, 4], generator.integers(-8, 8, 32).tolist())
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["f"], axis=0, block_size=4),
        helper.make_node("MatMul", ["x", "f"], ["y"]),
    ]
    scales = generator.uniform(0.1, 1, (2, 4)).astype(np.float32)
    content = model(nodes, {"x": (np.float32, ["n", 8])}, {"y": (np.float32, 2)}, {"s": scales})
    content.graph.initializer.append(packed)
    network = agree(content, tmp_path, generator.standard_normal((3, 8)).astype(np.float32))
    assert any(isinstance(layer, nn.Linear) for layer in network.module.modules())


def test_4_bits_as_result_are_refused_by_name(tmp_path):
    zero = helper.make_tensor("z", onnx.TensorProto.INT4, [], [0])
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    content = model([node], {"x": (np.float32, [4])}, {"q": (np.int8, 1)}, {"s": np.array(1, np.float32)})
    content.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT4
    content.graph.initializer.append(zero)
    with pytest.raises(Unsupported, match="4 bits"):
        read(content, tmp_path)
