"""The model card of a bill of materials: task, inputs and outputs, and what was measured."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.artifacts.untrusted import mapping, number, sequence, text

_FIDELITY = ("sqnr_db", "cosine", "agreement")
_LATENCY = ("p50", "p90", "p99")


def model_card(
    task: str, facts: Mapping[str, Any], figures: Mapping[str, Any], datasets: Sequence[str]
) -> dict[str, Any]:
    """CycloneDX's ``modelCard``.

    Args:
        task: empty where it is not known.
        facts: of the uploaded model; compression keeps its inputs and outputs.
        figures: what was measured of the artifact.
        datasets: ``bom-ref`` of each.
    """
    return {
        "modelParameters": {
            **({"task": task} if task else {}),
            "datasets": [{"ref": ref} for ref in datasets],
            **{side: [_tensor(mapping(row)) for row in sequence(facts.get(side))] for side in ("inputs", "outputs")},
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(figures))},
    }


def _tensor(row: Mapping[str, Any]) -> dict[str, str]:
    """``images: float32[batch, 3, 224, 224]``."""
    shape = ", ".join(str(size) for size in sequence(row.get("shape")))
    return {"format": f"{text(row.get('name'))}: {text(row.get('dtype'))}[{shape}]"}


def _metrics(figures: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The metric and what it lost, with 95 % intervals; likeness to the float model; latency in milliseconds; size."""
    metric = mapping(figures.get("metric"))
    name = text(metric.get("name")) or "metric"
    fidelity, latency = mapping(figures.get("fidelity")), mapping(figures.get("latency_ms"))
    rows = [
        (name, metric),
        (f"{name}_drop", mapping(figures.get("metric_drop"))),
        *((f"fidelity_{kind}", {"value": fidelity.get(kind)}) for kind in _FIDELITY),
        *((f"latency_ms_{kind}", {"value": latency.get(kind)}) for kind in _LATENCY),
        ("size_bytes", {"value": figures.get("size_bytes")}),
    ]
    for kind, row in rows:
        value = number(row.get("value"))
        if value is not None:
            yield {"type": kind, "value": str(value), **_interval([number(end) for end in sequence(row.get("ci95"))])}


def _interval(ends: Sequence[float | None]) -> dict[str, Any]:
    if len(ends) != 2 or None in ends:
        return {}
    return {"confidenceInterval": {"lowerBound": str(ends[0]), "upperBound": str(ends[1])}}
