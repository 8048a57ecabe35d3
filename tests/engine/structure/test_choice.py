"""From scores to choices."""

import numpy as np
import pytest

from tests.support.channels import built
from worker.engine.structure import Family, analyse
from worker.engine.structure.choice import Chooser, allowed
from worker.engine.structure.importance import magnitude, normalized


@pytest.mark.parametrize(
    ("units", "width", "wanted", "round_to", "left"),
    [
        (32, 32, 17, 8, 16), (32, 32, 21, 8, 24), (32, 32, 1, 8, 8), (32, 32, 31, 8, 32), (8, 8, 3, 8, 3),
        (6, 6, 0, 8, 1), (20, 20, 19, 8, 20), (20, 20, 17, 8, 16), (4, 32, 1.4, 8, 1), (4, 12, 2, 8, 2),
        (16, 16, 4, 1, 4), (16, 48, 9, 8, 8),
    ],
)  # fmt: skip
def test_widths_that_kernels_like(units: int, width: int, wanted: float, round_to: int, left: int) -> None:
    assert allowed(Family(("a",), 0, units, width), wanted, round_to) == left


@pytest.mark.parametrize("compete", [True, False])
def test_less_is_left_at_every_step(compete: bool) -> None:
    network = built("mobilenet")
    structure = analyse(network)
    scores = normalized(structure, magnitude(network, structure))
    chooser = Chooser(structure, structure.families, scores, compete, 2)
    steps = range(0, chooser.length + 1, max(chooser.length // 40, 1))
    costs = [structure.macs(chooser.at(step)) for step in steps]
    assert costs == sorted(costs, reverse=True)
    assert chooser.at(0).all()
    for family in structure.families:
        assert 1 <= chooser.at(chooser.length)[family.units].sum() <= 2
    found = chooser.budget(structure.macs(structure.everything()) * 0.5)
    assert found is not None
    assert structure.macs(found) <= 0.5 * structure.macs(structure.everything())
    assert chooser.budget(1) is None


def test_of_equal_scores_no_more_go_than_must() -> None:
    structure = analyse(built("plain"))
    family = structure.families[0]
    dead = np.ones(structure.units)
    dead[family.units] = 0
    chooser = Chooser(structure, structure.families, dead, True, 1)
    for step in range(len(family)):
        gone = ~chooser.at(step)
        assert gone[family.units].sum() == gone.sum() == step


def test_scores_have_mean_one_in_each_family() -> None:
    network = built("plain")
    structure = analyse(network)
    scores = normalized(structure, magnitude(network, structure))
    for family in structure.families:
        assert scores[family.units].mean() == pytest.approx(1)
    weight = network.module.get_submodule("features.0").weight.detach()
    later = network.module.get_submodule("features.3").weight.detach()
    bias = network.module.get_submodule("features.0").bias.detach()
    squares = weight.square().sum((1, 2, 3)) + bias.square() + later.square().sum((0, 2, 3))
    expected = squares.double().sqrt().numpy()
    np.testing.assert_allclose(magnitude(network, structure)[structure.families[0].units], expected, rtol=1e-5)
