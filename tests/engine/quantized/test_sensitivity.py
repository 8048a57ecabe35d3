"""Costs of layers are measured, and bits are allotted by a proven optimum."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.quantizable import build, samples
from worker.engine.formats.fold import fold_batch_norm
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.form import Quantization
from worker.engine.quantized.groups import GroupForm, nearest
from worker.engine.quantized.observe import tensors
from worker.engine.quantized.sensitivity import allotted, costs

CHOICES = (8, 4, 2)
figures = st.lists(st.floats(1e-9, 10.0), min_size=3, max_size=3)


@settings(deadline=None, max_examples=60)
@given(table=st.lists(figures, min_size=1, max_size=4), data=st.data())
def test_no_other_choice_is_better(table: list[list[float]], data: st.DataObject) -> None:
    weights = [data.draw(st.integers(1, 1000)) for _ in table]
    costs_ = {str(at): dict(zip(CHOICES, sorted(row), strict=True)) for at, row in enumerate(table)}
    sizes = {str(at): {bits: float(bits * count) for bits in CHOICES} for at, count in enumerate(weights)}
    budget = data.draw(st.floats(2.0, 8.0)) * sum(weights)
    found = allotted(costs_, sizes, budget)
    assert sum(sizes[path][bits] for path, bits in found.items()) <= budget * (1 + 1e-6)
    best = min(
        sum(costs_[str(at)][bits] for at, bits in enumerate(bits_))
        for bits_ in itertools.product(CHOICES, repeat=len(table))
        if sum(sizes[str(at)][bits] for at, bits in enumerate(bits_)) <= budget
    )
    largest = max(max(row) for row in table)
    assert sum(costs_[path][bits] for path, bits in found.items()) <= best + 1e-5 * largest


def test_a_budget_that_nothing_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="smallest choice"):
        allotted({"a": {8: 0.1, 4: 0.2}}, {"a": {8: 80.0, 4: 40.0}}, 30.0)


@pytest.mark.parametrize("name", ["residual", "encoder", "two_inputs"])
def test_a_cost_is_the_error_of_the_network_with_that_layer_rounded(name: str) -> None:
    network = fold_batch_norm(build(name))
    paths = [path for path, part in network.module.named_modules() if hasattr(part, "weight") and part.weight.dim() > 1]
    candidates = {
        path: {bits: nearest(network, path, GroupForm(bits, 16, False)) for bits in CHOICES} for path in paths
    }
    before = {key: value.clone() for key, value in network.module.state_dict().items()}
    found = costs(network, samples(network, 40), candidates)
    inputs = tensors(samples(network, 40).inputs, network, "cpu")
    with torch.no_grad():
        expected = network.module(*inputs)
        for path in paths:
            assert found[path][2] > found[path][4] > found[path][8] > 0
            got = fake_quantized(Quantization(network, {path: candidates[path][4]}))(*inputs)
            noise = sum(float((a - b).square().sum()) for a, b in zip(got, expected, strict=True))
            signal = sum(float(value.square().sum()) for value in expected)
            assert found[path][4] == pytest.approx(noise / signal, rel=1e-3)
    assert all(torch.equal(value, before[key]) for key, value in network.module.state_dict().items())
