"""Which weights of whole networks go."""

import copy
from dataclasses import replace

import pytest
import torch

from app.recipes.methods import LayerFilter, PruneWeights
from tests.support import everything
from tests.support.quantizable import build, samples
from worker.engine.data.samples import Samples
from worker.engine.network import Network
from worker.engine.sparse.criteria import Pruning, lamp
from worker.engine.sparse.prunable import prunable, weight_of


def pruning(network: Network, step: PruneWeights, data: Samples | None = None) -> Pruning:
    network = replace(network, module=copy.deepcopy(network.module))
    names = prunable(network, LayerFilter(), fours=step.pattern == "2:4").names
    gone = {name: torch.zeros_like(weight_of(network.module, name), dtype=torch.bool) for name in names}
    return Pruning(network, names, gone, step, data or samples(network))


def test_lamp_is_the_formula_of_the_paper() -> None:
    weight = torch.tensor([[3.0, -1.0], [2.0, 0.5]])
    expected = torch.tensor([[1.0, 1 / 14], [4 / 13, 0.25 / 14.25]])
    torch.testing.assert_close(lamp(weight), expected)
    torch.testing.assert_close(lamp(weight * 100), lamp(weight))
    assert not lamp(torch.zeros(3)).any()


def test_across_layers_a_scale_that_a_norm_undoes_makes_no_difference() -> None:
    network = build("residual")
    scaled = replace(network, module=copy.deepcopy(network.module))
    with torch.no_grad():
        weight_of(scaled.module, "one.weight").mul_(50)
    masks = [pruning(one, PruneWeights(sparsity=0.8)).prune(0.8) for one in (network, scaled)]
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    shares = [float(mask.float().mean()) for mask in masks[0].values()]
    assert max(shares) > min(shares) + 0.1  # it is not the same in each
    assert max(shares) < 1


@pytest.mark.parametrize("criterion", ["magnitude", "sensitivity", "wanda", "sparsegpt"])
@pytest.mark.parametrize("name", ["residual", "mobile", "signal", "encoder", "attention", "two_inputs"])
def test_of_every_network_the_share_is_met(name: str, criterion: str) -> None:
    task = pruning(build(name), PruneWeights(criterion=criterion))
    masks = task.prune(0.6)
    zeros, total = 0, 0
    for key in task.names:
        weight = weight_of(task.network.module, key)
        assert torch.equal(weight == 0, masks[key])
        zeros, total = zeros + int(masks[key].sum()), total + weight.numel()
        if not task.step.across_layers:
            assert abs(int(masks[key].sum()) - 0.6 * weight.numel()) <= 1
    assert abs(zeros - 0.6 * total) <= (1 if task.step.across_layers else len(task.names))


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_what_cannot_be_seen_goes_by_magnitude(criterion: str) -> None:
    network = everything.words()
    task = pruning(network, PruneWeights(criterion=criterion), everything.samples(network, 16, 1))
    masks = task.prune(0.5)
    recurrent = [name for name in task.names if name != "head.weight"]
    assert task.blind() == recurrent
    for name in recurrent:
        before = weight_of(network.module, name).detach().abs()
        assert before[masks[name]].max() <= before[~masks[name]].min()


def test_by_sensitivity_a_layer_goes_first_that_hardly_changes_its_answer() -> None:
    module = copy.deepcopy(build("branches").module)
    with torch.no_grad():
        weight_of(module, "d.weight").mul_(1e-4)
    task = pruning(replace(build("branches"), module=module), PruneWeights(criterion="sensitivity"))
    masks = task.prune(0.3)
    shares = {name: float(mask.float().mean()) for name, mask in masks.items()}
    assert shares.pop("d.weight") == 1
    assert max(shares.values()) < 0.5
