"""How many singular values of a matrix stand above its noise.

Empirical variational Bayesian matrix factorization has a closed form (Nakajima, Sugiyama, Babacan and Tomioka 2013,
JMLR 14, theorem 2 and section 4.3, https://jmlr.org/papers/v14/nakajima13a.html): with L <= M, alpha = L / M and noise
of variance v, a singular value counts where

    s > sqrt(M v (1 + t) (1 + alpha / t)),    t = 2.5129 sqrt(alpha)

and v itself is the minimum of the free energy over an interval that the singular values give.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

_T: Final = 2.5129
#: Squares below this share of the largest count as that much: no logarithm of nothing.
_FLOOR: Final = 1e-14

Array = NDArray[np.float64]


def noise_rank(matrix: Array) -> int:
    """The number of singular values that are no noise; 0 where there is no structure.

    Args:
        matrix: (rows, columns).
    """
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    rows, columns = matrix.shape
    squares = np.linalg.eigvalsh(matrix @ matrix.T)[::-1]
    if squares[0] <= 0:
        return 0
    squares = np.maximum(squares, _FLOOR * squares[0])
    alpha = rows / columns
    t = _T * math.sqrt(alpha)
    least = (1 + t) * (1 + alpha / t)
    most_signals = min(math.ceil(rows / (1 + alpha)) - 1, rows - 1)
    rest = squares[most_signals:]
    low = max(float(squares[min(most_signals, rows - 1)]) / (columns * least), float(rest.mean()) / columns)
    high = float(squares.sum()) / (rows * columns)
    variance = high
    if low < high:
        from scipy.optimize import minimize_scalar  # noqa: PLC0415 (a second of every job's start)

        found = minimize_scalar(
            _free_energy, args=(squares, rows, columns, least), bounds=(math.log(low), math.log(high)), method="bounded"
        )
        variance = math.exp(found.x)
    return int((squares > columns * variance * least).sum())


def _free_energy(log_variance: float, squares: Array, rows: int, columns: int, least: float) -> float:
    """Up to a factor and a constant (equation 29), all of the `rows` singular values given."""
    alpha = rows / columns
    x = squares / (columns * math.exp(log_variance))
    signal, noise = x[x > least], x[x <= least]
    middle = signal - (1 + alpha)
    t = 0.5 * (middle + np.sqrt(np.maximum(middle**2 - 4 * alpha, 0)))
    return float(
        np.sum(noise - np.log(noise))
        + np.sum(signal - t)
        + np.sum(np.log((t + 1) / signal))
        + alpha * np.sum(np.log(t / alpha + 1))
    )
