"""Intervals: exact binomial, exact paired on discordant pairs, and the bootstrap."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

Floats = NDArray[np.float64]
Interval = tuple[float, float]

#: Resamples of a bootstrap, its seed, and the indices drawn at once (bounds its memory).
RESAMPLES, SEED, _DRAWN = 2000, 20_240_229, 2**22


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
    """The interval of ``(lost - won) / samples``, exact given the number of discordant pairs.

    Among the pairs on which two classifiers differ, the share that was lost is binomial; its Clopper-Pearson
    interval, moved to [-1, 1] and scaled by the rate of discordant pairs, is that of the difference (the interval
    that belongs to the exact form of McNemar 1947, https://doi.org/10.1007/BF02295996). It is conditional: with few
    discordant pairs their own rate is uncertain too, and without any the interval is a point.

    Args:
        lost: pairs that the first got right and the second wrong.
        won: pairs that the first got wrong and the second right.
        samples: all pairs, at least 1.
        confidence: such as 0.95.
    """
    discordant = lost + won
    if discordant == 0:
        return 0.0, 0.0
    low, high = clopper_pearson(lost, discordant, confidence)
    rate = discordant / samples
    return rate * (2 * low - 1), rate * (2 * high - 1)


def bootstrap(columns: Floats, statistic: Callable[[Floats], Floats], confidence: float) -> Interval:
    """The percentile bootstrap of a function of means over samples; the same resamples for every column, so paired.

    Efron 1979, https://doi.org/10.1214/aos/1176344552. Seeded: the same input gives the same interval.

    Args:
        columns: (samples, k) what is averaged.
        statistic: (resamples, k) means -> (resamples,) values.
        confidence: such as 0.95.
    """
    samples = len(columns)
    generator = np.random.default_rng(SEED)
    means = np.empty((RESAMPLES, columns.shape[1]))
    step = max(1, min(RESAMPLES, _DRAWN // samples))
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = generator.integers(0, samples, (rows, samples))
        for k in range(columns.shape[1]):
            means[start : start + rows, k] = columns[:, k][drawn].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(means), [tail, 1 - tail])
    return float(low), float(high)
