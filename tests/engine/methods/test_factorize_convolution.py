"""``factorize.tucker`` and ``factorize.cp`` from the recipe step to files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.recipes import RecipeError, Step, parse_recipe
from app.recipes.methods import FactorizeCp, FactorizeTucker, LayerFilter, QuantizeStatic
from tests.support import handwriting, networks
from tests.support.architectures import WRITTEN_OUT, export
from tests.support.factorizable import assert_same_everywhere, macs, outputs, run
from tests.support.quantizable import build, compress
from worker.engine import formats
from worker.engine.errors import Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.measure.macs import random_inputs
from worker.engine.network import Network

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

STEPS = {
    "tucker": FactorizeTucker(rank_ratio=0.4, round_to=1),
    "cp": FactorizeCp(rank_ratio=0.4, round_to=1, restarts=1, iterations=30),
}


class _Kernels(nn.Module):
    """Every setting of a convolution: stride, padding, dilation, their words, one axis alone, a layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(8, 10, (3, 5), stride=(2, 1), padding=(2, 1), dilation=(1, 2))
        self.same = nn.Conv2d(10, 10, 3, padding="same", dilation=2, bias=False)
        self.flat = nn.Conv2d(10, 9, (1, 3), stride=(2, 1), padding=(1, 1))
        self.grouped = nn.Conv2d(9, 9, 3, padding=1, groups=3)
        self.signal = nn.Conv1d(9, 10, 4, stride=3, padding=2)
        self.up = nn.ConvTranspose1d(10, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.same(F.relu(self.same(self.plain(x))))
        x = self.grouped(self.flat(x))
        return self.up(self.signal(x.flatten(2)))


def kernels(rank: int) -> Network:
    """Kernels that are sums of few outer products."""
    torch.manual_seed(0)
    module = _Kernels().eval()
    with torch.no_grad():
        for part in (module.plain, module.same, module.flat, module.signal):
            factors = [torch.randn(rank, size) for size in part.weight.shape]
            axes = "oiyx"[: len(factors)]
            part.weight.copy_(torch.einsum(",".join(f"r{a}" for a in axes) + f"->{axes}", *factors) / 10)
    return network_of(module, (torch.randn(3, 8, 15, 17),))


@pytest.mark.parametrize(
    "step",
    [
        FactorizeTucker(ranks=(2, 2)),
        FactorizeTucker(max_error=1e-5, round_to=1),
        FactorizeTucker(round_to=1),
        FactorizeCp(ranks=2, restarts=4, iterations=500),
    ],
    ids=str,
)
def test_every_setting_of_a_convolution(step: Step, tmp_path: Path) -> None:
    network = kernels(2)
    done = run(network, step, tmp_path)
    assert {row["name"] for row in done.layers} == {"plain", "same", "flat", "signal"}
    assert all(row["relative_error"] < 1e-2 for row in done.layers)
    inputs = random_inputs(network, 4, 3)
    for one, other in zip(outputs(network, inputs), outputs(done.network, inputs), strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-2, atol=2e-2 * float(np.abs(one).max()))
    text = "\n".join(done.notes)
    assert "grouped as before: its channels are in groups" in text
    assert "up as before: ConvTranspose1d is none of those" in text
    assert_same_everywhere(done.network, tmp_path)


@pytest.mark.parametrize("method", STEPS)
@pytest.mark.parametrize("name", ["resnet18", "vgg"])
def test_networks_become_smaller(name: str, method: str, tmp_path: Path) -> None:
    if name == "vgg":  # as its user exports it to ONNX
        export(WRITTEN_OUT["vgg"], "dynamo", tmp_path / "m.onnx")
        network = formats.read(tmp_path / "m.onnx")
    else:
        network = network_of(networks.make(name), networks.ZOO[name].inputs(3))
    done = run(network, STEPS[method], tmp_path)
    assert done.network.parameters < 0.9 * network.parameters
    assert macs(done.network) < macs(network)
    assert_same_everywhere(done.network, tmp_path)


@pytest.mark.parametrize("step", [FactorizeTucker(max_error=0.3), FactorizeCp(max_error=0.6, iterations=50)], ids=str)
def test_no_kernel_errs_more_than_promised(step: Step, tmp_path: Path) -> None:
    network = kernels(6)
    done = run(network, step, tmp_path)
    assert done.layers
    for row in done.layers:
        layer, parts = (each.module.get_submodule(row["name"]) for each in (network, done.network))
        x = torch.randn(64, layer.in_channels, *[24] * (layer.weight.dim() - 2))
        got = x
        with torch.no_grad():
            expected = layer(x)
            for part in parts.children():
                got = part(got)
        assert row["relative_error"] <= step.max_error  # type: ignore[attr-defined]
        # White inputs: the error of the kernel is that of the output.
        error = float(
            (got - expected).norm() / (expected - expected.mean((0, *range(2, x.dim())), keepdim=True)).norm()
        )
        assert error == pytest.approx(row["relative_error"], rel=0.1, abs=1e-3)


def test_a_trained_network_keeps_its_accuracy(tmp_path: Path) -> None:
    network = network_of(_trained(), (torch.randn(3, 1, 8, 8),))
    before = handwriting.accuracy(network.module)
    done = run(network, FactorizeTucker(energy=0.8, round_to=1), tmp_path)
    assert handwriting.accuracy(done.network.module) > before - 0.05
    assert done.network.parameters < 0.9 * network.parameters
    quantized = compress(done.network, QuantizeStatic(), tmp_path)
    assert {"2.reduce", "2.core", "2.expand"} <= quantized.quantized["onnxruntime"].weights.keys()


def _trained() -> nn.Module:
    """Two wide convolutions on small images, weights decayed: what is not needed of them fades."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(),
        nn.Conv2d(48, 48, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(192, 10),
    )  # fmt: skip
    x, y = (torch.from_numpy(array[: -handwriting._HELD_OUT]) for array in handwriting._data())
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3, weight_decay=0.5)
    for _ in range(15):
        for rows in torch.randperm(len(x)).split(64):
            loss = F.cross_entropy(module(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module.eval()


def test_more_products_are_not_taken(tmp_path: Path) -> None:
    """In front of a stride a 1x1 convolution has four times the positions."""
    torch.manual_seed(0)
    network = network_of(nn.Sequential(nn.Conv2d(32, 32, 3, 2, 1)).eval(), (torch.randn(3, 32, 16, 16),))
    done = run(network, FactorizeTucker(ranks=(28, 24)), tmp_path)
    assert done.network is network
    assert any("take more multiply-accumulates" in note for note in done.notes)


@pytest.mark.parametrize("step", [FactorizeTucker(), FactorizeCp()], ids=str)
def test_noise_is_left_alone(step: Step, tmp_path: Path) -> None:
    """Random kernels have no rank."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3)).eval()
    for part in (module[0], module[2]):
        nn.init.normal_(part.weight)
    network = network_of(module, (torch.randn(3, 32, 8, 8),))
    done = run(network, step, tmp_path)
    assert done.network is network
    assert any("left 0, 2 as before: variational Bayes finds nothing" in note for note in done.notes)


def test_least_squares_without_an_end_are_told(tmp_path: Path) -> None:
    torch.manual_seed(1)
    a, b = torch.eye(2)
    kernel = sum(torch.einsum("o,i,x->oix", *each) for each in ((a, a, b), (a, b, a), (b, a, a)))
    assert isinstance(kernel, Tensor)
    module = nn.Sequential(nn.Conv1d(12, 12, 4)).eval()
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].weight[:2, :2, :2] = kernel
    network = network_of(module, (torch.randn(3, 12, 9),))
    done = run(network, FactorizeCp(ranks=2, iterations=1, restarts=1), tmp_path)
    assert any("no stable end; take another rank" in note for note in done.notes)


def test_kernels_that_would_take_too_long_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.factorized.cp._MOST_WORK", 1e3)
    done = run(kernels(2), FactorizeCp(ranks=2), tmp_path)
    assert any("plain, same, flat, signal as before: its least squares would take too long" in n for n in done.notes)


@pytest.mark.parametrize("cls", [FactorizeTucker, FactorizeCp])
def test_layers_of_other_kinds(cls: type[Step], tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as caught:
        run(build("two_inputs"), cls(method=cls.name()), tmp_path)
    assert caught.value.code == "no_layers"
    with pytest.raises(Unsupported) as caught:
        run(build("signal"), cls(method=cls.name(), layers=LayerFilter(include=("x",))), tmp_path)
    assert caught.value.code == "unknown_layer"


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "factorize.tucker", "ranks": [4, 4], "energy": 0.9},
        {"method": "factorize.tucker", "ranks": [0, 4]},
        {"method": "factorize.cp", "ranks": 4, "rank_ratio": 0.5},
    ],
)
def test_what_contradicts_itself(fields: dict[str, object]) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"steps": [fields]})
    assert caught.value.faults[0].code == "invalid_parameter"
