"""Equalization changes the ranges of weights and nothing else."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from app.recipes.methods import LayerFilter, QuantizeStatic
from tests.support.quantizable import NETWORKS, build, compress, samples, sqnr_db
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.formats.lift import network_of
from worker.engine.network import Network
from worker.engine.quantized.equalize import equalize
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.observe import tensors
from worker.engine.quantized.placement import LAYERS
from worker.engine.quantized.scaling import groups, input_range

ALL = LayerFilter()


class Chain(nn.Module):
    """Convolution, depthwise and grouped convolution, pooling, linear layers; ranges differ a hundredfold."""

    def __init__(self, width: int = 8, groups: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.grouped = nn.Conv2d(width, 2 * width, 1, groups=groups)
        self.hidden, self.head = nn.Linear(2 * width, 12), nn.Linear(12, 5)
        with torch.no_grad():
            for layer in (self.first, self.depthwise, self.grouped, self.hidden):
                layer.weight *= torch.logspace(-1, 1, len(layer.weight)).reshape(-1, *[1] * (layer.weight.dim() - 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.depthwise(F.relu(self.first(x))))
        x = F.leaky_relu(F.avg_pool2d(self.grouped(x), 2), 0.1).mean((2, 3))
        return self.head(F.relu(self.hidden(x)))


def same(network: Network, other: Network, tolerance: float = 1e-4) -> None:
    inputs = tensors(samples(network, 8).inputs, network, "cpu")
    with torch.no_grad():
        for one, two in zip(network.module(*inputs), other.module(*inputs), strict=True):
            torch.testing.assert_close(two, one, rtol=tolerance, atol=tolerance)


@settings(deadline=None, max_examples=15)
@given(st.sampled_from([4, 6, 8]), st.sampled_from([1, 2]), st.integers(0, 1000))
def test_the_network_computes_the_same(width: int, groups: int, seed: int) -> None:
    torch.manual_seed(seed)
    network = network_of(Chain(width, groups), (torch.randn(2, 3, 8, 8),))
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    result, notes = equalize(network, ALL)
    assert result is not network
    assert notes == ["4 layers were equalized with those that read them"]
    same(network, result)
    for name, value in network.module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_ranges_meet() -> None:
    torch.manual_seed(0)
    result, _ = equalize(network_of(Chain(), (torch.randn(2, 3, 8, 8),)), ALL)
    layers = {name: result.module.get_submodule(name) for name in ("first", "depthwise", "grouped", "hidden", "head")}
    for one, two in (("first", "depthwise"), ("depthwise", "grouped"), ("grouped", "hidden"), ("hidden", "head")):
        weight = layers[one].weight
        torch.testing.assert_close(
            weight.detach().reshape(len(weight), -1).abs().amax(1), input_range(layers[two]), rtol=0.05, atol=1e-6
        )


def test_one_scale_for_a_tensor_is_worth_more_after_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = network_of(Chain(), (torch.randn(2, 3, 8, 8),))
    inputs = tensors(samples(network, 64, seed=9).inputs, network, "cpu")
    found = []
    for flag in (False, True):
        done = compress(network, QuantizeStatic(granularity="tensor", equalize=flag), tmp_path)
        with torch.no_grad():
            found.append(sqnr_db(network.module(*inputs)[0], fake_quantized(done.quantized["onnxruntime"])(*inputs)[0]))
    assert found[1] > found[0] + 2


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_what_cannot_be_scaled_is_left_alone(name: str) -> None:
    network = fold_batch_norm(build(name))
    result, notes = equalize(network, ALL)
    assert len(notes) == 1
    same(network, result)


def test_a_clip_an_addition_and_a_second_call_stand_in_the_way() -> None:
    class Tangled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Conv2d(4, 4, 1) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            x = self.b(F.relu6(self.a(x)))  # a clip
            y = self.c(x)
            x = self.d(F.relu(y + x))  # an addition
            return self.d(F.relu(x))  # a second call

    network = network_of(Tangled(), (torch.randn(2, 4, 5, 5),))
    assert groups(network, ALL, LAYERS) == []
    assert equalize(network, ALL)[0] is network


def test_a_shape_that_deceives_is_found_out() -> None:
    class Deceiving(nn.Module):
        """As many positions as channels: the linear layer reads positions."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 16, 1), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.conv(x)).flatten(2))

    network = network_of(Deceiving(), (torch.randn(2, 3, 4, 4),))
    assert groups(network, ALL, LAYERS) == []


def test_the_filter_is_kept() -> None:
    network = network_of(Chain(), (torch.randn(2, 3, 8, 8),))
    found = groups(network, LayerFilter(exclude=("grouped",)), LAYERS)
    assert [(group.producer, group.consumers) for group in found] == [("first", ("depthwise",)), ("hidden", ("head",))]


def test_empty_channels_stay_finite() -> None:
    torch.manual_seed(0)
    module = Chain()
    with torch.no_grad():
        module.first.weight[0] = 0
        module.hidden.weight[:, 3] = 0
    network = network_of(module, (torch.randn(2, 3, 8, 8),))
    result, _ = equalize(network, ALL)
    assert all(math.isfinite(float(p.detach().abs().sum())) for p in result.module.parameters())
    same(network, result)
