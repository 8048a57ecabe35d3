"""Fidelity of outputs: known noise gives known decibels."""

import json

import numpy as np
import pytest

from worker.engine.measure.fidelity import MAX_DB, MIN_DB, fidelity


def scores(samples: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(samples, 10)).astype(np.float32)


@pytest.mark.parametrize("decibels", [10, 30, 50])
def test_known_noise(decibels: float) -> None:
    clean = scores()
    noise = np.random.default_rng(1).normal(scale=10 ** (-decibels / 20), size=clean.shape).astype(np.float32)
    figures = fidelity([clean], [clean + noise])
    assert figures["sqnr_db"] == pytest.approx(decibels, abs=0.2)
    assert figures["cosine"] == pytest.approx(1 / np.sqrt(1 + 10 ** (-decibels / 10)), abs=0.01)


def test_equal_outputs() -> None:
    assert fidelity([scores()], [scores()]) == {"sqnr_db": MAX_DB, "cosine": 1.0, "agreement": 1.0}


def test_agreement_counts_samples() -> None:
    other = scores(100)
    other[:25] = -other[:25]
    assert fidelity([scores(100)], [other])["agreement"] == pytest.approx(0.75)


def test_scale_shows_in_sqnr_but_not_in_cosine() -> None:
    figures = fidelity([scores()], [2 * scores()])
    assert figures["sqnr_db"] == pytest.approx(0)
    assert figures["cosine"] == pytest.approx(1)
    assert figures["agreement"] == 1


def test_the_worst_output_counts_and_integers_do_not() -> None:
    ids = np.arange(100)
    noisy = scores(100) + np.float32(0.1)
    figures = fidelity([ids, scores(100), scores(100)], [ids + 1, scores(100), noisy])
    assert figures["sqnr_db"] == pytest.approx(20, abs=1)
    assert figures["agreement"] is None
    assert fidelity([ids], [ids]) == {"sqnr_db": None, "cosine": None, "agreement": None}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_numbers(value: float) -> None:
    figures = fidelity([scores(20)], [np.full((20, 10), value, np.float32)])
    assert figures["sqnr_db"] == MIN_DB
    json.dumps(figures, allow_nan=False)


def test_silence_is_reproduced_or_not() -> None:
    zeros = np.zeros((5, 3), np.float32)
    assert fidelity([zeros], [zeros])["sqnr_db"] == MAX_DB
    assert fidelity([zeros], [zeros + 1])["sqnr_db"] == MIN_DB
