"""The gate's truth table."""

import numpy as np
import pytest

from app.recipes import Limits
from worker.engine.errors import UserError
from worker.engine.measure.accuracy import Hits
from worker.engine.measure.gate import Measured, gate, require_data


def hits(wrong: int, samples: int = 1000) -> Hits:
    return Hits("accuracy", np.arange(samples) >= wrong)


def measured(drop: int | None = 10, **artifact: object) -> Measured:
    baseline = {"size_bytes": 1000, "macs": 400, "latency_ms": {"p50": 2.0}}
    figures = {"size_bytes": 300, "macs": 400, "latency_ms": {"p50": 1.0}, "fidelity": {"sqnr_db": 30.0}} | artifact
    return Measured(baseline, figures, None if drop is None else hits(drop).drop_from(hits(0)))


@pytest.mark.parametrize(
    ("limit", "allowed", "value", "passed"),
    [
        ("max_metric_drop", 0.01, 0.01, True),
        ("max_metric_drop", 0.0099, 0.01, False),
        ("max_size_ratio", 0.3, 0.3, True),
        ("max_size_ratio", 0.29, 0.3, False),
        ("max_size_bytes", 300, 300, True),
        ("max_size_bytes", 299, 300, False),
        ("max_latency_ratio", 0.5, 0.5, True),
        ("max_latency_ratio", 0.4, 0.5, False),
        ("max_latency_ms", 1.0, 1.0, True),
        ("max_latency_ms", 0.9, 1.0, False),
        ("max_macs_ratio", 1.0, 1.0, True),
        ("max_macs_ratio", 0.9, 1.0, False),
        ("min_sqnr_db", 30.0, 30.0, True),
        ("min_sqnr_db", 30.1, 30.0, False),
    ],
)
def test_each_limit(limit: str, allowed: float, value: float, passed: bool) -> None:
    verdict = gate(Limits(**{limit: allowed}), {"onnxruntime": measured()})
    (row,) = verdict["checks"]
    assert set(row) == {"target", "limit", "allowed", "measured", "ci95", "passed"}
    assert (row["target"], row["limit"], row["allowed"], row["passed"]) == ("onnxruntime", limit, allowed, passed)
    assert row["measured"] == pytest.approx(value)
    assert (row["ci95"] is not None) == (limit == "max_metric_drop")
    assert verdict["passed"] is passed


def test_every_field_of_limits_has_a_row() -> None:
    numbers = {name: 100 for name in Limits.model_fields if name.startswith(("max_", "min_"))}
    rows = gate(Limits(**numbers), {"torch": measured()})["checks"]
    assert {row["limit"] for row in rows} == set(numbers)


def test_no_limits_pass() -> None:
    assert gate(Limits(), {"torch": measured()}) == {"passed": True, "checks": []}


def test_one_failing_target_fails_the_gate() -> None:
    verdict = gate(Limits(max_size_ratio=0.5), {"torch": measured(), "openvino": measured(size_bytes=900)})
    assert [row["passed"] for row in verdict["checks"]] == [True, False]
    assert verdict["passed"] is False


def test_strict_looks_at_the_unfavourable_end() -> None:
    limits = {"max_metric_drop": 0.01, "confidence": 0.95}
    mixed = Measured({}, {}, _mixed(lost=12, won=4))
    assert gate(Limits(**limits), {"torch": mixed})["passed"]
    strict = gate(Limits(**limits, strict=True), {"torch": mixed})
    assert not strict["passed"]
    assert strict["checks"][0]["worst"] == pytest.approx(strict["checks"][0]["ci95"][1])
    assert gate(Limits(max_metric_drop=0.0175, strict=True), {"torch": mixed})["passed"]


def test_confidence_moves_the_end_that_strict_looks_at() -> None:
    mixed = {"torch": Measured({}, {}, _mixed(lost=12, won=4))}
    ends = [
        gate(Limits(max_metric_drop=1, strict=True, confidence=confidence), mixed)["checks"][0]["worst"]
        for confidence in (0.8, 0.95, 0.99)
    ]
    assert ends == sorted(ends)
    assert len(set(ends)) == 3


def _mixed(lost: int, won: int):
    before, after = np.ones(1000, bool), np.ones(1000, bool)
    after[:lost] = False
    before[-won:] = False
    return Hits("accuracy", after).drop_from(Hits("accuracy", before))


def test_a_better_artifact_passes() -> None:
    better = Measured({}, {}, hits(0).drop_from(hits(30)))
    (row,) = gate(Limits(max_metric_drop=0), {"torch": better})["checks"]
    assert row["passed"]
    assert row["measured"] == pytest.approx(-0.03)


@pytest.mark.parametrize(
    ("limits", "figures"),
    [
        (Limits(max_metric_drop=1), measured(drop=None)),
        (Limits(min_sqnr_db=-100), measured(fidelity={"sqnr_db": None})),
        (Limits(min_sqnr_db=-100), measured(fidelity={"sqnr_db": float("nan")})),
    ],
)
def test_what_was_not_measured_does_not_pass(limits: Limits, figures: Measured) -> None:
    assert not gate(limits, {"torch": figures})["passed"]


@pytest.mark.parametrize(
    ("limits", "samples", "labels", "code"),
    [
        (Limits(max_metric_drop=0.01), True, False, "labels_required"),
        (Limits(max_metric_drop=0.01), False, False, "labels_required"),
        (Limits(min_sqnr_db=20), False, False, "evaluation_data_required"),
    ],
)
def test_limits_without_data_are_refused(limits: Limits, samples: bool, labels: bool, code: str) -> None:
    with pytest.raises(UserError, match=code):
        require_data(limits, samples=samples, labels=labels)


def test_limits_with_data_are_accepted() -> None:
    require_data(Limits(max_metric_drop=0.01, min_sqnr_db=20), samples=True, labels=True)
    require_data(Limits(min_sqnr_db=20), samples=True, labels=False)
    require_data(Limits(max_size_ratio=0.5), samples=False, labels=False)
