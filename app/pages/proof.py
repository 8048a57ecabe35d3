"""What a job has proved, as its page shows it: before and after for each target, the gate, the steps.

Figures come from the job's process, which is not trusted: whatever is not of the expected kind is left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.artifacts.untrusted import mapping, number, sequence, text
from app.jobs.schemas import JobView
from app.pages.formats import count, duration, percent, size

#: Rows of the table of layers; the chart and the API have all.
MOST_LAYERS = 300
_NONE = "–"


@dataclass(frozen=True)
class Figure:
    """One thing that was measured of the float model and of the artifact.

    Attributes:
        share: of the artifact over the float model; None where that says nothing.
        change: in words.
        better: whether the artifact is the better one; None: neither, or unknown.
    """

    name: str
    before: str
    after: str
    share: float | None = None
    change: str = ""
    better: bool | None = None
    interval: str = ""


@dataclass(frozen=True)
class Proof:
    """One target's figures: the ones to look at first, all others, and what should not be overlooked."""

    target: str
    main: Sequence[Figure]
    rest: Sequence[Figure]
    evaluation: str
    notes: Sequence[str]


@dataclass(frozen=True)
class Check:
    """One row of the gate."""

    target: str
    limit: str
    name: str
    allowed: str
    measured: str
    interval: str
    passed: bool


@dataclass(frozen=True)
class StepRow:
    """A step, with the model as it left it; or a layer."""

    name: str
    cells: Sequence[str]


def proofs(job: JobView) -> list[Proof]:
    """Each target's, in the order in which the job names them."""
    metrics = mapping(job.metrics)
    baseline, artifacts = mapping(metrics.get("baseline")), mapping(metrics.get("artifacts"))
    return [
        _proof(name, mapping(baseline.get(name)), mapping(artifacts[name])) for name in job.targets if name in artifacts
    ]


def checks(gate: object) -> list[Check]:
    """The gate's rows, failed ones first."""
    rows = [_check(mapping(row)) for row in sequence(mapping(gate).get("checks"))]
    return sorted(rows, key=lambda row: row.passed)


def steps(metrics: object) -> tuple[list[str], list[StepRow]]:
    """The head and the rows of the table of steps; the uploaded model is the first row."""
    rows = [mapping(row) for row in sequence(mapping(metrics).get("steps"))]
    before = mapping(mapping(metrics).get("before"))
    if not rows or not before:
        return [], []
    quality = text(mapping(before.get("metric")).get("name"))
    head = ["Time", "Weights", "MACs", *([quality] if quality else []), "SQNR"]
    table = [("as uploaded", before), *((text(row.get("method")) or "step", row) for row in rows)]
    return head, [StepRow(name, _cells(row, bool(quality))) for name, row in table]


def layers(metrics: object) -> tuple[list[str], list[StepRow]]:
    """The head and the rows of the table of layers; columns that no row has are left out."""
    rows = [mapping(row) for row in sequence(mapping(metrics).get("layers"))][:MOST_LAYERS]
    shown = [(key, head, form) for key, head, form in _LAYER_COLUMNS if any(row.get(key) is not None for row in rows)]
    table = [StepRow(text(row.get("name")) or _NONE, [form(row.get(key)) for key, _, form in shown]) for row in rows]
    return [head for _, head, _ in shown], table


def scored(value: float | None, name: str) -> str:
    """A metric's value: shares of right answers in percent."""
    if value is None:
        return _NONE
    return percent(value, 2) if _is_share(name) else f"{value:.4g}"


def _proof(target: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Proof:
    main = [figure for figure in (_size(before, after), _metric(before, after), _latency(before, after)) if figure]
    evaluation = mapping(after.get("evaluation"))
    samples, source = number(evaluation.get("samples")), text(evaluation.get("source"))
    told = f"{samples:,.0f} samples{f', {source}' if source else ''}" if samples else ""
    notes = [text(note) for note in sequence(after.get("notes"))]
    return Proof(target, main, list(_rest(before, after)), told, [note for note in notes if note])


def _size(before: Mapping[str, Any], after: Mapping[str, Any]) -> Figure | None:
    return _compared(
        "Size", number(before.get("size_bytes")), number(after.get("size_bytes")), size, "of the float file"
    )


def _latency(before: Mapping[str, Any], after: Mapping[str, Any]) -> Figure | None:
    old, new = (number(mapping(side.get("latency_ms")).get("p50")) for side in (before, after))
    figure = _compared("Latency, median", old, new, _milliseconds)
    if figure is None or not old or not new:
        return figure
    told = f"{old / new:.2f} × as fast" if new <= old else f"{new / old:.2f} × as slow"
    return Figure(figure.name, figure.before, figure.after, figure.share, told, new < old)


def _metric(before: Mapping[str, Any], after: Mapping[str, Any]) -> Figure | None:
    old, new, drop = mapping(before.get("metric")), mapping(after.get("metric")), mapping(after.get("metric_drop"))
    name, value, lost = text(new.get("name")) or "metric", number(new.get("value")), number(drop.get("value"))
    if value is None:
        return _fidelity(after)
    low, high = _ends(new)
    interval = "" if low is None else f"95 %: {scored(low, name)} to {scored(high, name)}"
    change = "" if lost is None else _lost(lost, text(drop.get("unit")))
    better = None if lost is None else lost <= 0
    return Figure(name, scored(number(old.get("value")), name), scored(value, name), None, change, better, interval)


def _fidelity(after: Mapping[str, Any]) -> Figure | None:
    sqnr = number(mapping(after.get("fidelity")).get("sqnr_db"))
    return None if sqnr is None else Figure("SQNR", _NONE, f"{sqnr:.1f} dB", change="outputs beside the float model's")


def _rest(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Figure]:
    fidelity = mapping(after.get("fidelity"))
    kept = (
        _compared("Parameters", number(before.get("parameters")), number(after.get("parameters")), count),
        _compared("Not zero", number(before.get("nonzero_parameters")), number(after.get("nonzero_parameters")), count),
        _compared("MACs", number(before.get("macs")), number(after.get("macs")), count),
        *(_compared(f"Latency, {name}", *_both(before, after, name), _milliseconds) for name in ("p90", "p99")),
        _compared("Samples per second", _throughput(before), _throughput(after), count),
        _compared("Memory", number(before.get("peak_memory_bytes")), number(after.get("peak_memory_bytes")), size),
    )
    yield from (figure for figure in kept if figure is not None)
    told = (("SQNR", "sqnr_db", "{:.1f} dB"), ("Cosine", "cosine", "{:.6f}"), ("Agreement", "agreement", "{:.2%}"))
    for name, key, form in told:
        value = number(fidelity.get(key))
        if value is not None:
            yield Figure(name, _NONE, form.format(value).replace("%", " %"))


def _both(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    old, new = (number(mapping(side.get("latency_ms")).get(name)) for side in (before, after))
    return old, new


def _throughput(side: Mapping[str, Any]) -> float | None:
    return number(side.get("throughput_per_s"))


def _compared(
    name: str, before: float | None, after: float | None, form: Callable[[float], str], of: str = ""
) -> Figure | None:
    if after is None:
        return None
    share = after / before if before else None
    change = "" if share is None else f"{percent(share)}{f' {of}' if of else ''}"
    smaller = None if before is None or before == after else after < before
    return Figure(name, _NONE if before is None else form(before), form(after), share, change, smaller)


def _check(row: Mapping[str, Any]) -> Check:
    limit = text(row.get("limit"))
    name, form = _LIMITS.get(limit, (limit, _plain))
    low, high = _ends(row)
    interval = "" if low is None or high is None else f"{form(low)} to {form(high)}"
    allowed, measured = number(row.get("allowed")), number(row.get("measured"))
    return Check(
        text(row.get("target")),
        limit,
        name,
        _NONE if allowed is None else form(allowed),
        _NONE if measured is None else form(measured),
        interval,
        row.get("passed") is True,
    )


def _cells(row: Mapping[str, Any], quality: bool) -> Sequence[str]:
    seconds, metric, sqnr = number(row.get("seconds")), mapping(row.get("metric")), number(row.get("fidelity_db"))
    return (
        duration(seconds),
        size(number(row.get("size_bytes"))),
        count(number(row.get("macs"))),
        *([scored(number(metric.get("value")), text(metric.get("name")))] if quality else []),
        _NONE if sqnr is None else f"{sqnr:.1f} dB",
    )


def _ends(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    ends = [number(end) for end in sequence(row.get("ci95"))]
    return (ends[0], ends[1]) if len(ends) == 2 else (None, None)


def _lost(value: float, unit: str) -> str:
    amount = 100 * abs(value)
    if amount < 0.005:
        return "unchanged"
    kind = " points" if unit == "fraction" else " %"
    return f"{amount:.2f}{kind} {'worse' if value > 0 else 'better'}"


def _is_share(name: str) -> bool:
    return "accuracy" in name or name in ("iou", "f1")


def _milliseconds(value: float) -> str:
    return f"{value:.3g} ms"


def _plain(value: float) -> str:
    return f"{value:.4g}"


def _drop(value: float) -> str:
    return f"{100 * value:.2f} %"


#: Limit -> what people call it, and how its figures are written.
_LIMITS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "max_metric_drop": ("Drop of the metric, at most", _drop),
    "max_size_ratio": ("Size over the float file, at most", percent),
    "max_size_bytes": ("Size, at most", size),
    "max_latency_ratio": ("Latency over the float model, at most", percent),
    "max_latency_ms": ("Latency, at most", _milliseconds),
    "max_macs_ratio": ("MACs over the uploaded model, at most", percent),
    "min_sqnr_db": ("SQNR of the outputs, at least", "{:.1f} dB".format),
}


def _number_as(form: Callable[[float], str]) -> Callable[[object], str]:
    def told(value: object) -> str:
        known = number(value)
        return _NONE if known is None else form(known)

    return told


def _text(value: object) -> str:
    return text(value) or _NONE


def _ranks(value: object) -> str:
    return " × ".join(str(rank) for rank in sequence(value)) or _number_as(_plain)(value)


_DECIBEL = _number_as("{:.1f} dB".format)
_COUNT = _number_as(count)
_SHARE = _number_as(percent)
#: Of ``metrics.layers``: key, head of the column, and how values are written.
_LAYER_COLUMNS: tuple[tuple[str, str, Callable[[object], str]], ...] = (
    ("kind", "Kind", _text),
    ("method", "Method", _text),
    ("bits", "Bits", _number_as(_plain)),
    ("sqnr_db", "SQNR of weights", _DECIBEL),
    ("output_sqnr_db", "SQNR of output", _DECIBEL),
    ("share", "Share of size", _SHARE),
    ("sparsity", "Zeros", _SHARE),
    ("ranks", "Ranks", _ranks),
    ("parameters_before", "Parameters before", _COUNT),
    ("parameters_after", "after", _COUNT),
    ("relative_error", "Relative error", _number_as(_plain)),
)
