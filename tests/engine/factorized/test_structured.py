"""Kronecker, Monarch and Toeplitz matrices: the nearest, and exact where there is one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worker.engine.factorized import kronecker, monarch, toeplitz
from worker.engine.methods.factorize_structured import divisor

sides = st.sampled_from([2, 3, 4])


def matrix(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def error(weight: Tensor, other: Tensor) -> float:
    return float((weight - other).norm() / weight.norm())


@settings(deadline=None, max_examples=40)
@given(sides, sides, sides, sides, st.integers(1, 3), st.integers(0, 99))
def test_a_sum_of_kronecker_products_is_found(o1: int, i1: int, o2: int, i2: int, terms: int, seed: int) -> None:
    weight = sum(torch.kron(matrix(o1, i1, seed + t), matrix(o2, i2, seed + 50 + t)) for t in range(terms))
    assert isinstance(weight, Tensor)
    found = kronecker.kronecker(weight, (o1, i1), terms)
    assert found.error < 1e-6
    torch.testing.assert_close(found.matrix(), weight, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(sides, sides, sides, sides, st.integers(1, 3), st.integers(0, 99))
def test_no_sum_of_kronecker_products_is_nearer(o1: int, i1: int, o2: int, i2: int, terms: int, seed: int) -> None:
    weight = matrix(o1 * o2, i1 * i2, seed)
    found = kronecker.kronecker(weight, (o1, i1), terms)
    assert found.error == pytest.approx(error(weight, found.matrix()), abs=1e-6)
    # The gradient of the error vanishes in either factor: no step away from it is better.
    lost = kronecker.rearranged(weight - found.matrix(), (o1, i1))
    for t in range(len(found.left)):
        assert float((lost @ found.right[t].reshape(-1)).norm()) < 1e-5 * float(weight.norm()) ** 1.5
        assert float((found.left[t].reshape(-1) @ lost).norm()) < 1e-5 * float(weight.norm()) ** 1.5
    for other in range(5):
        near = kronecker.Kronecker(
            found.left + 0.1 * torch.randn(found.left.shape, generator=torch.Generator().manual_seed(other)),
            found.right,
            0.0,
        )
        assert error(weight, near.matrix()) >= found.error - 1e-9


@settings(deadline=None, max_examples=40)
@given(sides, sides, sides, sides, st.integers(1, 2), st.integers(0, 99))
def test_a_monarch_matrix_is_found(j: int, k: int, size: int, own: int, rank: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    first = torch.randn(k, j, rank, own, generator=random, dtype=torch.float64)
    second = torch.randn(j, size, k, rank, generator=random, dtype=torch.float64)
    weight = monarch.Monarch(first, second, 0.0).matrix()
    found = monarch.monarch(weight, (j, k), rank)
    assert found.error < 1e-7
    torch.testing.assert_close(found.matrix(), weight)


def test_a_monarch_matrix_is_what_the_paper_says() -> None:
    """For a side of n = m^2: ``P L P^T R``, P the permutation that turns a matrix of (m, m) over."""
    m = 3
    random = torch.Generator().manual_seed(0)
    left, right = (torch.randn(m, m, m, generator=random, dtype=torch.float64) for _ in range(2))
    permutation = torch.eye(m * m, dtype=torch.float64)[torch.arange(m * m).reshape(m, m).T.reshape(-1)]
    weight = permutation @ torch.block_diag(*left) @ permutation.T @ torch.block_diag(*right)
    assert monarch.monarch(weight, (m, m), 1).error < 1e-7


@settings(deadline=None, max_examples=40)
@given(sides, sides, sides, sides, st.integers(1, 2), st.integers(0, 99))
def test_each_block_of_a_monarch_matrix_is_the_nearest(
    j: int, k: int, size: int, own: int, rank: int, seed: int
) -> None:
    weight = matrix(size * j, own * k, seed)
    found = monarch.monarch(weight, (j, k), rank)
    values = torch.linalg.svdvals(monarch.blocks(weight, (j, k)))
    assert found.error == pytest.approx(float(values[..., rank:].norm() / values.norm()), abs=1e-7)
    kept = monarch.squares(weight, (j, k))
    assert found.error**2 == pytest.approx(float(kept[rank:].sum() / kept.sum()), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([1, 2, 4, 8]), sides, sides, st.integers(0, 99))
def test_the_nearest_toeplitz_matrix(count: int, p: int, q: int, seed: int) -> None:
    diagonals = torch.randn(2 * count - 1, p, q, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weight = toeplitz.Toeplitz(diagonals, 0.0).matrix()
    assert toeplitz.toeplitz(weight, count).error < 1e-7
    far = matrix(count * p, count * q, seed)
    found = toeplitz.toeplitz(far, count)
    assert found.error == pytest.approx(error(far, found.matrix()), abs=1e-9)
    # What is left is orthogonal to all Toeplitz matrices, so nothing of them is nearer.
    assert abs(float(((far - found.matrix()) * weight).sum())) < 1e-9 * float(far.norm() * weight.norm())
    assert found.error <= error(far, weight) + 1e-9


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([1, 2, 4, 8]), sides, sides)
def test_three_products_in_place_of_four(count: int, p: int, q: int) -> None:
    diagonals = torch.randn(2 * count - 1, p, q, dtype=torch.float64)
    blocks = toeplitz.products(diagonals)
    assert len(blocks) == 3 ** (count.bit_length() - 1)
    torch.testing.assert_close(_matrix(blocks), toeplitz.Toeplitz(diagonals, 0.0).matrix())


def _matrix(blocks: Tensor) -> Tensor:
    """Of all products, put together again."""
    if len(blocks) == 1:
        return blocks[0]
    same, upper, lower = (_matrix(part) for part in blocks.chunk(3))
    return torch.cat([torch.cat([same, same + upper], 1), torch.cat([same + lower, same], 1)])


@given(st.integers(1, 3000), st.floats(1, 60))
def test_the_nearest_divisor(number: int, wanted: float) -> None:
    found = divisor(number, wanted)
    assert number % found == 0
    ratio = max(found / wanted, wanted / found)
    assert all(max(d / wanted, wanted / d) >= ratio for d in range(1, number + 1) if number % d == 0)
