"""The streaming histogram: exact ends, nothing lost, fixed memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.quantized.histogram import BINS, SAMPLED, Histogram

TENSORS = st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30), min_size=1, max_size=6)


@settings(deadline=None, max_examples=50)
@given(TENSORS)
def test_counts_and_ends(tensors: list[list[float]]) -> None:
    histogram = Histogram()
    for values in tensors:
        histogram.update(torch.tensor(values))
    flat = [np.float32(value) for values in tensors for value in values]
    centres, counts = histogram.bins()
    assert (histogram.low, histogram.high) == (min(flat), max(flat))
    assert histogram.zeros == sum(value == 0 for value in flat)
    assert counts.sum() + histogram.zeros == len(flat)
    assert len(centres) <= BINS
    assert all(np.diff(centres) >= 0)
    assert not len(centres) or (centres[0] >= histogram.low and centres[-1] <= histogram.high)


def test_range_grows_by_merging() -> None:
    random = np.random.default_rng(0)
    parts = [random.normal(0, scale, 5000).astype(np.float32) for scale in (0.01, 3, 0.1, 100)]
    histogram = Histogram()
    for part in parts:
        histogram.update(torch.from_numpy(part))
    centres, counts = histogram.bins()
    everything = np.concatenate(parts).astype(np.float64)
    width = (histogram.high - histogram.low) / BINS * 4
    for share in (0.01, 0.2, 0.5, 0.8, 0.99):
        reached = centres[np.searchsorted(np.cumsum(counts), share * counts.sum())]
        assert abs(reached - np.quantile(everything, share)) <= 2 * width


def test_a_large_tensor_is_sampled_but_its_ends_are_exact() -> None:
    x = torch.randn(3, 1 << 18)
    x[1, 777] = 1234.5
    histogram = Histogram()
    histogram.update(x)
    assert histogram.high == 1234.5
    assert SAMPLED / 2 <= histogram.bins()[1].sum() <= SAMPLED * 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refuses_what_is_not_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Histogram().update(torch.tensor([1.0, bad]))


def test_constants() -> None:
    histogram = Histogram()
    histogram.update(torch.zeros(5))
    assert len(histogram.bins()[0]) == 0
    histogram.update(torch.full((3,), -2.5))
    assert (histogram.low, histogram.high, histogram.zeros) == (-2.5, 0.0, 5)
    histogram.update(torch.empty(0))
