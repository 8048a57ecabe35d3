"""The strategies on a task whose answer is known: each layer is worth something of its own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from app.recipes.methods import SearchArchitecture
from tests.support.networks import ResNet18
from worker.engine.errors import Unsupported
from worker.engine.formats.lift import network_of
from worker.engine.search.costs import Costs
from worker.engine.search.evolution import evolve
from worker.engine.search.judge import Quality
from worker.engine.search.problem import Problem
from worker.engine.search.reinforcement import reinforce
from worker.engine.search.space import Genes, Space, make_space

STRATEGIES = {"evolutionary": evolve, "reinforcement": reinforce}


@pytest.fixture(scope="module")
def space() -> Space:
    torch.manual_seed(0)
    network = network_of(ResNet18(width=16).eval(), (torch.randn(2, 3, 32, 32),))
    return make_space(network, SearchArchitecture(round_to=2))


def worth(space: Space) -> Callable[[Genes, int], Quality]:
    """Two late layers and no others need their channels; a block in the middle is worth nothing."""

    def judge(genes: Genes, macs: int) -> Quality:
        score = 0.0
        for decision, gene in zip(space.decisions, genes, strict=True):
            weight = 3.0 if decision.name in ("layer3.0.conv1", "layer4.0.conv1") else 0.2
            share = decision.options[gene] / decision.options[-1]
            if decision.kind == "depth":
                weight, share = (0.0 if decision.layers[0].startswith("layer3.1") else 0.5), max(share, 0.1)
            score += weight * float(np.log(share))
        return Quality(score, -score, score)

    return judge


def problem(space: Space, judge: Any, trials: int = 64, ratio: float = 0.25, seed: int = 0) -> Problem:
    costs = Costs(space)
    budget = ratio * costs.macs(space.largest)
    return Problem(space, costs, costs.macs, budget, judge, trials, np.random.default_rng(seed))


@pytest.mark.parametrize("name", STRATEGIES)
def test_they_find_what_is_worth_more_than_equal_widths(name: str, space: Space) -> None:
    for seed in (0, 1):
        given = problem(space, worth(space), seed=seed)
        STRATEGIES[name](given, None)
        assert 32 <= len(given.found) <= 64
        assert all(trial.price <= given.budget for trial in given.found.values())
        uniform = given.trial(given.uniform())
        best = given.best()
        assert best.rank > uniform.rank
        assert best.quality.score > uniform.quality.score + 0.8
        # As much random search as there were trials does worse: something was learned.
        random = np.random.default_rng(seed)
        drawn = [given.repaired(given.space.largest, random) for _ in range(64)]
        anything = [given.repaired(tuple(int(random.integers(len(d.options))) for d in space.decisions), random)
                    for _ in range(64)]  # fmt: skip
        assert best.quality.score > np.mean([worth(space)(genes, 0).score for genes in (*drawn, *anything)]) + 1


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_seed_tries_the_same(name: str, space: Space) -> None:
    tried = []
    for seed in (3, 3, 4):
        given = problem(space, worth(space), trials=12, seed=seed)
        STRATEGIES[name](given, None)
        tried.append([*given.found])
    assert tried[0] == tried[1] != tried[2]


def test_a_policy_learns_where_the_worth_is(space: Space) -> None:
    """What it chooses later on is better than what it chose at first."""
    given = problem(space, worth(space), trials=64)
    reinforce(given)
    scores = [trial.quality.score for trial in given.found.values()]
    assert np.mean(scores[-20:]) > np.mean(scores[1:21]) + 0.5


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_space_that_is_small_is_tried_once(name: str, space: Space) -> None:
    few = Space(space.network, space.structure, [d for d in space.decisions if d.kind == "depth"][:2])
    given = problem(few, worth(few), trials=64, ratio=0.95)
    STRATEGIES[name](given, None)
    assert 1 <= len(given.found) <= 4


def test_repair_keeps_the_limit_and_leaves_no_room(space: Space) -> None:
    given = problem(space, worth(space))
    random = np.random.default_rng(0)
    for genes in (space.largest, space.smallest, given.uniform()):
        fitting = given.repaired(genes, random)
        assert given.fits(fitting)
        for index, decision in enumerate(space.decisions):
            if fitting[index] < decision.last:
                larger = (*fitting[:index], fitting[index] + 1, *fitting[index + 1 :])
                assert not given.fits(larger)
    uniform = given.uniform()
    shares = {
        round(d.options[gene] / d.options[-1], 2)
        for d, gene in zip(space.decisions, uniform, strict=True)
        if d.kind == "width"
    }
    assert max(shares) - min(shares) <= 0.13
    assert all(gene == d.last for d, gene in zip(space.decisions, uniform, strict=True) if d.kind != "width")


def test_the_pareto_set_has_nothing_that_something_cheaper_is_as_good_as(space: Space) -> None:
    given = problem(space, worth(space), trials=40)
    evolve(given)
    best = given.best()
    given.look_beside(best)
    found = given.pareto()
    assert best in found
    assert len(found) >= 3
    for one in found:
        for other in given.found.values():
            assert not (other.price <= one.price and other.rank[:2] > one.rank[:2])
    assert [trial.price for trial in found] == sorted(trial.price for trial in found)


def test_a_limit_that_nothing_keeps_is_refused(space: Space) -> None:
    with pytest.raises(Unsupported, match="raise limit_ratio") as caught:
        problem(space, worth(space), ratio=0.001).check()
    assert caught.value.code == "budget_too_small"
