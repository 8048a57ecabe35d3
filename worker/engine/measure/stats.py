"""Intervals: exact binomial, paired on discordant pairs, and the bootstrap."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri

Floats = NDArray[np.float64]
Interval = tuple[float, float]

#: Resamples of a bootstrap, its seed, and the indices drawn at once (bounds its memory).
RESAMPLES, SEED, _DRAWN = 2000, 20_240_229, 2**22
#: More samples than this are resampled in groups.
_GROUPS = 5000
_SMALLEST = float(np.finfo(np.float64).tiny)


def clopper_pearson(hits: int, trials: int, confidence: float) -> Interval:
    """The exact two-sided interval of a binomial proportion.

    Clopper and Pearson 1934, https://doi.org/10.1093/biomet/26.4.404, by quantiles of the beta distribution.

    Args:
        hits: successes, 0..trials.
        trials: at least 1.
        confidence: such as 0.95.
    """
    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, trials - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, trials - hits, 1 - tail)) if hits < trials else 1.0
    return low, high


def paired_difference(lost: int, won: int, samples: int, confidence: float) -> Interval:
    """The interval of ``(lost - won) / samples``: the exact one of the discordant pairs, widened to the score interval.

    Among the pairs on which two classifiers differ, the share that was lost is binomial; its Clopper-Pearson
    interval, moved to [-1, 1] and scaled by the rate of discordant pairs, is exact given their number (McNemar 1947,
    https://doi.org/10.1007/BF02295996). But it takes that number as known: without discordant pairs it would be a
    point, however few samples were seen. So it is widened to the score interval, which also knows `samples`
    (docs/decisions/0004-paired-interval.md).

    Args:
        lost: pairs that the first got right and the second wrong.
        won: pairs that the first got wrong and the second right.
        samples: all pairs, at least 1.
        confidence: such as 0.95.
    """
    low, high = score_difference(lost, won, samples, confidence)
    discordant = lost + won
    if discordant == 0:
        return low, high
    exact_low, exact_high = clopper_pearson(lost, discordant, confidence)
    rate = discordant / samples
    return min(low, rate * (2 * exact_low - 1)), max(high, rate * (2 * exact_high - 1))


def score_difference(lost: int, won: int, samples: int, confidence: float) -> Interval:
    """The score interval of ``(lost - won) / samples``; ``z^2 / (samples + z^2)`` to both sides of 0 without any.

    Tango 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B, equation 3.

    Args:
        lost, won, samples, confidence: as for `paired_difference`.
    """
    z = float(ndtri((1 + confidence) / 2))

    def distance(difference: float) -> float:
        """The score statistic at a hypothetical difference, falling in it."""
        spread = difference * (1 - difference)
        b = (2 * samples - lost + won) * difference - lost - won
        q = (np.sqrt(b * b + 8 * samples * won * spread) - b) / (4 * samples)
        variance = samples * (2 * q + spread)
        return float((lost - won - samples * difference) / np.sqrt(max(variance, _SMALLEST)))

    estimate = (lost - won) / samples
    low = _root(lambda d: distance(d) - z, -1.0, estimate) if estimate > -1 else -1.0
    high = _root(lambda d: distance(d) + z, estimate, 1.0) if estimate < 1 else 1.0
    return low, high


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is zero between two numbers, by bisection down to their last digits.

    `scipy.optimize` would add a second to the start of every job, for nothing else.
    """
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def bootstrap(columns: Floats, statistic: Callable[[Floats], Floats], confidence: float) -> Interval:
    """The percentile bootstrap of a function of means over samples; the same resamples for every column, so paired.

    Efron 1979, https://doi.org/10.1214/aos/1176344552. Seeded: the same input gives the same interval.

    Args:
        columns: (samples, k) what is averaged.
        statistic: (resamples, k) means -> (resamples,) values.
        confidence: such as 0.95.
    """
    generator = np.random.default_rng(SEED)
    sums, counts = _grouped(columns, generator)
    weighted = np.concatenate([sums, counts[:, None]], axis=1)
    samples = len(weighted)
    means = np.empty((RESAMPLES, weighted.shape[1]))
    step = max(1, min(RESAMPLES, _DRAWN // samples))
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = generator.integers(0, samples, (rows, samples))
        for k in range(weighted.shape[1]):
            means[start : start + rows, k] = weighted[:, k][drawn].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(means[:, :-1] / means[:, -1:]), [tail, 1 - tail])
    return float(low), float(high)


def _grouped(columns: Floats, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Sums and sizes of at most `_GROUPS` groups of samples, drawn at random.

    Resampling groups estimates the same spread of a mean as resampling samples, at a cost that does not grow.
    """
    if len(columns) <= _GROUPS:
        return columns, np.ones(len(columns))
    edges = np.linspace(0, len(columns), _GROUPS, endpoint=False).astype(np.intp)
    sums = np.add.reduceat(columns[generator.permutation(len(columns))], edges, axis=0)
    return sums, np.diff([*edges, len(columns)]).astype(np.float64)
