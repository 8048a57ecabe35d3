"""Narrower and shallower copies."""

import pytest

from tests.support.channels import built
from worker.engine.measure.macs import count_macs, random_inputs
from worker.engine.structure.smaller import smaller


@pytest.mark.parametrize(("width", "depth"), [(0.5, 1.0), (1.0, 0.5), (0.5, 0.5)])
@pytest.mark.parametrize("name", ["resnet18", "bert"])
def test_a_copy_is_smaller_and_the_network_stays(name: str, width: float, depth: float) -> None:
    network = built(name)
    inputs, parameters = random_inputs(network, 2), network.parameters
    copy, notes = smaller(network, width=width, depth=depth)
    assert network.parameters == parameters
    share = sum(count_macs(copy).values()) / sum(count_macs(network).values())
    assert share < 0.9 * width * (1 if depth == 1 else 0.95)
    assert [value.shape for value in copy.module(*inputs)] == [value.shape for value in network.module(*inputs)]
    assert any("narrower" in note for note in notes) == (width < 1)
    assert any("residual blocks" in note for note in notes) == (depth < 1)
