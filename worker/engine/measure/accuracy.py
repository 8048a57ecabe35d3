"""The metric of a model on labelled samples, and how much worse one model is than another on the same samples."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from worker.engine.data.samples import Array
from worker.engine.data.table import CHUNK_BYTES
from worker.engine.measure.stats import Floats, Interval, bootstrap, clopper_pearson, paired_difference

_TOP = 5
_TINY = float(np.finfo(np.float64).tiny)
#: What an answer that is not a number counts as, squared: JSON has no infinity.
_HUGE = 1e30


@dataclass(frozen=True)
class Drop:
    """How much worse than the baseline; positive is worse.

    Attributes:
        value: a fraction where `unit` says so, else relative to the baseline's value.
        unit: ``fraction`` or ``relative``.
        interval: confidence -> two-sided paired interval.
        counts: what a paired interval rests on: pairs lost and won; empty otherwise.
    """

    value: float
    unit: str
    interval: Callable[[float], Interval]
    counts: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """``{"value", "unit", "ci95", ...}``."""
        return {"value": self.value, "unit": self.unit, "ci95": list(self.interval(0.95)), **self.counts}


class Score(Protocol):
    """A metric on the samples of one evaluation set."""

    @property
    def name(self) -> str:
        """As ``metric.name`` shows it."""

    @property
    def value(self) -> float:
        """The point estimate."""

    def interval(self, confidence: float) -> Interval:
        """Two-sided interval of `value`."""

    def drop_from(self, baseline: Self) -> Drop:
        """How much worse this is than `baseline`, on the same samples."""


@dataclass(frozen=True)
class Hits:
    """Accuracy: the share of samples that were answered right.

    Attributes:
        hits: (samples,) whether each was.
    """

    name: str
    hits: NDArray[np.bool_]

    @property
    def value(self) -> float:
        """Share of hits."""
        return float(self.hits.mean())

    def interval(self, confidence: float) -> Interval:
        """Clopper-Pearson."""
        return clopper_pearson(int(self.hits.sum()), len(self.hits), confidence)

    def drop_from(self, baseline: "Hits") -> Drop:
        """As a fraction: 0.01 is one point; the interval rests on the discordant pairs."""
        lost, won = int((baseline.hits & ~self.hits).sum()), int((~baseline.hits & self.hits).sum())
        samples = len(self.hits)
        return Drop(
            (lost - won) / samples,
            "fraction",
            lambda confidence: paired_difference(lost, won, samples, confidence),
            {"lost": lost, "won": won},
        )


@dataclass(frozen=True)
class Mse:
    """Mean squared error.

    Attributes:
        errors: (samples,) squared error of each, averaged over its values.
    """

    errors: Floats
    name: str = "mse"

    @property
    def value(self) -> float:
        """The mean."""
        return float(self.errors.mean())

    def interval(self, confidence: float) -> Interval:
        """Bootstrap."""
        return bootstrap(self.errors[:, None], lambda means: means[:, 0], confidence)

    def drop_from(self, baseline: "Mse") -> Drop:
        """Relative to the baseline's error: 0.02 allows 10.0 -> 10.2; paired bootstrap."""

        def relative(means: Floats) -> Floats:
            return (means[:, 1] - means[:, 0]) / np.maximum(means[:, 0], _TINY)

        columns = np.stack([baseline.errors, self.errors], axis=1)
        value = float(relative(columns.mean(axis=0, keepdims=True))[0])
        return Drop(value, "relative", lambda confidence: bootstrap(columns, relative, confidence), {})


@dataclass(frozen=True)
class R2:
    """Coefficient of determination, pooled over the values of a sample.

    Attributes:
        errors / spread: (samples,) squared distance of the labels to the answer, and to the mean label.
    """

    errors: Floats
    spread: Floats
    name: str = "r2"

    @property
    def value(self) -> float:
        """``1 - errors / spread``."""
        return float(_r2(np.array([[self.errors.mean(), self.spread.mean()]]))[0])

    def interval(self, confidence: float) -> Interval:
        """Bootstrap."""
        return bootstrap(np.stack([self.errors, self.spread], axis=1), _r2, confidence)

    def drop_from(self, baseline: "R2") -> Drop:
        """As a fraction; paired bootstrap."""

        def difference(means: Floats) -> Floats:
            return _r2(means[:, [0, 2]]) - _r2(means[:, [1, 2]])

        columns = np.stack([baseline.errors, self.errors, self.spread], axis=1)
        return Drop(
            baseline.value - self.value, "fraction", lambda confidence: bootstrap(columns, difference, confidence), {}
        )


def _r2(means: Floats) -> Floats:
    return 1 - means[:, 0] / np.maximum(means[:, 1], _TINY)


def classification(scores: Array, labels: Array) -> tuple[Score, ...]:
    """Top-1 accuracy, and top-5 where there are more than five classes.

    Args:
        scores: (samples, classes); a sample whose scores are not all finite counts as wrong.
        labels: (samples,) class numbers.
    """
    first, top = np.zeros(len(scores), np.bool_), np.zeros(len(scores), np.bool_)
    for rows in _rows(scores):
        block, wanted = np.asarray(scores[rows], np.float64), np.asarray(labels[rows], np.int64)
        finite = np.isfinite(block).all(axis=1)
        first[rows] = (block.argmax(axis=1) == wanted) & finite
        if block.shape[1] > _TOP:
            best = np.argpartition(block, -_TOP, axis=1)[:, -_TOP:]
            top[rows] = (best == wanted[:, None]).any(axis=1) & finite
    accuracy = Hits("accuracy", first)
    return (accuracy, Hits("top5_accuracy", top)) if scores.shape[1] > _TOP else (accuracy,)


def regression(answers: Array, labels: Array) -> tuple[Score, ...]:
    """Mean squared error and R2.

    Args:
        answers: (samples, ...).
        labels: (samples, ...), without the last dimension of `answers` where that is 1, or with it.
    """
    samples = len(answers)
    flat_labels = labels.reshape(samples, -1)
    mean = np.asarray(flat_labels, np.float64).mean(axis=0)
    errors, spread = np.empty(samples), np.empty(samples)
    for rows in _rows(answers):
        block = np.asarray(answers[rows], np.float64).reshape(-1, flat_labels.shape[1])
        wanted = np.asarray(flat_labels[rows], np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            squared = np.square(block - wanted).mean(axis=1)
        errors[rows] = np.where(np.isfinite(squared), np.minimum(squared, _HUGE), _HUGE)
        spread[rows] = np.square(wanted - mean).mean(axis=1)
    return Mse(errors), R2(errors, spread)


#: Task -> scores of the first output against labels; the first score is the one that limits speak of.
METRICS: dict[str, Callable[[Array, Array], tuple[Score, ...]]] = {
    "classification": classification,
    "regression": regression,
}


def _rows(array: Array) -> Iterator[slice]:
    step = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        yield slice(start, min(start + step, len(array)))
