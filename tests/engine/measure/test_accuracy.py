"""Metrics by task, on real answers: scikit-learn is the reference."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, mean_squared_error, r2_score, top_k_accuracy_score

from worker.engine.measure.accuracy import classification, regression


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Scores of a logistic regression on held-out digits, and the labels."""
    data = load_digits()
    model = LogisticRegression(max_iter=500).fit(data.data[:1000] / 16, data.target[:1000])
    return model.decision_function(data.data[1000:] / 16).astype(np.float32), data.target[1000:]


@pytest.fixture(scope="module")
def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """Answers of a linear regression on held-out patients, and the labels."""
    data = load_diabetes()
    model = LinearRegression().fit(data.data[:300], data.target[:300])
    return model.predict(data.data[300:]).astype(np.float32), data.target[300:]


def test_top_one_and_top_five(digits: tuple) -> None:
    scores, labels = digits
    accuracy, top5 = classification(scores, labels)
    assert (accuracy.name, top5.name) == ("accuracy", "top5_accuracy")
    assert accuracy.value == pytest.approx(accuracy_score(labels, scores.argmax(axis=1)))
    assert top5.value == pytest.approx(top_k_accuracy_score(labels, scores, k=5))
    low, high = accuracy.interval(0.95)
    assert low < accuracy.value < high


def test_five_classes_have_no_top_five(digits: tuple) -> None:
    scores, labels = digits
    assert len(classification(scores[:, :5], labels % 5)) == 1


def test_drop_counts_discordant_pairs(digits: tuple) -> None:
    scores, labels = digits
    worse = scores.copy()
    worse[:40] = np.roll(worse[:40], 1, axis=1)
    before, after = classification(scores, labels)[0], classification(worse, labels)[0]
    drop = after.drop_from(before)
    assert drop.value == pytest.approx(before.value - after.value)
    assert drop.counts["lost"] - drop.counts["won"] == round(drop.value * len(labels))
    low, high = drop.interval(0.95)
    assert 0 < low < drop.value <= high
    assert before.drop_from(after).value == pytest.approx(-drop.value)
    assert drop.to_json()["unit"] == "fraction"


def test_scores_that_are_not_numbers_are_wrong_answers(digits: tuple) -> None:
    scores, labels = digits
    assert classification(np.full_like(scores, np.nan), labels)[0].value == 0
    assert classification(np.full_like(scores, np.nan), labels)[1].value == 0


def test_squared_error_and_r2(diabetes: tuple) -> None:
    answers, labels = diabetes
    mse, r2 = regression(answers, labels)
    assert (mse.name, r2.name) == ("mse", "r2")
    assert mse.value == pytest.approx(mean_squared_error(labels, answers), rel=1e-6)
    assert r2.value == pytest.approx(r2_score(labels, answers), rel=1e-6)
    for score in (mse, r2):
        low, high = score.interval(0.95)
        assert low < score.value < high


def test_answers_with_a_last_dimension_of_one(diabetes: tuple) -> None:
    answers, labels = diabetes
    assert regression(answers[:, None], labels)[0].value == regression(answers, labels)[0].value
    assert regression(answers[:, None], labels[:, None])[1].value == regression(answers, labels)[1].value


def test_drop_of_an_error_is_relative_and_that_of_r2_a_fraction(diabetes: tuple) -> None:
    answers, labels = diabetes
    noisy = answers + np.random.default_rng(0).normal(scale=20, size=answers.shape)
    before, after = regression(answers, labels), regression(noisy, labels)
    relative = after[0].drop_from(before[0])
    assert relative.value == pytest.approx(after[0].value / before[0].value - 1)
    assert (relative.unit, relative.counts) == ("relative", {})
    fraction = after[1].drop_from(before[1])
    assert fraction.value == pytest.approx(before[1].value - after[1].value)
    for drop in (relative, fraction):
        low, high = drop.interval(0.95)
        assert low < drop.value < high


def test_a_broken_regression_still_makes_json(diabetes: tuple) -> None:
    answers, labels = diabetes
    broken = regression(np.full_like(answers, np.inf), labels)
    drop = broken[0].drop_from(regression(answers, labels)[0])
    json.dumps([broken[0].value, broken[1].value, drop.to_json()], allow_nan=False)
    assert drop.value > 1e6


def test_a_perfect_baseline_does_not_divide_by_zero() -> None:
    labels = np.arange(10.0)
    perfect, same = regression(labels, labels)[0], regression(labels, labels)[0]
    assert same.drop_from(perfect).value == 0
