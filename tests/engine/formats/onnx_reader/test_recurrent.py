"""LSTM, GRU and RNN become torch's layers; ONNX Runtime gives the same."""

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

from tests.support.onnx_models import agree, model, read
from worker.engine import formats
from worker.engine.errors import Unsupported
from worker.engine.formats.lift import quiet_export

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
TIME, BATCH, FEATURES, HIDDEN = 5, 3, 4, 6


def recurrent(op, direction="forward", initial=False, bias=True, **attributes):
    generator = np.random.default_rng(0)
    directions, gates = (2 if direction == "bidirectional" else 1), GATES[op]

    def random(*shape):
        return generator.standard_normal(shape).astype(np.float32) * 0.5

    constants = {
        "w": random(directions, gates * HIDDEN, FEATURES),
        "r": random(directions, gates * HIDDEN, HIDDEN),
        **({"b": random(directions, 2 * gates * HIDDEN)} if bias else {}),
    }
    outputs = ["y", "h", "c"][: 3 if op == "LSTM" else 2]
    states = {name: (np.float32, [directions, BATCH, HIDDEN]) for name in (("h0", "c0")[: len(outputs) - 1])}
    given = ["x", "w", "r", "b" if bias else "", "", *(states if initial else ())]
    attributes = {"hidden_size": HIDDEN, "direction": direction, **attributes}
    if op == "GRU":
        attributes.setdefault("linear_before_reset", 1)
    node = helper.make_node(op, given, outputs, **attributes)
    inputs = {"x": (np.float32, [TIME, BATCH, FEATURES]), **(states if initial else {})}
    content = model([node], inputs, {name: (np.float32, 4 if name == "y" else 3) for name in outputs}, constants)
    return content, [random(*shape) for _, shape in inputs.values()]


@pytest.mark.parametrize("op", list(GATES))
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("initial", [False, True])
def test_agrees_with_onnx_runtime(tmp_path, op, direction, initial):
    content, arrays = recurrent(op, direction, initial)
    network = agree(content, tmp_path, *arrays)
    assert any(isinstance(layer, KINDS[op]) for layer in network.module.modules())


def test_without_bias(tmp_path):
    content, arrays = recurrent("LSTM", bias=False)
    agree(content, tmp_path, *arrays)


def test_other_nonlinearity(tmp_path):
    content, arrays = recurrent("RNN", activations=["Relu"])
    agree(content, tmp_path, *arrays)


@pytest.mark.parametrize("op", list(GATES))
def test_exports_again(tmp_path, op):
    content, arrays = recurrent(op, "bidirectional", initial=True)
    network = read(content, tmp_path)
    inputs = tuple(map(torch.from_numpy, arrays))
    again = quiet_export(network.module, inputs, None).module()
    torch.testing.assert_close(again(*inputs), network.module(*inputs))


@pytest.mark.parametrize(
    ("op", "attributes", "named"),
    [
        ("GRU", {"linear_before_reset": 0}, "linear_before_reset"),
        ("LSTM", {"clip": 3.0}, "clip"),
        ("LSTM", {"input_forget": 1}, "coupled"),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, "relu"),
        ("RNN", {"activations": ["Sigmoid"]}, "sigmoid"),
    ],
)
def test_what_torch_cannot_do_is_refused_by_name(tmp_path, op, attributes, named):
    content, _ = recurrent(op, **attributes)
    with pytest.raises(Unsupported, match=named) as error:
        read(content, tmp_path)
    assert error.value.code == "unsupported_attribute"


@pytest.mark.parametrize("layer", [nn.LSTM(4, 6, 2, batch_first=True, bidirectional=True), nn.GRU(4, 6)])
@pytest.mark.filterwarnings("ignore")
def test_what_pytorch_writes(tmp_path, layer):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = layer

        def forward(self, x):
            return self.body(x)[0]

    module, x = Last().eval(), torch.randn(3, 5, 4)
    torch.onnx.export(module, (x,), tmp_path / "m.onnx", dynamo=False, input_names=["x"])
    network = formats.read(tmp_path / "m.onnx")
    with torch.no_grad():
        torch.testing.assert_close(network.module(x)[0], module(x), atol=1e-5, rtol=1e-4)
