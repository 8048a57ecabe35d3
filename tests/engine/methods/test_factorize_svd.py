"""``factorize.svd`` from the recipe step to files."""

import dataclasses
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.recipes import RecipeError, parse_recipe
from app.recipes.methods import FactorizeSvd, LayerFilter, QuantizeStatic
from tests.support import handwriting, networks
from tests.support.architectures import WRITTEN_OUT, export
from tests.support.factorizable import assert_same_everywhere, drawn, macs, outputs, run
from tests.support.quantizable import Notebook, compress
from worker.engine import formats
from worker.engine.errors import InvalidDataset, Unsupported
from worker.engine.factorized.moments import moments
from worker.engine.factorized.replace import sites
from worker.engine.factorized.svd import LowRank, low_rank
from worker.engine.formats.lift import network_of
from worker.engine.measure.macs import random_inputs
from worker.engine.methods import METHODS
from worker.engine.network import Network
from worker.engine.state import Compressed, Context

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def zoo(name: str) -> Network:
    return network_of(networks.make(name), networks.ZOO[name].inputs(3))


@pytest.mark.parametrize("aware", [True, False])
@pytest.mark.parametrize("name", ["mlp", "mobilenet", "resnet18", "transformer"])
def test_files_compute_the_same(name: str, aware: bool, tmp_path: Path) -> None:
    network = zoo(name)
    step = FactorizeSvd(activation_aware=aware, rank_ratio=0.6, round_to=1)
    done = run(network, step, tmp_path, drawn(network))
    assert done.network.parameters < network.parameters
    assert macs(done.network) < macs(network)
    assert done.network.source is None
    names = {row["name"] for row in done.layers}
    assert {f"{path}.reduce.weight" for path in names} <= dict(done.network.module.named_parameters()).keys()
    assert_same_everywhere(done.network, tmp_path)


def test_the_given_network_stays_as_it_is(tmp_path: Path) -> None:
    network = zoo("mlp")
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    graph = str(network.module.graph)
    run(network, FactorizeSvd(rank_ratio=0.5), tmp_path, drawn(network))
    assert str(network.module.graph) == graph
    for name, value in network.module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", ["densenet", "vgg"])
def test_networks_from_onnx(name: str, exporter: str, tmp_path: Path) -> None:
    export(WRITTEN_OUT[name], exporter, tmp_path / "m.onnx")
    network = formats.read(tmp_path / "m.onnx")
    done = run(network, FactorizeSvd(rank_ratio=0.5, round_to=1), tmp_path, drawn(network))
    assert done.layers
    assert_same_everywhere(done.network, tmp_path)


class _Reading(nn.Module):
    """Strides, padding, a layer that is called twice, a tied weight, groups, a layer without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(12, 16, 1, stride=2, padding=1, bias=False)
        self.again = nn.Conv2d(16, 16, 1)
        self.grouped = nn.Conv2d(16, 16, 1, groups=2)
        self.signal = nn.Conv1d(16, 16, 1, stride=2)
        self.tied = nn.Linear(16, 16, bias=False)
        self.head = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.again(F.relu(self.again(self.strided(x)))))
        x = self.signal(x.flatten(2)).transpose(1, 2)
        return self.head(F.linear(F.relu(self.tied(x)), self.tied.weight.t()))


@pytest.mark.parametrize("aware", [True, False])
def test_layers_are_read_as_they_read(aware: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = _Reading().eval()
    with torch.no_grad():
        for part in (module.strided, module.again, module.signal, module.head):
            u, s, v = torch.linalg.svd(part.weight.flatten(1), full_matrices=False)
            part.weight.copy_(((u[:, :3] * s[:3]) @ v[:3]).reshape(part.weight.shape))
    network = network_of(module, (torch.randn(3, 12, 9, 9),))
    done = run(network, FactorizeSvd(activation_aware=aware, energy=1 - 1e-9, round_to=1), tmp_path, drawn(network))
    assert {row["name"]: row["ranks"] for row in done.layers} == {
        name: [3] for name in ("strided", "again", "signal", "head")
    }
    inputs = random_inputs(network, 4, 3)
    for one, other in zip(outputs(network, inputs), outputs(done.network, inputs), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4)
    text = "\n".join(done.notes)
    assert "grouped as before: its channels are in groups" in text
    assert "tied as before: its weight is also that of tied.weight, which the model reads by itself" in text
    assert_same_everywhere(done.network, tmp_path)


@pytest.mark.parametrize("most", [0.05, 0.2, 0.5])
def test_no_layer_errs_more_than_promised(most: float, tmp_path: Path) -> None:
    torch.manual_seed(1)
    basis = torch.randn(6, 64)
    module = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 40, bias=False)).eval()
    network = network_of(module, (torch.randn(3, 64),))
    samples = drawn(network, 256)
    values = samples.inputs[network.inputs[0].name]
    values[:] = (torch.from_numpy(values[:, :6]) @ basis).numpy() + 0.05 * values + 2
    done = run(network, FactorizeSvd(max_error=most, round_to=1), tmp_path, samples)
    x = torch.from_numpy(values)
    with torch.no_grad():
        for name, row in {row["name"]: row for row in done.layers}.items():
            read = module[0](x).relu() if name.endswith("2") else x
            expected = module[int(name[-1])](read)
            parts = done.network.module.get_submodule(name)
            got = parts.expand(parts.reduce(read))
            error = float((got - expected).norm() / (expected - expected.mean(0)).norm())
            assert error <= most * 1.001
            assert error == pytest.approx(row["relative_error"], rel=0.02, abs=1e-4)
    assert len(done.layers) >= 1


def test_a_trained_network_keeps_its_accuracy(tmp_path: Path) -> None:
    module = handwriting.trained(norm=True, width=64)
    network = network_of(module, (torch.randn(3, 1, 8, 8),))
    data = handwriting.training(network)
    before = handwriting.accuracy(network.module)
    done = run(network, FactorizeSvd(energy=0.95, round_to=1), tmp_path, data)
    plain = run(network, FactorizeSvd(energy=0.95, round_to=1, activation_aware=False), tmp_path)
    after = handwriting.accuracy(done.network.module)
    assert after > before - 0.02
    assert done.network.parameters < 0.8 * network.parameters
    assert done.network.parameters < plain.network.parameters


def test_quantization_goes_on_top(tmp_path: Path) -> None:
    network = zoo("transformer")
    done = run(network, FactorizeSvd(rank_ratio=0.7, round_to=1), tmp_path, drawn(network))
    quantized = compress(done.network, QuantizeStatic(), tmp_path)
    stored = quantized.quantized["onnxruntime"].weights
    assert {f"{row['name']}.{part}" for row in done.layers for part in ("reduce", "expand")} <= stored.keys()


def test_what_was_pruned_and_is_gone_is_told(tmp_path: Path) -> None:
    network = zoo("mlp")
    before = Compressed(network, pruned=("body.4.weight", "head.weight"))
    context = Context({}, Notebook(), tmp_path, calibration=drawn(network))
    step = FactorizeSvd(rank_ratio=0.5, layers=LayerFilter(include=("body.*",)))
    done = METHODS[FactorizeSvd](before, step, context)
    assert done.pruned == ("head.weight",)
    assert any("zeros of earlier pruning are gone in body.4.weight" in note for note in done.notes)


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (FactorizeSvd(activation_aware=False, layers=LayerFilter(include=("nothing",))), "unknown_layer"),
        (FactorizeSvd(activation_aware=False, layers=LayerFilter(exclude=("*",))), "no_layers"),
        (FactorizeSvd(), "calibration_required"),
    ],
)
def test_what_cannot_be_done_is_said(step: FactorizeSvd, code: str, tmp_path: Path) -> None:
    with pytest.raises((Unsupported, InvalidDataset)) as caught:
        run(zoo("mlp"), step, tmp_path)
    assert caught.value.code == code


def test_a_tied_output_layer_stays(tmp_path: Path) -> None:
    done = run(zoo("recurrent"), FactorizeSvd(activation_aware=False, rank_ratio=0.5), tmp_path)
    assert any("left decoder as before: its weight is also that of embedding" in note for note in done.notes)


def test_where_nothing_is_won_the_network_goes_on(tmp_path: Path) -> None:
    network = zoo("mlp")
    done = run(network, FactorizeSvd(activation_aware=False, energy=0.999999), tmp_path)
    assert done.network is network
    assert not done.layers
    assert "factorize.svd makes no layer smaller" in done.notes[0]


def test_kinds_that_are_not_replaced_are_named(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, (1, 3)), nn.Conv2d(8, 8, 1)).eval()
    network = network_of(module, (torch.randn(3, 3, 9, 9),))
    done = run(network, FactorizeSvd(activation_aware=False, rank_ratio=0.5), tmp_path)
    assert "factorize.svd does not replace layers of other kinds: 1 Conv2d (3x3), 1 Conv2d (1x3)" in done.notes
    with pytest.raises(Unsupported, match=r"no layer of the kinds .* it has 1 Conv2d \(3x3\)") as caught:
        run(network, FactorizeSvd(activation_aware=False, layers=LayerFilter(include=("0",))), tmp_path)
    assert caught.value.code == "no_layers"


class _Constant(nn.Module):
    """A layer that reads a mask of ones, and one behind a ReLU that never fires."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.mask, self.head = nn.Linear(16, 32), nn.Linear(24, 32), nn.Linear(32, 16)
        nn.init.constant_(self.value.bias, -1e6)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.head(F.relu(self.value(x))) + self.mask(mask)[:, :16]


def test_layers_that_read_constants_stay_finite(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = network_of(_Constant().eval(), (torch.randn(4, 16), torch.full((4, 24), 1.1)))
    samples = drawn(network)
    samples.inputs[network.inputs[1].name][:] = 1.1
    done = run(network, FactorizeSvd(rank_ratio=0.6, round_to=1), tmp_path, samples)
    assert {row["name"] for row in done.layers} == {"value", "mask", "head"}
    assert all(0.01 < row["relative_error"] < 1 for row in done.layers)  # not nothing: of the weight
    assert all(bool(value.isfinite().all()) for value in done.network.module.parameters())
    assert any("head, mask: the weight alone decided" in note for note in done.notes)
    inputs = random_inputs(network, 4, 3)
    mask = torch.full((4, 24), 1.1)
    for one, other in zip(outputs(network, (inputs[0], mask)), outputs(done.network, (inputs[0], mask)), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4)


def test_factors_that_are_no_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> LowRank:
        found = low_rank(*args)
        return dataclasses.replace(found, reduce=found.reduce * 1e60)

    monkeypatch.setattr(sys.modules[METHODS[FactorizeSvd].__module__], "low_rank", broken)
    network = zoo("mlp")
    done = run(network, FactorizeSvd(activation_aware=False, rank_ratio=0.5), tmp_path)
    assert done.network is network
    assert any("its factors are too large for float32" in note for note in done.notes)


def test_few_covariances_are_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(*[nn.Linear(16, 16) for _ in range(6)]).eval()
    network = network_of(module, (torch.randn(3, 16),))
    found = sites(network, (nn.Linear,))
    whole = {site.path: known for site, known in moments(network, drawn(network), found)}
    monkeypatch.setattr("worker.engine.factorized.moments._BYTES", 2 * 8 * 16 * 16)
    alive: list[weakref.ref[Tensor]] = []
    told: list[float] = []
    for site, known in moments(network, drawn(network), found, progress=told.append):
        assert known.covariance is not None
        torch.testing.assert_close(known.covariance, whole[site.path].covariance)
        alive.append(weakref.ref(known.covariance))
        assert sum(each() is not None for each in alive) <= 2
    assert len(alive) == 6
    assert told == sorted(told)
    assert told[-1] == 1


def test_layers_that_read_very_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no covariance, and the mean goes through unharmed all the same."""
    torch.manual_seed(0)
    network = network_of(nn.Sequential(nn.Linear(24, 16)).eval(), (torch.randn(3, 24),))
    samples = drawn(network)
    samples.inputs[network.inputs[0].name][:] += 100
    monkeypatch.setattr("worker.engine.factorized.moments._INPUTS", 20)
    done = run(network, FactorizeSvd(rank_ratio=0.5, round_to=1), tmp_path, samples)
    assert any("0: the weight alone decided" in n and "it reads more than 20 values" in n for n in done.notes)
    x = torch.from_numpy(samples.inputs[network.inputs[0].name])
    (one,), (other,) = outputs(network, (x,)), outputs(done.network, (x,))
    np.testing.assert_allclose(other.mean(0), one.mean(0), rtol=1e-3, atol=1e-3)


def test_samples_that_overflow_are_named(tmp_path: Path) -> None:
    network = zoo("mlp")
    data = drawn(network)
    data.inputs[network.inputs[0].name][3, 2] = 3e38
    with pytest.raises(InvalidDataset) as caught:
        run(network, FactorizeSvd(), tmp_path, data)
    assert caught.value.code == "not_finite"


def test_one_way_to_choose_a_rank() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"steps": [{"method": "factorize.svd", "energy": 0.9, "max_error": 0.1}]})
    assert "not both energy and max_error" in caught.value.faults[0].detail
