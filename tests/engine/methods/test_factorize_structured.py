"""``factorize.structured`` from the recipe step to files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.recipes import RecipeError, parse_recipe
from app.recipes.methods import FactorizeStructured, QuantizeStatic
from tests.support import networks
from tests.support.architectures import WRITTEN_OUT, export
from tests.support.factorizable import assert_same_everywhere, macs, outputs, run
from tests.support.quantizable import compress
from worker.engine import formats
from worker.engine.factorized import kronecker, monarch, toeplitz
from worker.engine.formats.lift import network_of
from worker.engine.measure.macs import random_inputs
from worker.engine.network import Network

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

STEPS = {
    "kronecker": FactorizeStructured(structure="kronecker", terms=2),
    "monarch": FactorizeStructured(structure="monarch", terms=1, blocks=4),
    "toeplitz": FactorizeStructured(structure="toeplitz", max_error=1),
}


class _Axes(nn.Module):
    """Features along every axis that layers read, and layers that stay."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(8, 16, 1)
        self.last = nn.Linear(16, 24)
        self.signal = nn.Conv1d(24, 16, 1, bias=False)
        self.sequence = nn.Linear(16, 16, bias=False)
        self.head = nn.Linear(16, 8)
        self.strided = nn.Conv1d(16, 16, 1, stride=2)
        self.grouped = nn.Conv1d(16, 16, 1, groups=2)
        self.five = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.image(x).permute(0, 2, 3, 1))
        x = self.signal(x.flatten(1, 2).transpose(1, 2))
        x = self.grouped(self.strided(x))
        x = self.sequence(x.transpose(1, 2))
        x = self.five(x[:, None, None]).flatten(1, 3)
        return self.head(x.mean(1))


def structured(name: str) -> Network:
    """Matrices that have the structure, in layers of all kinds."""
    torch.manual_seed(0)
    module = _Axes().eval()
    with torch.no_grad():
        for part in (module.image, module.last, module.signal, module.sequence, module.head):
            weight = part.weight.double().flatten(1)
            if name == "kronecker":
                made = kronecker.kronecker(weight, (4, 4), 1).matrix()
            elif name == "monarch":
                made = monarch.monarch(weight, (4, 4), 1).matrix()
            else:
                made = toeplitz.toeplitz(weight, 4).matrix()
            part.weight.copy_(made.reshape(part.weight.shape))
    return network_of(module, (torch.randn(3, 8, 4, 6),))


@pytest.mark.parametrize("name", STEPS)
def test_exact_where_the_structure_is_there(name: str, tmp_path: Path) -> None:
    network = structured(name)
    step = FactorizeStructured(structure=name, blocks=4, max_error=1e-3)
    done = run(network, step, tmp_path)
    assert {row["name"] for row in done.layers} == {"image", "last", "signal", "sequence", "head"}
    assert all(row["relative_error"] < 1e-6 for row in done.layers)
    for batch in (1, 4):
        inputs = random_inputs(network, batch, 3)
        for one, other in zip(outputs(network, inputs), outputs(done.network, inputs), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    text = "\n".join(done.notes)
    assert "strided as before: it has a stride" in text
    assert "grouped as before: its channels are in groups" in text
    assert "five as before: it reads values of 5 dimensions" in text
    assert macs(done.network) < macs(network)
    assert_same_everywhere(done.network, tmp_path)


@pytest.mark.parametrize("of", ["transformer", "mlp"])
def test_networks_become_smaller(of: str, tmp_path: Path) -> None:
    network = network_of(networks.make(of), networks.ZOO[of].inputs(3))
    for step in STEPS.values():
        done = run(network, step, tmp_path)
        assert done.network.parameters < network.parameters
        assert macs(done.network) < macs(network)
    assert_same_everywhere(done.network, tmp_path)


def test_a_network_from_onnx(tmp_path: Path) -> None:
    export(WRITTEN_OUT["tabular"], "dynamo", tmp_path / "m.onnx")
    network = formats.read(tmp_path / "m.onnx")
    done = run(network, STEPS["monarch"], tmp_path)
    assert done.network.parameters < network.parameters
    assert_same_everywhere(done.network, tmp_path)


@pytest.mark.parametrize("name", ["kronecker", "monarch"])
def test_terms_are_added_until_the_error_is_kept(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = network_of(nn.Sequential(nn.Linear(64, 64)).eval(), (torch.randn(3, 64),))
    with torch.no_grad():  # terms that halve in size
        sizes = [0.5**term for term in range(3)]
        near = sum(size * torch.kron(torch.randn(8, 8), torch.randn(8, 8)) for size in sizes)
        if name == "monarch":
            near = sum(size * monarch.monarch(torch.randn(64, 64), (8, 8), 1).matrix() for size in sizes)
        network.module.get_submodule("0").weight.copy_(near)
    found = []
    for most in (0.8, 0.4, 0.2):
        (row,) = run(network, FactorizeStructured(structure=name, max_error=most), tmp_path).layers
        assert row["relative_error"] <= most
        found.append((row["ranks"][0], row["parameters_after"]))
    assert found == sorted(found)
    assert found[0] < found[-1]


@pytest.mark.parametrize("name", STEPS)
def test_what_is_far_from_the_structure_stays(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = network_of(nn.Sequential(nn.Linear(64, 64)).eval(), (torch.randn(3, 64),))
    done = run(network, FactorizeStructured(structure=name), tmp_path)
    assert done.network is network
    assert any("left 0 as before: no smaller in factors at this accuracy" in note for note in done.notes)


def test_sides_without_halves_and_without_divisors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = network_of(nn.Sequential(nn.Linear(15, 17)).eval(), (torch.randn(3, 15),))
    assert any("one of its sides is odd" in note for note in run(network, STEPS["toeplitz"], tmp_path).notes)
    done = run(network, FactorizeStructured(structure="kronecker", terms=1), tmp_path)
    assert any("no smaller in factors" in note for note in done.notes)  # 17 is prime: one block takes all products
    done = run(network, FactorizeStructured(structure="monarch", terms=1), tmp_path)
    assert done.layers[0]["parameters_after"] < done.layers[0]["parameters_before"]


def test_a_gate_beside_a_number_of_terms(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = network_of(nn.Sequential(nn.Linear(64, 64)).eval(), (torch.randn(3, 64),))
    assert run(network, FactorizeStructured(terms=1), tmp_path).layers[0]["relative_error"] > 0.9
    assert not run(network, FactorizeStructured(terms=1, max_error=0.5), tmp_path).layers


def test_quantization_goes_on_top(tmp_path: Path) -> None:
    network = network_of(networks.make("transformer"), networks.ZOO["transformer"].inputs(3))
    for name, parts in (
        ("kronecker", ("right", "left")),
        ("monarch", ("first", "second")),
        ("toeplitz", ("products",)),
    ):
        done = run(network, STEPS[name], tmp_path)
        stored = compress(done.network, QuantizeStatic(), tmp_path).quantized["onnxruntime"].weights
        assert {f"{row['name']}.{part}" for row in done.layers for part in parts} <= stored.keys()


def test_a_toeplitz_matrix_has_one_term() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"steps": [{"method": "factorize.structured", "structure": "toeplitz", "terms": 2}]})
    assert "one term" in caught.value.faults[0].detail
