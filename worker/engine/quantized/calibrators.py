"""Calibrators: from the histogram of a value to the range that its integer grid covers.

All work on the same histogram, so one pass over the data serves any of them. A range always contains 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from worker.engine.quantized.histogram import Floats, Histogram

Range = tuple[float, float]
#: Ends that `mse` tries on each side.
_CANDIDATES: Final = 192


@dataclass(frozen=True)
class Calibration:
    """What a calibrator may use beside the histogram.

    Attributes:
        levels: number of integers in the grid.
        symmetric: the range must be ``[-m, m]`` where it has negative numbers.
        percentile: share of the values inside the range, in percent.
    """

    levels: int = 256
    symmetric: bool = False
    percentile: float = 99.99


def minmax(histogram: Histogram, calibration: Calibration) -> Range:
    """Everything that was seen."""
    return _finish(histogram.low, histogram.high, calibration)


def percentile(histogram: Histogram, calibration: Calibration) -> Range:
    """The central `percentile` of the values; a side without values, such as below a ReLU, gives nothing up."""
    centres, counts = histogram.bins()
    if not len(centres):
        return minmax(histogram, calibration)
    tail = (1 - calibration.percentile / 100) * (counts.sum() + histogram.zeros)
    negative, positive = bool((centres < 0).any()), bool((centres > 0).any())
    tail /= max(negative + positive, 1)
    low = centres[np.searchsorted(np.cumsum(counts), tail, "right").clip(max=len(counts) - 1)]
    high = centres[::-1][np.searchsorted(np.cumsum(counts[::-1]), tail, "right").clip(max=len(counts) - 1)]
    # Half a bin is not worth a clipped maximum: what no tail cuts off stays exact.
    low = histogram.low if low == centres[0] else low
    high = histogram.high if high == centres[-1] else high
    return _finish(min(low, 0.0) if negative else 0.0, max(high, 0.0) if positive else 0.0, calibration)


def mse(histogram: Histogram, calibration: Calibration) -> Range:
    """The range with the least mean squared error of quantization, over both of its ends.

    ``E(a, b) = (b - a)^2 / (12 (levels - 1)^2) N + sum_{x < a} (a - x)^2 + sum_{x > b} (x - b)^2``, N the number of
    non-zero values: uniform rounding noise inside, and what clipping costs outside (Banner et al. 2019,
    https://arxiv.org/abs/1810.05723, section 3.1, on the histogram in place of a fitted distribution).
    """
    centres, counts = histogram.bins()
    if not len(centres):
        return minmax(histogram, calibration)
    shares = np.linspace(0.02, 1.0, _CANDIDATES)
    lows, highs = min(histogram.low, 0.0) * shares, max(histogram.high, 0.0) * shares
    if calibration.symmetric and histogram.low < 0:
        ends = max(-histogram.low, histogram.high) * shares
        errors = _clipped(centres, counts, -ends, ends) + counts.sum() * _noise(2 * ends, calibration.levels)
        best = int(np.argmin(errors))
        return -float(ends[best]), float(ends[best])
    below, above = _clipped_below(centres, counts, lows), _clipped_below(-centres[::-1], counts[::-1], -highs)
    spans = highs[None, :] - lows[:, None]
    table = below[:, None] + above[None, :] + counts.sum() * _noise(spans, calibration.levels)
    row, column = np.unravel_index(int(np.argmin(table)), table.shape)
    return float(lows[row]), float(highs[column])


def expected_error(histogram: Histogram, range_: Range, levels: int) -> float:
    """Mean squared error of quantizing the histogram's values to `levels` numbers over `range_`: `mse`'s objective."""
    centres, counts = histogram.bins()
    low, high = (np.array([end]) for end in range_)
    total = _clipped(centres, counts, low, high) + counts.sum() * _noise(high - low, levels)
    return float(total[0]) / max(float(counts.sum() + histogram.zeros), 1.0)


def entropy(histogram: Histogram, calibration: Calibration) -> Range:
    """The clipping threshold whose quantized distribution is nearest to the clipped one in Kullback-Leibler divergence.

    ``min_T KL(P_T || Q_T)``: P_T is the histogram of magnitudes with everything above T counted in the last bin, Q_T
    the same histogram at the resolution of the grid (Migacz 2017, "8-bit inference with TensorRT").
    """
    centres, counts = histogram.bins()
    if not len(centres):
        return minmax(histogram, calibration)
    largest = max(-histogram.low, histogram.high)
    signed = histogram.low < 0 < histogram.high
    levels = calibration.levels // 2 if signed else calibration.levels
    bins = 16 * levels
    magnitudes, _ = np.histogram(np.abs(centres), bins=bins, range=(0.0, largest), weights=counts)
    stops = np.unique(np.linspace(levels, bins, 128).astype(int))
    divergences = [_divergence(magnitudes, int(stop), levels) for stop in stops]
    threshold = largest * float(stops[int(np.argmin(divergences))]) / bins
    return _finish(max(histogram.low, -threshold), min(histogram.high, threshold), calibration)


#: Value of ``calibration`` in a recipe -> calibrator.
CALIBRATORS: Final[Mapping[str, Callable[[Histogram, Calibration], Range]]] = {
    "mse": mse,
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
}


def _finish(low: float, high: float, calibration: Calibration) -> Range:
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    if calibration.symmetric and low < 0:
        return -max(-low, high), max(-low, high)
    return low, high


def _noise(span: Floats, levels: int) -> Floats:
    """Variance of rounding to a grid of `levels` numbers over `span`."""
    return np.asarray((span / (levels - 1)) ** 2 / 12)


def _clipped(centres: Floats, counts: Floats, lows: Floats, highs: Floats) -> Floats:
    """Summed squared distance from the values outside of each range to it; 1-D, one per pair."""
    return _clipped_below(centres, counts, lows) + _clipped_below(-centres[::-1], counts[::-1], -highs)


def _clipped_below(centres: Floats, counts: Floats, ends: Floats) -> Floats:
    """Summed squared distance from the values below each end to it, by prefix sums."""
    sums = [np.concatenate([[0.0], np.cumsum(counts * centres**power)]) for power in (0, 1, 2)]
    index = np.searchsorted(centres, ends)
    zeroth, first, second = (total[index] for total in sums)
    return np.asarray(np.maximum(second - 2 * ends * first + ends**2 * zeroth, 0.0))


def _divergence(magnitudes: Floats, stop: int, levels: int) -> float:
    reference = magnitudes[:stop].astype(np.float64)
    occupied = reference > 0
    clipped = reference.copy()
    clipped[-1] += magnitudes[stop:].sum()
    groups = np.arange(stop) * levels // stop
    totals = np.bincount(groups, reference, levels)
    filled = np.bincount(groups, occupied, levels)
    coarse = np.where(occupied, totals[groups] / np.maximum(filled[groups], 1), 0.0)
    p, q = clipped / clipped.sum(), coarse / max(coarse.sum(), 1e-300)
    kept = p > 0
    return float(np.sum(p[kept] * np.log(p[kept] / np.maximum(q[kept], 1e-12))))
