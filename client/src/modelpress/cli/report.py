"""The before/after table: every figure in it was measured by the service on the exported file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelpress.cli import steps, text
from modelpress.cli.output import printable
from modelpress.views import Estimate, GateCheck, Job, Measurement


@dataclass(frozen=True, slots=True)
class Sides:
    """One target: the float model exported to it, the artifact, and what the gate says."""

    target: str
    before: Measurement
    after: Measurement
    checks: tuple[GateCheck, ...]


def sides(job: Job) -> list[Sides]:
    """The targets that were measured on both sides, in the order of the request."""
    metrics = job.metrics
    if metrics is None or not metrics.artifacts:
        return []
    before, checks = metrics.baseline or {}, job.gate.checks if job.gate else ()
    names = [name for name in job.targets if name in metrics.artifacts] or list(metrics.artifacts)
    empty = Measurement()
    return [
        Sides(name, before.get(name, empty), metrics.artifacts[name], tuple(c for c in checks if c.target == name))
        for name in names
    ]


def _ratio(side: Sides) -> str | None:
    before, after = side.before.size_bytes, side.after.size_bytes
    return f"{after / before:.3f}" if before and after is not None else None


def _metric(measured: Measurement) -> str | None:
    metric = measured.metric
    if metric is None:
        return None
    if text.is_fraction(metric.name):
        return f"{metric.value * 100:.2f} %" + text.interval(metric.ci95, 100)
    return f"{metric.value:.5g}" + text.interval(metric.ci95, digits=4)


def _samples(side: Sides) -> str | None:
    evaluation = side.after.evaluation
    return None if evaluation is None or evaluation.samples is None else str(evaluation.samples)


def _drop(side: Sides) -> str | None:
    metric, drop = side.after.metric, side.after.metric_drop
    if metric is None or drop is None:
        return None
    if drop.unit == "relative":
        return f"{drop.value * 100:.2f} %" + text.interval(drop.ci95, 100)
    if text.is_fraction(metric.name):
        return f"{drop.value * 100:.2f} points" + text.interval(drop.ci95, 100)
    return f"{drop.value:.4f}" + text.interval(drop.ci95, digits=4)


def _sqnr(side: Sides) -> str | None:
    fidelity = side.after.fidelity
    return None if fidelity is None or fidelity.sqnr_db is None else f"{fidelity.sqnr_db:.1f} dB"


def _p50(measured: Measurement) -> float | None:
    return (measured.latency_ms or {}).get("p50")


def _latency(measured: Measurement) -> str | None:
    p50 = _p50(measured)
    return None if p50 is None else text.milliseconds(p50)


def _speedup(side: Sides) -> str | None:
    before, after = _p50(side.before), _p50(side.after)
    return f"{before / after:.2f}x" if before and after else None


def _gate(side: Sides) -> str | None:
    failing = [check for check in side.checks if not check.passed]
    if not failing:
        return "passed" if side.checks else None
    return "failed: " + ", ".join(f"{c.limit} {_number(c.measured)}, allowed {_number(c.allowed)}" for c in failing)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


#: What can be told of a target, from top to bottom; `{metric}` is the metric's name.
ROWS: tuple[tuple[str, Callable[[Sides], str | None]], ...] = (
    ("size, float", lambda side: text.size(side.before.size_bytes)),
    ("size, compressed", lambda side: text.size(side.after.size_bytes)),
    ("size ratio", _ratio),
    ("{metric}, float", lambda side: _metric(side.before)),
    ("{metric}, compressed", lambda side: _metric(side.after)),
    ("evaluation samples", _samples),
    ("drop", _drop),
    ("SQNR to float", _sqnr),
    ("latency p50, float", lambda side: _latency(side.before)),
    ("latency p50, compressed", lambda side: _latency(side.after)),
    ("speed-up", _speedup),
    ("gate", _gate),
)


def estimated(shown: Estimate) -> list[tuple[str, str]]:
    """An estimate's figures, a line for each."""
    return [
        ("size", text.size(shown.size_bytes)),
        *((f"size, {target}", text.size(size)) for target, size in (shown.targets or {}).items()),
        ("memory", text.size(shown.peak_memory_bytes)),
        ("time", text.seconds(shown.run_s)),
        ("a worker has the memory", {True: "yes", False: "no", None: text.NONE}[shown.fits]),
    ]


def show(console: Console, job: Job) -> None:
    """Prints the table; a figure that was not measured leaves its cell, or its row, empty."""
    measured = sides(job)
    if not measured:
        return
    metric = next((side.after.metric.name for side in measured if side.after.metric), "metric")
    intervals = any(side.after.metric and side.after.metric.ci95 for side in measured)
    table = Table(caption="in brackets: 95 % intervals" if intervals else None)
    table.add_column("")
    for side in measured:
        table.add_column(printable(side.target), justify="right")
    for label, figure in ROWS:
        cells = [figure(side) for side in measured]
        if any(cells):
            table.add_row(
                printable(label.format(metric=metric)),
                *(Text(printable(cell or text.NONE), _style(label, cell)) for cell in cells),
            )
    console.print(table, soft_wrap=False)
    steps.show(console, job)
    of_targets = [note for side in measured for note in side.after.notes or ()]
    show_notes(console, dict.fromkeys([*(job.metrics.notes or () if job.metrics else ()), *of_targets]))


def show_notes(console: Console, notes: Iterable[str]) -> None:
    """Prints each on a line of its own."""
    for note in notes:
        console.print(Text(f"note: {printable(note)}"))


def _style(label: str, cell: str | None) -> str:
    if label != "gate" or not cell:
        return ""
    return "bold green" if cell == "passed" else "bold red"
