"""The gate: whether what was measured keeps the limits."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.recipes import Limits
from worker.engine.data import codes
from worker.engine.errors import UserError
from worker.engine.measure.accuracy import Drop


@dataclass(frozen=True)
class Measured:
    """One target's figures: what the gate looks at.

    Attributes:
        baseline / artifact: as in ``metrics`` of the API.
        drop: of the metric; None without labels.
    """

    baseline: Mapping[str, Any]
    artifact: Mapping[str, Any]
    drop: Drop | None = None


def _ratio(name: str) -> Callable[[Measured], float]:
    def of(measured: Measured) -> float:
        before = measured.baseline[name]
        return float(measured.artifact[name] / before) if before else 1.0

    return of


def _latency_ratio(measured: Measured) -> float:
    return float(measured.artifact["latency_ms"]["p50"] / measured.baseline["latency_ms"]["p50"])


#: Limit -> what is held against it.
_FIGURES: dict[str, Callable[[Measured], float | None]] = {
    "max_metric_drop": lambda measured: None if measured.drop is None else measured.drop.value,
    "max_size_ratio": _ratio("size_bytes"),
    "max_size_bytes": lambda measured: measured.artifact["size_bytes"],
    "max_latency_ratio": _latency_ratio,
    "max_latency_ms": lambda measured: measured.artifact["latency_ms"]["p50"],
    "max_macs_ratio": _ratio("macs"),
    "min_sqnr_db": lambda measured: measured.artifact.get("fidelity", {}).get("sqnr_db"),
}


def require_data(limits: Limits, *, samples: bool, labels: bool) -> None:
    """Refuse limits that cannot be measured on the data at hand.

    Raises:
        UserError: ``labels_required`` for a metric limit without labels, ``evaluation_data_required`` for a limit
            on fidelity without any samples.
    """
    if limits.max_metric_drop is not None and not labels:
        raise UserError(
            codes.LABELS_REQUIRED,
            "max_metric_drop needs labelled samples of a classification or regression task: give an evaluation "
            "dataset with a column 'label' (or label the training or calibration dataset), or leave the limit out.",
        )
    if limits.min_sqnr_db is not None and not samples:
        raise UserError(codes.DATA_REQUIRED, "min_sqnr_db needs samples: give an evaluation or a calibration dataset.")


def gate(limits: Limits, measured: Mapping[str, Measured]) -> dict[str, Any]:
    """``{"passed", "checks": [{target, limit, allowed, measured, ci95, passed}]}``; one failing check fails it.

    The point estimate decides. With ``strict``, the unfavourable end of the paired interval at ``confidence`` must
    keep the limit on the metric. A figure that is missing or not a number fails.
    """
    checks = [row for target, figures in measured.items() for row in _checks(limits, target, figures)]
    return {"passed": all(row["passed"] for row in checks), "checks": checks}


def _checks(limits: Limits, target: str, measured: Measured) -> Sequence[dict[str, Any]]:
    rows = []
    for limit, figure in _FIGURES.items():
        allowed = getattr(limits, limit)
        if allowed is None:
            continue
        value = figure(measured)
        row: dict[str, Any] = {
            "target": target,
            "limit": limit,
            "allowed": allowed,
            "measured": value,
            "ci95": None,
            "passed": _keeps(limit, value, allowed),
        }
        if limit == "max_metric_drop" and measured.drop is not None:
            worst = measured.drop.interval(limits.confidence)[1]
            row["ci95"] = list(measured.drop.interval(0.95))
            if limits.strict:
                row |= {"strict": True, "confidence": limits.confidence, "worst": worst}
                row["passed"] = _keeps(limit, worst, allowed)
        rows.append(row)
    return rows


def _keeps(limit: str, value: float | None, allowed: float) -> bool:
    if value is None or math.isnan(value):
        return False
    return value >= allowed if limit.startswith("min_") else value <= allowed
