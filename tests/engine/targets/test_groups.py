"""Weights in groups, in the files of every target that stores them: what a runtime computes is what was predicted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.recipes import TARGETS as GRIDS
from app.recipes.methods import LayerFilter, QuantizeStatic, QuantizeWeights
from tests.support.exports import Exports
from tests.support.quantizable import Notebook, compress, samples, sqnr_db
from worker.engine.formats.lift import network_of
from worker.engine.measure.machine import saturates
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.observe import tensors
from worker.engine.state import Compressed, Context
from worker.engine.targets import TARGETS
from worker.engine.targets.floats import Floats
from worker.engine.targets.onnx_qdq import quantized_onnx


class Layers(nn.Module):
    """Convolutions with and without groups, linear layers of odd and even sizes, one of them called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.grouped = nn.Conv2d(8, 8, 3, groups=4, bias=False)
        self.up, self.down = nn.Linear(8, 512), nn.Linear(512, 24, bias=False)
        self.twice = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(torch.relu(self.conv(x)))).mean((2, 3))
        return self.twice(torch.relu(self.twice(self.down(torch.relu(self.up(x))))))


class Words(nn.Module):
    """A table that was trained, one that is still zero, and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 32), nn.Embedding(6, 32)
        self.cell = nn.GRU(32, 3, batch_first=True)
        self.head = nn.Linear(32, 8)
        nn.init.zeros_(self.places.weight)

    def forward(self, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        y = self.words(x) + self.places(at)
        return self.head(y), self.cell(y)[0]


class Around(nn.Module):
    """A ReLU behind a convolution that an integer and a float layer both read."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.l2, self.l3 = nn.Conv1d(4, 16, 3), nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.c(x)).transpose(1, 2)
        return self.l2(h) + self.l3(h)


@pytest.fixture(scope="module")
def layers() -> Network:
    torch.manual_seed(0)
    return network_of(Layers().eval(), (torch.randn(3, 3, 9, 9),))


@pytest.fixture(scope="module")
def exports(layers: Network, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return Exports(layers, tmp_path_factory.mktemp("float"))


def agreement(done: Compressed, target: str, inputs: dict[str, Any], folder: Path, exports: Exports) -> list[float]:
    """dB of each output between the file and fake quantization."""
    network, form = done.network, done.quantized[target]
    if network is not exports.network:  # scales of activations have moved into it
        exports = Exports(network, folder / "float")
    path = TARGETS[target].export_quantized(form, exports.of(target), folder / f"q{TARGETS[target].suffix}")
    got = TARGETS[target].session(path, 1, True).run(inputs)
    with torch.no_grad():
        predicted = fake_quantized(done.quantized[target])(*tensors(inputs, network, "cpu"))
    return [sqnr_db(one, other) for one, other in zip(predicted, got, strict=True)]


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize(
    ("bits", "parameters"),
    [
        *[(bits, {"group_size": -1}) for bits in (8, 4, 3, 2)],
        *[(bits, {"algorithm": "hqq", "group_size": 64}) for bits in (8, 4, 3, 2)],
        *[(bits, {"symmetric": True, "group_size": 32}) for bits in (8, 4, 3, 2)],
        (4, {"symmetric": True, "group_size": -1}),
        (4, {"algorithm": "gptq"}),
        (8, {"algorithm": "awq"}),
    ],
    ids=str,
)
def test_a_file_computes_what_was_predicted(
    bits: int, parameters: dict[str, Any], target: str, exports: Exports, tmp_path: Path
) -> None:
    if bits not in GRIDS[target].group_bits:
        pytest.skip(f"{target} stores no {bits} bits in groups")
    done = compress(exports.network, QuantizeWeights(bits=bits, **parameters), tmp_path, (target,))
    assert min(agreement(done, target, dict(samples(done.network, 8, seed=3).inputs), tmp_path, exports)) > 60


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("bits", [8, 4])
def test_tables_of_zeros_and_recurrent_layers(bits: int, target: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    index = torch.randint(0, 6, (3, 5))
    network = network_of(Words().eval(), (index, index))
    step = QuantizeWeights(bits=bits, group_size=16)
    context = Context({target: GRIDS[target]}, Notebook(), tmp_path)
    done = METHODS[QuantizeWeights](Compressed(network), step, context)
    inputs = {spec.name: np.random.default_rng(1).integers(0, 6, (4, 5)) for spec in network.inputs}
    assert min(agreement(done, target, inputs, tmp_path, Exports(done.network, tmp_path / "float"))) > 60
    with torch.no_grad():
        expected = network.module(*tensors(inputs, network, "cpu"))[0]
        got = fake_quantized(done.quantized[target])(*tensors(inputs, network, "cpu"))[0]
    assert sqnr_db(expected, got) > {8: 35, 4: 15}[bits]


def test_names_of_the_users_graph_are_not_taken(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = network_of(nn.Sequential(nn.Conv2d(3, 5, 3)).eval(), (torch.randn(2, 3, 6, 6),))
    exported = TARGETS["onnxruntime"].export_float(Floats(network, tmp_path))
    done = compress(network, QuantizeWeights(bits=3), tmp_path)
    assert exported.onnx is not None
    made = quantized_onnx(exported.onnx, exported.values, done.quantized["onnxruntime"])
    before = {tensor.name for tensor in exported.onnx.graph.initializer}
    shared = {tensor.name for tensor in made.graph.initializer} - before
    assert {name for name in shared if not name.startswith(("0.", "modelpress."))} == set()


def test_groups_beside_integers_read_the_same_value(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = network_of(Around().eval(), (torch.randn(3, 4, 12),))
    first = compress(network, QuantizeStatic(layers=LayerFilter(include=("c", "l2"))), tmp_path)
    context = Context(
        {"onnxruntime": GRIDS["onnxruntime"]}, Notebook(), tmp_path, samples(network), saturating=saturates()
    )
    step = QuantizeWeights(bits=4, group_size=16, layers=LayerFilter(include=("l3",)))
    both = METHODS[QuantizeWeights](first, step, context)
    inputs = dict(samples(network, 8, seed=3).inputs)
    assert min(agreement(both, "onnxruntime", inputs, tmp_path, Exports(both.network, tmp_path / "float"))) > 60
