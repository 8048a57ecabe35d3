"""Tucker-2 of kernels, and CP."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worker.engine.factorized.ranks import RankRule
from worker.engine.factorized.tucker import Tucker, chosen_ranks, even_share, noise_ranks, tucker, weights

shapes = st.tuples(st.integers(2, 12), st.integers(2, 12), st.sampled_from([(3,), (3, 3), (1, 5)]))


def kernel(outputs: int, inputs: int, sizes: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(outputs, inputs, *sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole(found: Tucker) -> Tensor:
    return torch.einsum("os,st...,ti->oi...", found.expand, found.core, found.reduce)


@settings(deadline=None, max_examples=30)
@given(shapes, st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_exact_where_the_ranks_suffice(shape: tuple[int, int, tuple[int, ...]], t: int, s: int, seed: int) -> None:
    outputs, inputs, sizes = shape
    t, s = min(t, inputs), min(s, outputs)
    weight = torch.einsum(
        "os,st...,ti->oi...", kernel(outputs, s, (), seed), kernel(s, t, sizes, seed + 1), kernel(t, inputs, (), seed)
    )
    found = tucker(weight, (t, s))
    assert found.error < 1e-6
    torch.testing.assert_close(whole(found), weight, rtol=1e-5, atol=1e-6 * float(weight.abs().max()))


@settings(deadline=None, max_examples=30)
@given(shapes, st.floats(0.01, 0.99), st.integers(0, 99))
def test_the_promised_error_is_kept(shape: tuple[int, int, tuple[int, ...]], most: float, seed: int) -> None:
    weight = kernel(*shape, seed)
    found = tucker(weight, chosen_ranks(weight, RankRule(lost=most**2)))
    assert found.error <= most + 1e-9
    assert float((weight - whole(found)).norm() / weight.norm()) == pytest.approx(found.error, abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(shapes, st.integers(1, 6), st.integers(1, 6))
def test_rounds_do_better_than_singular_vectors_alone(shape: tuple[int, int, tuple[int, ...]], t: int, s: int) -> None:
    weight = kernel(*shape, 0)
    t, s = min(t, weight.shape[1]), min(s, weight.shape[0])
    first, second = (torch.linalg.svd(weight.movedim(axis, 0).flatten(1)).U for axis in (1, 0))
    inner, outer = first[:, :t] @ first[:, :t].T, second[:, :s] @ second[:, :s].T
    start = torch.einsum("po,oi...,iq->pq...", outer, weight, inner)
    assert tucker(weight, (t, s)).error <= float((weight - start).norm() / weight.norm()) + 1e-9


@given(st.integers(8, 64), st.integers(8, 64), st.sampled_from([(3,), (3, 3)]), st.floats(0.2, 0.9))
def test_a_ratio_is_a_share_of_the_weights(outputs: int, inputs: int, sizes: tuple[int, ...], ratio: float) -> None:
    shape = (outputs, inputs, *sizes)
    share = even_share(shape, ratio)
    size = torch.Size(shape).numel()
    kept = share**2 * size + share * (outputs**2 + inputs**2)
    assert kept == pytest.approx(ratio * size)


def test_weights_are_counted() -> None:
    found = tucker(kernel(8, 6, (3, 3), 0), (4, 5))
    assert weights((8, 6, 3, 3), (4, 5)) == sum(part.numel() for part in (found.reduce, found.core, found.expand))
    assert weights((8, 6, 3), (6, 8)) == 8 * 6 * 3


def test_ranks_that_stand_above_noise() -> None:
    weight = torch.einsum("os,styx,ti->oiyx", kernel(48, 4, (), 0), kernel(4, 6, (3, 3), 1), kernel(6, 32, (), 2))
    noise = 0.02 * float(weight.std()) * kernel(48, 32, (3, 3), 3)
    assert noise_ranks(weight + noise) == (6, 4)
    assert max(noise_ranks(kernel(48, 32, (3, 3), 3))) <= 1
