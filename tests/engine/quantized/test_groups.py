"""Grids of groups, and what GPTQ, HQQ and AWQ make of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from app.recipes.methods import LayerFilter
from tests.support.quantizable import Encoder, build, samples, sqnr_db
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.formats.lift import network_of
from worker.engine.quantized.awq import activation_aware, input_power
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.form import Quantization
from worker.engine.quantized.gptq import gptq, rounded
from worker.engine.quantized.groups import Grids, GroupForm, grids_of, group_count, grouped, weight_on
from worker.engine.quantized.hqq import half_quadratic
from worker.engine.quantized.observe import tensors
from worker.engine.quantized.placement import called
from worker.engine.quantized.rows import Sampler


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(rows: Tensor, grids: Grids) -> float:
    return float((grids.value(grids.nearest(rows)) - rows).square().sum())


@settings(deadline=None)
@given(each=st.integers(1, 3000), size=st.sampled_from([-1, 16, 32, 64, 128]))
def test_groups_are_of_one_length(each: int, size: int) -> None:
    count = group_count(torch.Size([3, each]), size)
    assert each % count == 0
    assert count == 1 or size / 2 <= each // count <= size


@settings(deadline=None, max_examples=50)
@given(bits=st.sampled_from([2, 3, 4, 8]), symmetric=st.booleans(), seed=st.integers(0, 1000), shift=st.floats(-3, 3))
def test_a_grid_is_no_worse_than_the_one_of_the_whole_range(
    bits: int, symmetric: bool, seed: int, shift: float
) -> None:
    rows = normal(4, 3, 32, seed=seed) + shift
    form = GroupForm(bits, 32, symmetric)
    best = grids_of(rows, form)
    assert error(rows, best) <= error(rows, grids_of(rows, form, tried=1)) + 1e-6
    integers = best.nearest(rows)
    assert integers.min() >= -(1 << (bits - 1))
    assert integers.max() < 1 << (bits - 1)
    assert torch.all(best.scale > 0)


@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_and_constants_are_exact(symmetric: bool) -> None:
    rows = torch.stack([torch.zeros(1, 16), torch.full((1, 16), 0.5), torch.full((1, 16), -0.25)])
    grids = grids_of(rows, GroupForm(4, 16, symmetric))
    torch.testing.assert_close(grids.value(grids.nearest(rows)), rows, atol=1e-3, rtol=0)


def test_importance_moves_the_grid_to_what_matters() -> None:
    rows = normal(8, 1, 64)
    importance = torch.where(torch.arange(64) < 8, 100.0, 0.01).expand(8, 1, 64)
    form = GroupForm(3, 64, False)

    def weighted(grids: Grids) -> float:
        return float(((grids.value(grids.nearest(rows)) - rows).square() * importance).sum())

    assert weighted(grids_of(rows, form, importance)) < 0.9 * weighted(grids_of(rows, form))


def test_the_stored_weight_is_what_the_grids_say() -> None:
    layer = nn.Linear(64, 6)
    form = GroupForm(4, 16, False)
    rows = grouped(layer.weight, form)
    grids = grids_of(rows, form)
    weight = weight_on(layer, "weight", grids, grids.nearest(rows))
    assert weight.zero_point is not None
    assert weight.zero_point.dtype == torch.int8
    torch.testing.assert_close(weight.dequantized(), grids.value(grids.nearest(rows)).reshape(6, 64))
    assert weight.stored_bits == 6 * 64 * 4 + 24 * (32 + 4)


def output_error(weight: Tensor, other: Tensor, moments: Tensor) -> float:
    delta = other - weight
    return float(((delta @ moments) * delta).sum())


def correlated(k: int, rows: int = 2000) -> Tensor:
    """E[x x^T] of inputs of which neighbours resemble each other and some are large."""
    x = normal(rows, k) @ (torch.eye(k) + 0.9 * torch.eye(k).roll(1, 0)) * torch.linspace(0.2, 3, k)
    return x.T @ x / rows


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_gptq_makes_good_what_rounding_does(bits: int, symmetric: bool) -> None:
    weight, moments = normal(16, 192), correlated(192)
    form = GroupForm(bits, 64, symmetric)
    rows = grouped(weight, form)
    grids = grids_of(rows, form, moments.diagonal().expand(16, -1).reshape(rows.shape))
    integers = rounded(weight, moments, grids)
    mine = grids.value(integers.reshape(rows.shape)).reshape(weight.shape)
    nearest = grids.value(grids.nearest(rows)).reshape(weight.shape)
    assert output_error(weight, mine, moments) < 0.85 * output_error(weight, nearest, moments)


def test_gptq_bears_dead_and_dependent_inputs() -> None:
    weight, moments = normal(4, 32), torch.ones(32, 32)
    moments[5], moments[:, 5] = 0.0, 0.0
    grids = grids_of(grouped(weight, GroupForm(4, -1, True)), GroupForm(4, -1, True))
    integers = rounded(weight, moments, grids)
    assert torch.isfinite(integers).all()
    assert torch.equal(integers[:, 5], torch.zeros(4)), "an input that is always 0 needs no weight"
    assert torch.isfinite(rounded(weight, torch.zeros(32, 32), grids)).all()


@pytest.mark.parametrize("name", ["residual", "mobile", "signal"])
def test_gptq_takes_convolutions_of_every_kind(name: str) -> None:

    network = fold_batch_norm(build(name))
    paths = [name for name, part in network.module.named_modules() if isinstance(part, nn.Conv2d | nn.Conv1d)]
    found = gptq(network, samples(network), dict.fromkeys(paths, GroupForm(4, 32, False)))
    assert {path: weight.shape for path, weight in found.items()} == {
        path: network.module.get_submodule(path).weight.shape for path in paths
    }
    inputs = tensors(samples(network, 32, seed=4).inputs, network, "cpu")
    with torch.no_grad():
        expected, got = network.module(*inputs)[0], fake_quantized(Quantization(network, found))(*inputs)[0]
    assert sqnr_db(expected, got) > 15


def test_a_half_quadratic_zero_point_lets_outliers_go() -> None:
    rows = normal(32, 2, 64)
    rows[..., 0] *= 12
    form = GroupForm(3, 64, False)
    robust, plain = half_quadratic(rows, form), grids_of(rows, form, tried=1)

    def small_errors(grids: Grids) -> float:
        return float((grids.value(grids.nearest(rows)) - rows).abs().pow(0.7).sum())

    assert small_errors(robust) < small_errors(plain)
    assert robust.zero_point is not None
    assert not torch.equal(robust.zero_point, robust.zero_point.round())


def test_awq_changes_nothing_in_float_and_helps_large_inputs() -> None:
    torch.manual_seed(0)
    module = Encoder().eval()
    with torch.no_grad():
        module.norm.weight[[2, 9]] = 20.0
    network = network_of(module, (torch.randn(3, 7, 16),))
    data, form = samples(network, 64), GroupForm(3, 16, False)
    moved, told = activation_aware(network, data, LayerFilter(), form)
    assert told == ["awq: scales were moved at 2 places"]
    inputs = tensors(data.inputs, network, "cpu")
    with torch.no_grad():
        before, after = network.module(*inputs)[0], moved.module(*inputs)[0]
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    power = input_power(network, data, ["qkv"])["qkv"][0]
    assert set(power.topk(2).indices.tolist()) == {2, 9}
    scale = network.module.get_submodule("norm").weight / moved.module.get_submodule("norm").weight
    assert set(scale.abs().topk(2).indices.tolist()) == {2, 9}


def test_the_power_of_inputs_is_that_of_patches() -> None:
    network = build("mobile")
    data = samples(network)
    paths = ["depthwise", "grouped", "expand"]
    power = input_power(network, data, paths)
    assert {path: tuple(value.shape) for path, value in power.items()} == {
        "depthwise": (24, 9),
        "grouped": (16, 12 * 9),
        "expand": (1, 8),
    }
    sampler = Sampler(network, network.module, data, "cpu", 0)
    for path, layer, calls in called(network.module, paths):
        seen = sampler.rows(calls, layer).inputs.square().mean(0)  # (groups, k), with zeros of padding
        each = seen.repeat_interleave(len(power[path]) // len(seen), 0)
        ratio = each / power[path].clamp(min=1e-9)
        assert float(ratio[power[path] > 1e-3].mean()) == pytest.approx(1.0, abs=0.25)
