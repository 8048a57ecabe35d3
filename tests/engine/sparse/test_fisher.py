"""E[g^2] against what can be computed by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support import everything
from worker.engine.data.samples import Samples
from worker.engine.errors import InvalidDataset
from worker.engine.formats.lift import network_of
from worker.engine.network import Network
from worker.engine.sparse.fisher import squared_gradients


def linear(classes: int = 3) -> tuple[Network, np.ndarray]:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    return network_of(nn.Sequential(nn.Linear(4, classes)).eval(), (torch.zeros(2, 4),)), (
        random.standard_normal((200, 4)).astype(np.float32)
    )


def samples(network: Network, x: np.ndarray, labels: np.ndarray | None = None) -> Samples:
    return Samples({network.inputs[0].name: x}, labels)


def chances(network: Network, x: np.ndarray) -> Tensor:
    with torch.no_grad():
        return torch.softmax(network.module(torch.from_numpy(x))[0], 1)


def test_of_labels_it_is_the_mean_of_each_samples_square() -> None:
    network, x = linear()
    labels = np.random.default_rng(1).integers(0, 3, len(x))
    found = squared_gradients(network, samples(network, x, labels), ["0.weight"], task="classification")
    p = chances(network, x) - nn.functional.one_hot(torch.from_numpy(labels), 3)
    expected = torch.einsum("bc,bi->ci", p.square(), torch.from_numpy(x).square()) / len(x)
    torch.testing.assert_close(found["0.weight"], expected)


@pytest.mark.parametrize("task", [None, "classification"])
def test_without_labels_it_is_the_information_of_the_scores(task: str | None) -> None:
    network, x = linear()
    x = np.tile(x, (15, 1))
    found = squared_gradients(network, samples(network, x), ["0.weight"], task=task)
    p = chances(network, x)
    expected = torch.einsum("bc,bi->ci", p * (1 - p), torch.from_numpy(x).square()) / len(x)
    torch.testing.assert_close(found["0.weight"], expected, rtol=0.15, atol=0)


def test_of_probabilities_it_is_that_of_their_scores() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3)).eval()
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    one, other = (
        network_of(nn.Sequential(*module, *more).eval(), (torch.zeros(2, 4),)) for more in ([], [nn.Softmax(1)])
    )
    found = [squared_gradients(n, samples(n, x), ["0.weight"])["0.weight"] for n in (one, other)]
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-6)


def test_numbers_count_in_units_of_their_variance() -> None:
    network, x = linear(1)
    x = np.tile(x, (15, 1))
    found = squared_gradients(network, samples(network, x), ["0.weight"], task="regression")
    with torch.no_grad():
        variance = network.module(torch.from_numpy(x))[0].var(correction=0)
    expected = torch.from_numpy(x).square().mean(0, keepdim=True) / variance
    torch.testing.assert_close(found["0.weight"], expected, rtol=0.25, atol=0)


def test_the_network_stays_as_it_is_and_recurrent_layers_count() -> None:
    network = everything.words()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    names = ["lstm.weight_ih_l0", "lstm.weight_hh_l0_reverse", "gru.weight_hh_l0", "head.weight"]
    found = squared_gradients(network, everything.samples(network, 16, 1), names, task="classification")
    assert all(value.shape == before[name].shape and (value > 0).any() for name, value in found.items())
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())
    assert all(p.grad is None for p in network.module.parameters())


def test_samples_that_are_no_numbers_are_refused() -> None:
    network, x = linear()
    x[7, 2] = np.nan
    with pytest.raises(InvalidDataset) as caught:
        squared_gradients(network, samples(network, x), ["0.weight"])
    assert caught.value.code == "not_finite"
