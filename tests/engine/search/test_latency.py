"""The table of layers: what it says of the whole, of narrower networks, and between its points."""

import numpy as np
import pytest
import torch

from app.recipes.methods import SearchArchitecture
from tests.support.networks import MobileNet, ResNet18
from tests.support.quantizable import Notebook
from worker.engine.formats.lift import network_of
from worker.engine.search.costs import Costs
from worker.engine.search.latency import LatencyTable, _between
from worker.engine.search.space import Space, make_space


def space(module: torch.nn.Module, size: int) -> Space:
    network = network_of(module.eval(), (torch.randn(2, 3, size, size),))
    return make_space(network, SearchArchitecture(round_to=4, widths=(0.25, 0.5)))


def test_less_takes_less_time_and_weights_add_up() -> None:
    torch.manual_seed(0)
    given = space(ResNet18(width=32), 64)
    table, costs = LatencyTable(given, Notebook()), Costs(given)
    whole = table(given.largest)
    assert 0 < table(given.smallest) < 0.7 * whole
    for index, decision in enumerate(given.decisions):
        if decision.kind == "depth":
            without = (*given.largest[:index], 0, *given.largest[index + 1 :])
            assert table(without) < whole
    counts, weights = costs.by_node(given.largest), table.weights(costs)
    assert sum(weights[node] * count for node, count in counts.items()) == pytest.approx(whole)


def test_depthwise_layers_are_in_the_table() -> None:
    torch.manual_seed(0)
    given = space(MobileNet(), 32)
    table = LatencyTable(given, Notebook())
    assert table(given.largest) > 0
    assert table(given.smallest) > 0


def test_between_its_points_it_is_linear_and_below_them_proportional() -> None:
    times = np.array([[1.0, 2.0, 4.0], [2.0, 4.0, 8.0], [4.0, 8.0, 16.0]])
    assert _between(times, 1.0, 1.0) == 16
    assert _between(times, 0.5, 0.25) == 2
    assert _between(times, 0.75, 1.0) == 12
    assert _between(times, 0.125, 1.0) == 2
    assert _between(times, 0.25, 0.125) == 0.5
