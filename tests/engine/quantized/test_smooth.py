"""Smoothing moves outliers out of activations and changes nothing else."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.recipes import TARGETS as GRIDS
from app.recipes.methods import LayerFilter, QuantizeStatic
from tests.support.quantizable import Notebook, build, compress, samples, sqnr_db
from worker.engine import checkpoint, formats
from worker.engine.errors import Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.observe import tensors
from worker.engine.quantized.smooth import smooth
from worker.engine.state import Context
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats

ALL = LayerFilter()


class Outliers(nn.Module):
    """A transformer block whose first layer norm makes two channels fifty times larger than the others."""

    shapes = ((7, 16),)

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.head = nn.Linear(16, 5)
        with torch.no_grad():
            self.norm1.weight[[3, 7]] = 50.0
            self.norm2.bias += 0.1  # exporters store equal constants once

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        scores = torch.softmax(torch.matmul(self.q(y) * 0.01, self.k(y).transpose(1, 2)), -1)
        x = x + self.out(torch.matmul(scores, self.v(y)))
        return self.head(self.norm2(x) + x)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return network_of(Outliers().eval(), (torch.randn(3, 7, 16),))


def outputs(network: Network, module: nn.Module | None = None) -> Tensor:
    inputs = tensors(samples(network, 32, seed=9).inputs, network, "cpu")
    with torch.no_grad():
        result: Tensor = (module or network.module)(*inputs)[0]
    return result


def test_the_network_computes_the_same(network: Network) -> None:
    result, notes = smooth(network, 0.5, samples(network, 32), ALL)
    assert notes == ["1 layer norms were smoothed, alpha 0.5"]  # an addition reads the second one too
    torch.testing.assert_close(outputs(result), outputs(network), rtol=1e-4, atol=1e-4)
    before, after = (one.module.get_submodule("norm1").weight.max().item() for one in (network, result))
    assert after < before / 3


def test_few_bits_are_worth_more_after_it(network: Network, tmp_path: Path) -> None:
    found = {}
    for alpha in (0.0, 0.5):
        done = compress(network, QuantizeStatic(smooth=alpha, calibration="minmax"), tmp_path)
        found[alpha] = sqnr_db(outputs(network), outputs(network, fake_quantized(done.quantized["onnxruntime"])))
    assert found[0.5] > found[0.0] + 1.5  # 2.8 to 4 dB, as the processor rounds


def test_nothing_to_smooth() -> None:
    network = build("signal")
    result, notes = smooth(network, 0.5, samples(network), ALL)
    assert result is network
    assert "no layer norm" in notes[0]


@pytest.mark.parametrize("source", ["pt2", "onnx"])
def test_artifacts_and_checkpoints_follow(network: Network, source: str, tmp_path: Path) -> None:
    if source == "onnx":
        network = formats.read(TARGETS["onnxruntime"].export_float(Floats(network, tmp_path / "upload")).path, "onnx")
        for index, node in enumerate(network.source.outline.graph.node):
            node.name = f"user.{index}"
    done = compress(network, QuantizeStatic(smooth=0.5, equalize=True), tmp_path)
    assert done.network is not network
    assert done.quantized["onnxruntime"].network is done.network
    checkpoint.save(done, [], tmp_path / "c.zip", network)
    done = checkpoint.load(tmp_path / "c.zip", network).compressed
    exported = TARGETS["onnxruntime"].export_float(Floats(done.network, tmp_path))
    inputs = dict(samples(network, 16, seed=2).inputs)
    base = TARGETS["onnxruntime"].session(exported.path, 1, True).run(inputs)[0]
    with torch.no_grad():
        floats = network.module(*tensors(inputs, network, "cpu"))[0].numpy()
        predicted = fake_quantized(done.quantized["onnxruntime"])(*tensors(inputs, network, "cpu"))[0].numpy()
    assert sqnr_db(floats, base) > 80
    if source == "onnx":  # the user's own graph, with other numbers in it
        assert exported.onnx is not None
        assert [node.name for node in exported.onnx.graph.node] == [
            f"user.{index}" for index in range(len(exported.onnx.graph.node))
        ]
    path = TARGETS["onnxruntime"].export_quantized(done.quantized["onnxruntime"], exported, tmp_path / "q.onnx")
    assert sqnr_db(predicted, TARGETS["onnxruntime"].session(path, 1, True).run(inputs)[0]) > 30


def test_an_earlier_quantization_is_not_moved_under(network: Network, tmp_path: Path) -> None:
    first = compress(network, QuantizeStatic(layers=LayerFilter(include=("head",))), tmp_path)
    context = Context({"onnxruntime": GRIDS["onnxruntime"]}, Notebook(), tmp_path, calibration=samples(network))
    with pytest.raises(Unsupported) as caught:
        METHODS[QuantizeStatic](first, QuantizeStatic(smooth=0.5, layers=LayerFilter(exclude=("head",))), context)
    assert caught.value.code == "invalid_order"
    plain = QuantizeStatic(layers=LayerFilter(exclude=("head",)))
    both = METHODS[QuantizeStatic](first, plain, context).quantized["onnxruntime"]
    assert set(both.weights) == {"q", "k", "v", "out", "head"}
