"""Codebooks are those of least squared error, or close to it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worker.engine.quantized.kmeans import codebooks, vector_codebook


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=60)
@given(bits=st.integers(1, 8), count=st.integers(1, 300), rows=st.integers(1, 4), seed=st.integers(0, 1000))
def test_every_weight_is_next_to_its_centroid(bits: int, count: int, rows: int, seed: int) -> None:
    values = normal(rows, count, seed=seed)
    centroids, codes = codebooks(values, bits)
    assert centroids.shape == (rows, 1 << bits)
    assert torch.isfinite(centroids).all()
    mine = (values - centroids.gather(1, codes.long())).abs()
    nearest = (values[..., None] - centroids[:, None]).abs().amin(2)
    torch.testing.assert_close(mine, nearest, atol=1e-6, rtol=0)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_it_is_as_good_as_lloyd_max_on_a_normal_distribution(bits: int) -> None:
    """Distortion of the optimal quantizer of a unit normal (Max 1960, table I)."""
    values = normal(1, 200_000)
    centroids, codes = codebooks(values, bits)
    error = float((values - centroids.gather(1, codes.long())).square().mean())
    assert error == pytest.approx({1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497}[bits], rel=0.03)


def test_few_different_values_are_exact() -> None:
    values = torch.tensor([[0.0, 0.5, -2.0, 0.5, 0.0, 7.0]])
    centroids, codes = codebooks(values, 2)
    torch.testing.assert_close(centroids.gather(1, codes.long()), values)
    constant, codes = codebooks(torch.full((2, 9), 3.0), 4)
    torch.testing.assert_close(constant.gather(1, codes.long()), torch.full((2, 9), 3.0))


def test_vectors_that_go_together_are_found() -> None:
    centres = normal(16, 4, seed=1) * 5
    points = centres[torch.arange(800) % 16] + 0.01 * normal(800, 4)
    centroids, codes = vector_codebook(points, 4, seed=0)
    assert float((points - centroids[codes.long()]).square().mean()) < 0.05 * float(points.var())
    again, _ = vector_codebook(points, 4, seed=0)
    assert torch.equal(again, centroids)
