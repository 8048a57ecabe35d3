"""Calibrators: each keeps its own promise on any distribution."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.quantized.affine import affine
from worker.engine.quantized.calibrators import CALIBRATORS, Calibration, expected_error, minmax, mse, percentile
from worker.engine.quantized.histogram import Histogram

SHAPES = st.sampled_from(["normal", "relu", "laplace", "uniform", "negative", "outlier", "constant"])


def draw(shape: str, seed: int, count: int = 4000) -> np.ndarray:
    random = np.random.default_rng(seed)
    x = random.normal(0, 1, count)
    if shape == "relu":
        x = np.maximum(x, 0)
    elif shape == "laplace":
        x = random.laplace(0.3, 1, count)
    elif shape == "uniform":
        x = random.uniform(-1, 2, count)
    elif shape == "negative":
        x = -np.abs(x) - 0.5
    elif shape == "outlier":
        x[:3] = [60, -40, 55]
    elif shape == "constant":
        x = np.full(count, random.choice([-3.0, 0.0, 2.0]))
    return x.astype(np.float32)


def seen(x: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in np.array_split(x, 5):
        histogram.update(torch.from_numpy(part))
    return histogram


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.integers(0, 1000), st.sampled_from(sorted(CALIBRATORS)), st.booleans())
def test_ranges_hold_zero_and_stay_inside(shape: str, seed: int, name: str, symmetric: bool) -> None:
    x = draw(shape, seed)
    low, high = CALIBRATORS[name](seen(x), Calibration(symmetric=symmetric))
    assert low <= 0 <= high
    assert np.isfinite([low, high]).all()
    largest = max(-x.min(), x.max(), 0)
    if symmetric and x.min() < 0:
        assert low == -high
        assert high <= largest * (1 + 1e-6)
    else:
        assert low >= min(x.min(), 0) * (1 + 1e-6)
        assert high <= max(x.max(), 0) * (1 + 1e-6)


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.integers(0, 1000), st.sampled_from([4, 16, 256]))
def test_mse_is_never_worse_than_minmax(shape: str, seed: int, levels: int) -> None:
    histogram = seen(draw(shape, seed))
    calibration = Calibration(levels=levels)
    best = expected_error(histogram, mse(histogram, calibration), levels)
    assert best <= expected_error(histogram, minmax(histogram, calibration), levels) * (1 + 1e-9)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", ["normal", "relu", "laplace", "outlier"])
def test_mse_wins_on_the_values_themselves(shape: str, bits: int) -> None:
    x = torch.from_numpy(draw(shape, 7, 40_000)).double()
    histogram = seen(x.float().numpy())

    def error(range_: tuple[float, float]) -> float:
        grid = affine(*range_, bits=bits)
        return float((grid.dequantize(grid.quantize(x)) - x).square().mean())

    calibration = Calibration(levels=2**bits)
    assert error(mse(histogram, calibration)) <= error(minmax(histogram, calibration)) * 1.002
    # and close to the best of a search on the values
    shares = np.linspace(0.05, 1, 60)
    best = min(error((histogram.low * share, histogram.high * share)) for share in shares)
    assert error(mse(histogram, calibration)) <= best * 1.03


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.integers(0, 1000), st.floats(60, 100))
def test_percentile_contains_its_share(shape: str, seed: int, share: float) -> None:
    x = draw(shape, seed)
    histogram = seen(x)
    low, high = percentile(histogram, Calibration(percentile=share))
    width = (histogram.high - histogram.low) / 1000
    inside = ((x >= low - width) & (x <= high + width)).mean()
    assert inside >= share / 100 - 1e-9


def test_percentile_cuts_an_outlier() -> None:
    low, high = percentile(seen(draw("outlier", 0)), Calibration(percentile=99.5))
    assert -5 < low < -2
    assert 2 < high < 5


def test_entropy_clips_a_long_tail_and_keeps_a_uniform_one() -> None:
    calibrate = CALIBRATORS["entropy"]
    low, high = calibrate(seen(draw("outlier", 0, 20_000)), Calibration())
    assert high < 30
    low, high = calibrate(seen(draw("uniform", 0, 20_000)), Calibration())
    assert high > 1.8
    assert low < -0.9
