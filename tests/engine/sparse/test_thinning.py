"""Pruning along a training: masks, what they keep zero, and the pull to zero."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from app.recipes.methods import LayerFilter, PruneWeights
from tests.support.quantizable import build, samples
from worker.engine.network import Network
from worker.engine.sparse.criteria import Pruning
from worker.engine.sparse.patterns import follows_fours
from worker.engine.sparse.prunable import prunable, weight_of
from worker.engine.sparse.schedule import PRUNING, TIMES, due, gradual
from worker.engine.sparse.thinning import Thinning

STEPS = 40


def thinning(network: Network, step: PruneWeights) -> Thinning:
    names = prunable(network, LayerFilter(), fours=step.pattern == "2:4").names
    gone = {name: torch.zeros_like(weight_of(network.module, name), dtype=torch.bool) for name in names}
    return Thinning(Pruning(network, names, gone, step, samples(network, 4)))


def trained(
    task: Thinning, network: Network, seen: Callable[[float], None], steps: range = range(STEPS), noise: float = 0.01
) -> None:
    """Steps of an optimizer that knows nothing of masks."""
    for step in steps:
        task.before(network, step / STEPS)
        torch.manual_seed(step)
        with torch.no_grad():
            for parameter in network.module.parameters():
                parameter.add_(torch.randn_like(parameter) * noise)
        task.after(network, (step + 1) / STEPS)
        seen((step + 1) / STEPS)


def sparsity(task: Thinning, network: Network) -> float:
    weights = [weight_of(network.module, name) for name in task.pruning.names]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@pytest.mark.parametrize("criterion", ["magnitude", "sensitivity", "wanda"])
def test_it_follows_the_schedule_and_what_is_gone_stays_gone(criterion: str) -> None:
    network = build("residual")
    task = thinning(network, PruneWeights(sparsity=0.8, schedule="gradual", criterion=criterion))
    working = task.begin()
    gone: dict[str, torch.Tensor] = {}

    def check(share: float) -> None:
        assert sparsity(task, working) == pytest.approx(gradual(due(share), 0.8), abs=0.001)
        for name in task.pruning.names:
            zeros = weight_of(working.module, name) == 0
            assert (zeros >= gone.get(name, False)).all()
            gone[name] = zeros

    trained(task, working, check)
    assert sparsity(task, working) == pytest.approx(0.8, abs=0.001)
    assert sparsity(task, network) == 0


def test_at_once_waits_until_the_rest_of_the_training() -> None:
    network = build("encoder")
    task = thinning(network, PruneWeights(sparsity=0.6, l1=1e-6))
    working = task.begin()
    trained(task, working, lambda share: None, range(round(PRUNING * STEPS) - 1))
    assert sparsity(task, working) < 0.01
    trained(task, working, lambda share: None, range(round(PRUNING * STEPS) - 1, STEPS))
    assert sparsity(task, working) == pytest.approx(0.6, abs=0.001)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_training_ends_pruned(steps: int) -> None:
    network = build("encoder")
    task = thinning(network, PruneWeights(sparsity=0.6, schedule="gradual"))
    working = task.begin()
    for step in range(steps):
        task.before(working, step / steps)
        task.after(working, (step + 1) / steps)
    assert sparsity(task, working) == pytest.approx(0.6, abs=0.001)


def test_two_of_four_come_gradually_too() -> None:
    network = build("encoder")
    task = thinning(network, PruneWeights(pattern="2:4", schedule="gradual"))
    working = task.begin()
    shares: list[float] = []
    trained(task, working, lambda share: shares.append(sparsity(task, working)), noise=0.001)
    assert len(set(shares)) == TIMES
    assert all(follows_fours(weight_of(working.module, name).detach()) for name in task.pruning.names)


def test_l1_brings_weights_nearer_to_zero_by_the_same_amount_each() -> None:
    network = build("encoder")
    task = thinning(network, PruneWeights(sparsity=0.5, l1=2.0, learning_rate=1e-3))
    working = task.begin()
    steps = 20
    trained(task, working, lambda share: None, range(steps), noise=0.0)
    before, after = (weight_of(n.module, "up.weight").detach() for n in (network, working))
    expected = before.sign() * (before.abs() - steps * 2e-3).clamp(min=0)
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-6)
    assert torch.equal(weight_of(working.module, "norm.weight"), weight_of(network.module, "norm.weight"))


@pytest.mark.parametrize(("stop", "l1"), [(1, 20.0), (20, 0.0), (20, 20.0), (33, 20.0)])
def test_going_on_from_what_is_kept_makes_no_difference(stop: int, l1: float) -> None:
    network = build("encoder")
    step = PruneWeights(sparsity=0.7, schedule="gradual", criterion="sensitivity", l1=l1)
    whole, first, second = (thinning(network, step) for _ in range(3))
    expected, one, other = whole.begin(), first.begin(), second.begin()
    trained(whole, expected, lambda share: None)
    trained(first, one, lambda share: None, range(stop))
    other.module.load_state_dict(copy.deepcopy(one.module.state_dict()))
    trained(second, other, lambda share: None, range(stop, STEPS))
    for a, b in zip(expected.module.state_dict().values(), other.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_mode_is_left_as_it_was_and_masks_go() -> None:
    network = build("residual")
    task = thinning(network, PruneWeights(schedule="gradual"))
    working = task.begin()
    working.module.train()
    working.module.get_submodule("norm").eval()
    trained(task, working, lambda share: None)
    assert working.module.get_submodule("one_norm").training
    assert not working.module.get_submodule("norm").training
    assert working.module.state_dict().keys() != network.module.state_dict().keys()
    task.end(working)
    assert working.module.state_dict().keys() == network.module.state_dict().keys()
    assert replace(working, module=network.module) == network
