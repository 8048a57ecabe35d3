"""Two and three values: what the papers say, on every row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worker.engine.quantized.form import looked_up
from worker.engine.quantized.signs import binary, ternary


def books(rows: int, count: int, seed: int) -> Tensor:
    return torch.randn(rows, count, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=50)
@given(rows=st.integers(1, 4), count=st.integers(1, 300), seed=st.integers(0, 1000))
def test_ternary_is_that_of_the_paper(rows: int, count: int, seed: int) -> None:
    values = books(rows, count, seed)
    centroids, codes = ternary(values)
    for row, got in zip(values, looked_up(codes, centroids), strict=True):
        large = row.abs() > 0.7 * row.abs().mean()
        scale = row.abs()[large].mean()
        torch.testing.assert_close(got, torch.where(large, row.sign() * scale, torch.zeros_like(row)))


@settings(deadline=None, max_examples=50)
@given(rows=st.integers(1, 4), count=st.integers(1, 300), seed=st.integers(0, 1000))
def test_binary_has_the_scale_of_least_error(rows: int, count: int, seed: int) -> None:
    values = books(rows, count, seed)
    centroids, codes = binary(values)
    got = looked_up(codes, centroids)
    assert torch.equal(got >= 0, values >= 0)
    error = (got - values).square().sum(1)
    for factor in (0.99, 1.01):
        assert bool((error <= (got * factor - values).square().sum(1) + 1e-6).all())


@pytest.mark.parametrize("find", [ternary, binary])
def test_a_channel_of_zeros_stays_one(find: object) -> None:
    values = torch.stack([torch.zeros(9), torch.ones(9)])
    centroids, codes = find(values)  # type: ignore[operator]
    torch.testing.assert_close(looked_up(codes, centroids), values)
