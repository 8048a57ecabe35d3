"""The nearest matrix of a rank, and the one with the nearest output."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worker.engine.factorized.moments import Moments
from worker.engine.factorized.ranks import RankRule, kept, smaller_rank
from worker.engine.factorized.svd import LowRank, factor, low_rank, spectrum

shapes = st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(0, 1000))


def matrix(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(inputs: int, seed: int, rows: int = 400) -> tuple[Tensor, Moments]:
    """Vectors whose directions differ a hundredfold in size, around a mean that is not zero."""
    mixed = matrix(inputs, inputs, seed) * torch.logspace(0, -2, inputs, dtype=torch.float64)
    x = matrix(rows, inputs, seed + 1) @ mixed.T + 3 * matrix(1, inputs, seed + 2)
    centred = x - x.mean(0)
    return x, Moments(x.mean(0), centred.T @ centred / rows)


def product(found: LowRank) -> Tensor:
    return found.expand @ found.reduce


def output_error(weight: Tensor, found: LowRank, x: Tensor) -> float:
    """Relative to the output around its mean."""
    shift = 0 if found.shift is None else found.shift
    lost = x @ weight.T - (x @ product(found).T + shift)
    whole = x @ weight.T
    return float(lost.norm() / (whole - whole.mean(0)).norm())


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(1, 24))
def test_no_matrix_of_the_rank_is_nearer(shape: tuple[int, int, int], rank: int) -> None:
    rows, columns, seed = shape
    weight = matrix(rows, columns, seed)
    rank = min(rank, rows, columns)
    found = low_rank(weight, spectrum(weight), rank)
    values = torch.linalg.svdvals(weight)
    best = float(values[rank:].norm() / values.norm())
    assert float((weight - product(found)).norm() / weight.norm()) == pytest.approx(best, abs=1e-6)
    assert found.error == pytest.approx(best, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(1, 24), st.booleans())
def test_exact_where_the_rank_suffices(shape: tuple[int, int, int], rank: int, aware: bool) -> None:
    rows, columns, seed = shape
    weight = matrix(rows, rank, seed) @ matrix(rank, columns, seed + 1)
    moments = correlated(columns, seed)[1] if aware else None
    found = low_rank(weight, spectrum(weight, moments), min(rank, rows, columns), moments)
    torch.testing.assert_close(product(found), weight, rtol=1e-5, atol=1e-5 * float(weight.abs().max()))
    assert found.error < 1e-5


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(1, 24))
def test_what_is_told_is_the_error_of_the_output(shape: tuple[int, int, int], rank: int) -> None:
    rows, columns, seed = shape
    weight = matrix(rows, columns, seed)
    x, moments = correlated(columns, seed)
    found = low_rank(weight, spectrum(weight, moments), min(rank, rows, columns), moments)
    assert output_error(weight, found, x) == pytest.approx(found.error, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(1, 12))
def test_outputs_are_nearer_when_inputs_are_known(shape: tuple[int, int, int], rank: int) -> None:
    rows, columns, seed = shape
    weight = matrix(rows, columns, seed)
    rank = min(rank, rows, columns)
    x, moments = correlated(columns, seed)
    plain, aware = low_rank(weight, spectrum(weight), rank), low_rank(weight, spectrum(weight, moments), rank, moments)
    assert output_error(weight, aware, x) <= output_error(weight, plain, x) + 1e-7


def test_outputs_are_much_nearer_when_inputs_are_correlated() -> None:
    weight = matrix(32, 48, 0)
    x, moments = correlated(48, 5)
    plain = output_error(weight, low_rank(weight, spectrum(weight), 8), x)
    aware = output_error(weight, low_rank(weight, spectrum(weight, moments), 8, moments), x)
    assert aware < 0.5 * plain


@settings(deadline=None, max_examples=40)
@given(shapes, st.floats(0.001, 0.999), st.booleans())
def test_the_promised_error_is_kept_by_the_smallest_rank(shape: tuple[int, int, int], most: float, aware: bool) -> None:
    rows, columns, seed = shape
    weight = matrix(rows, columns, seed)
    moments = correlated(columns, seed)[1] if aware else None
    found = spectrum(weight, moments)
    rank = RankRule(lost=most**2).rank(found.squares, 1)
    assert low_rank(weight, found, rank, moments).error <= most + 1e-6
    if rank > 1:
        assert low_rank(weight, found, rank - 1, moments).error > most - 1e-6


@pytest.mark.parametrize("rows", [4, 12])
def test_dead_inputs(rows: int) -> None:
    """Channels behind a ReLU that never fires leave a singular covariance."""
    weight, alive = matrix(rows, 8, 0), torch.tensor([1.0, 0, 1, 0, 0, 1, 0, 1], dtype=torch.float64)
    x = matrix(100, 8, 1) * alive
    moments = Moments(x.mean(0), (x - x.mean(0)).T @ (x - x.mean(0)) / 100)
    found = low_rank(weight, spectrum(weight, moments), 4, moments)
    assert output_error(weight, found, x) < 1e-5
    nothing = Moments(torch.ones(8, dtype=torch.float64), torch.zeros(8, 8, dtype=torch.float64))
    constant = low_rank(weight, spectrum(weight, nothing), 1, nothing)
    assert constant.error == 0
    ones = torch.ones(8, dtype=torch.float64)
    assert constant.shift is not None
    torch.testing.assert_close(product(constant) @ ones + constant.shift, weight @ ones)


def test_the_factor_of_a_covariance() -> None:
    covariance = correlated(6, 0)[1].covariance
    lower = factor(covariance)
    torch.testing.assert_close(lower @ lower.T, covariance)
    torch.testing.assert_close(lower, lower.tril())


@given(st.integers(1, 64), st.sampled_from([1, 4, 8]), st.integers(1, 64), st.booleans())
def test_rounding(rank: int, to: int, most: int, promised: bool) -> None:
    rule = RankRule(lost=0.1 if promised else None, round_to=to)
    found = rule.rounded(min(rank, most), most)
    assert 1 <= found <= most
    assert found == most or found % to == 0 or found == rank < to
    if promised:
        assert found >= min(rank, most)


@given(st.integers(1, 10_000), st.integers(1, 100), st.integers(0, 100))
def test_the_largest_rank_that_is_smaller(before: int, each: int, fixed: int) -> None:
    rank = smaller_rank(before, each, fixed)
    assert rank == 0 or each * rank + fixed < before
    assert each * (rank + 1) + fixed >= before


def test_kept() -> None:
    squares = torch.tensor([6.0, 3.0, 1.0])
    assert [kept(squares, lost) for lost in (0.0, 0.09, 0.11, 0.4, 0.41, 1.0)] == [3, 3, 2, 1, 1, 1]
    assert kept(torch.zeros(3), 0.1) == 1
