"""Variational Bayes counts the directions that are no noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.factorized.vbmf import noise_rank


def noisy(rows: int, columns: int, rank: int, noise: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    left = np.linalg.qr(random.standard_normal((rows, rank)))[0]
    right = np.linalg.qr(random.standard_normal((columns, rank)))[0]
    return np.sqrt(rows * columns) * left @ right.T + noise * random.standard_normal((rows, columns))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(30, 90), st.integers(30, 200), st.integers(1, 8), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 99)
)
def test_the_rank_of_a_noisy_matrix(rows: int, columns: int, rank: int, noise: float, seed: int) -> None:
    assert noise_rank(noisy(rows, columns, rank, noise, seed)) == rank


@pytest.mark.parametrize("shape", [(64, 64), (32, 288), (288, 32)])
def test_noise_has_no_rank(shape: tuple[int, int]) -> None:
    for seed in range(10):
        assert noise_rank(np.random.default_rng(seed).standard_normal(shape)) <= 1


def test_scale_does_not_matter() -> None:
    matrix = noisy(40, 100, 5, 0.3, 0)
    assert [noise_rank(scale * matrix) for scale in (1e-6, 1.0, 1e6)] == [5, 5, 5]
    assert noise_rank(matrix.T) == 5


def test_without_noise() -> None:
    assert noise_rank(noisy(40, 100, 5, 0.0, 0)) == 5
    assert noise_rank(np.zeros((4, 6))) == 0
    assert noise_rank(np.ones((1, 1))) in (0, 1)


def test_a_weak_signal_is_not_told_from_noise() -> None:
    """Below the threshold, square root of M v (1 + t) (1 + alpha / t), no direction counts."""
    random = np.random.default_rng(0)
    rows, columns = 60, 120
    alpha = rows / columns
    t = 2.5129 * np.sqrt(alpha)
    threshold = np.sqrt(columns * (1 + t) * (1 + alpha / t))
    left, right = (np.linalg.qr(random.standard_normal((n, 1)))[0] for n in (rows, columns))
    noise = random.standard_normal((rows, columns))
    assert noise_rank(0.5 * threshold * left @ right.T + noise) == 0
    assert noise_rank(1.5 * threshold * left @ right.T + noise) == 1
