"""Intervals against scipy's exact ones, their symmetry, and how often they hold the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from worker.engine.measure.stats import bootstrap, clopper_pearson, paired_difference

CONFIDENCES = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), CONFIDENCES)
def test_clopper_pearson_is_scipys_exact_interval(hits_of: tuple[int, int], confidence: float) -> None:
    hits, trials = hits_of
    expected = binomtest(hits, trials).proportion_ci(confidence, method="exact")
    assert clopper_pearson(hits, trials, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 1000), CONFIDENCES)
def test_paired_difference(lost: int, won: int, agreeing: int, confidence: float) -> None:
    samples = lost + won + agreeing
    low, high = paired_difference(lost, won, samples, confidence)
    assert low - 1e-12 <= (lost - won) / samples <= high + 1e-12
    assert paired_difference(won, lost, samples, confidence) == pytest.approx((-high, -low), abs=1e-12)
    if lost + won:
        exact = binomtest(lost, lost + won).proportion_ci(confidence, method="exact")
        rate = (lost + won) / samples
        assert low <= rate * (2 * exact.low - 1) + 1e-9
        assert high >= rate * (2 * exact.high - 1) - 1e-9
    wider = paired_difference(lost, won, samples, (1 + confidence) / 2)
    assert wider[0] <= low + 1e-12
    assert wider[1] >= high - 1e-12


def test_interval_excludes_zero_exactly_where_mcnemars_exact_test_rejects() -> None:
    for lost in range(30):
        for won in range(30 - lost):
            if lost + won == 0:
                continue
            low, high = paired_difference(lost, won, 500, 0.95)
            # The interval has a tail of 2.5 % on either side; so has twice the smaller one-sided test.
            tails = [binomtest(lost, lost + won, alternative=side).pvalue for side in ("less", "greater")]
            assert (low > 0 or high < 0) == (min(tails) < 0.025)


@pytest.mark.parametrize("samples", [1, 5, 719, 100_000])
def test_without_discordant_pairs_the_interval_still_knows_how_few_samples_were_seen(samples: int) -> None:
    z_squared = 1.959963985**2
    bound = z_squared / (samples + z_squared)
    assert paired_difference(0, 0, samples, 0.95) == pytest.approx((-bound, bound), rel=1e-6)


@pytest.mark.parametrize(("lost", "won", "samples"), [(0.005, 0.003, 500), (0.02, 0.01, 200), (0.05, 0.0, 50)])
def test_paired_difference_covers(lost: float, won: float, samples: int) -> None:
    drawn = np.random.default_rng(2).multinomial(samples, [lost, won, 1 - lost - won], 400)
    held = [
        low <= lost - won <= high
        for low, high in (paired_difference(int(b), int(c), samples, 0.95) for b, c, _ in drawn)
    ]
    assert np.mean(held) >= 0.945


def test_clopper_pearson_covers() -> None:
    generator = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.97):
        hits = generator.binomial(60, share, 2000)
        held = [low <= share <= high for low, high in (clopper_pearson(int(k), 60, 0.95) for k in hits)]
        assert np.mean(held) >= 0.945


def test_bootstrap_covers_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    held = []
    for _ in range(150):
        errors = generator.exponential(size=(120, 1))
        low, high = bootstrap(errors, lambda means: means[:, 0], 0.9)
        held.append(low <= 1 <= high)
    assert 0.8 <= np.mean(held) <= 0.97


def test_bootstrap_pairs_its_columns_and_is_repeatable() -> None:
    errors = np.random.default_rng(2).exponential(size=500)
    columns = np.stack([errors, 1.1 * errors], axis=1)

    def ratio(means: np.ndarray) -> np.ndarray:
        return means[:, 1] / means[:, 0]

    low, high = bootstrap(columns, ratio, 0.95)
    assert (low, high) == pytest.approx((1.1, 1.1))  # unpaired resamples would spread
    assert bootstrap(columns, ratio, 0.95) == (low, high)


def test_bootstrap_of_many_samples_resamples_groups() -> None:
    errors = np.random.default_rng(3).exponential(size=(123_457, 1))
    low, high = bootstrap(errors, lambda means: means[:, 0], 0.95)
    spread = 1.96 * errors.std() / np.sqrt(len(errors))
    assert (low, high) == pytest.approx((errors.mean() - spread, errors.mean() + spread), abs=spread / 8)
