"""Evaluations: how samples are divided, what batch norms see, and what a score is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.recipes.methods import SearchArchitecture
from tests.support import handwriting
from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset
from worker.engine.formats.lift import network_of
from worker.engine.network import Network
from worker.engine.search.judge import Judge, recalibrate, split_for_search
from worker.engine.search.space import make_space


@pytest.fixture(scope="module")
def network() -> Network:
    return network_of(handwriting.trained(norm=True, width=8), (torch.zeros(2, 1, 8, 8),))


def judge(network: Network, training: Samples, held: Samples, task: str | None) -> Judge:
    space = make_space(network, SearchArchitecture(round_to=2))
    return Judge(space, network, network, training, held, task, "cpu", 0)


def test_samples_are_split_for_search_by_seed(network: Network) -> None:
    given = handwriting.training(network)
    parts = [split_for_search(given, seed) for seed in (0, 0, 1)]
    name = network.inputs[0].name
    assert len(parts[0][0]) + len(parts[0][1]) == len(given)
    assert len(parts[0][1]) == len(given) // 5
    np.testing.assert_array_equal(parts[0][1].inputs[name], parts[1][1].inputs[name])
    assert not np.array_equal(parts[0][1].inputs[name], parts[2][1].inputs[name])
    with pytest.raises(InvalidDataset) as caught:
        split_for_search(given.take(np.arange(9)), 0)
    assert caught.value.code == "too_few_samples"


def test_a_score_is_the_metric_on_held_back_samples(network: Network) -> None:
    training, held = split_for_search(handwriting.training(network), 0)
    given = judge(network, training, held, "classification")
    found = given(given.space.largest, 100)
    made = given.made(given.space.largest, 100)
    with torch.no_grad():
        scores = made.module(torch.from_numpy(np.asarray(next(iter(held.inputs.values())))))[0]
    right = float((scores.argmax(1).numpy() == np.asarray(held.labels)).mean())
    assert found.metric == found.score == pytest.approx(right, abs=0.02)
    assert found.loss == pytest.approx(
        float(nn.functional.cross_entropy(scores, torch.from_numpy(np.asarray(held.labels)))), abs=0.1
    )
    assert given.name == "accuracy"
    assert given.work > 100 * len(held)
    unlabelled = judge(network, training, Samples(held.inputs), None)
    assert unlabelled(given.space.largest, 100).metric > 0.9  # its own answers, but for the statistics


def test_less_error_is_a_better_score() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1))
    network = network_of(net.eval(), (torch.zeros(2, 5),))
    x = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
    with torch.no_grad():
        y = net(torch.from_numpy(x)).numpy()
    samples = Samples({network.inputs[0].name: x}, y)
    given = judge(network, *split_for_search(samples, 0), "regression")
    whole, least = (given(genes, 1) for genes in (given.space.largest, given.space.smallest))
    assert given.name == "mse"
    assert whole.metric == pytest.approx(0, abs=1e-6)
    assert least.metric > whole.metric
    assert least.score < whole.score


def test_batch_norms_have_the_mean_statistics_of_what_they_see(network: Network, tmp_path: Path) -> None:
    copy = handwriting.copied(network)
    norm = copy.module.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    x = torch.randn(64, 1, 8, 8) * 3 + 1
    momentum = norm.momentum
    assert recalibrate(copy, [[x[:32]], [x[32:]]]) == 64
    with torch.no_grad():
        seen = copy.module.get_submodule("0")(x)
    torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert norm.momentum == momentum
    assert not norm.training
    plain = network_of(nn.Sequential(nn.Linear(3, 2)).eval(), (torch.zeros(2, 3),))
    assert recalibrate(plain, [[torch.zeros(4, 3)]]) == 0
