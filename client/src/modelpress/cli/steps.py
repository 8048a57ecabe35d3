"""The table of steps: what each of several cost and brought, as the service measured it between them."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelpress.cli import text
from modelpress.cli.output import printable
from modelpress.views import Job, StepEffect


def _metric(effect: StepEffect, _: StepEffect) -> str | None:
    metric = effect.metric
    if metric is None:
        return None
    change = effect.change.metric if effect.change else None
    scale, digits = (100, 2) if text.is_fraction(metric.name) else (1, 4)
    by = "" if change is None else f" ({change * scale:+.{digits}f})"
    return (f"{metric.value:.2%}".replace("%", " %") if scale == 100 else f"{metric.value:.5g}") + by


def _share(part: int | None, whole: int | None) -> str | None:
    return None if part is None or not whole else f"{100 * part / whole:.3g} %"


#: Heading -> the cell of a row, beside the figures of the float model; `{metric}` is the metric's name.
COLUMNS: tuple[tuple[str, Callable[[StepEffect, StepEffect], str | None]], ...] = (
    ("took", lambda effect, _: None if effect.seconds is None else text.seconds(effect.seconds)),
    ("weights", lambda effect, _: None if effect.size_bytes is None else text.size(effect.size_bytes)),
    ("not zero", lambda effect, _: _share(effect.nonzero_parameters, effect.parameters)),
    ("MACs", lambda effect, before: _share(effect.macs, before.macs)),
    ("{metric}", _metric),
    ("SQNR", lambda effect, _: None if effect.fidelity_db is None else f"{effect.fidelity_db:.1f} dB"),
)


def show(console: Console, job: Job) -> None:
    """Prints the table where there are several steps; what was measured in none of them has no column."""
    metrics = job.metrics
    if metrics is None or metrics.before is None or not metrics.steps or len(metrics.steps) < 2:
        return
    rows = [("float model", metrics.before), *((step.method or "", step) for step in metrics.steps)]
    name = next((step.metric.name for _, step in rows if step.metric), "metric")
    table = Table(caption="between the steps, not on the exported file; in brackets: the change by the step")
    table.add_column("step")
    cells = [(label, [figure(effect, metrics.before) for _, effect in rows]) for label, figure in COLUMNS]
    shown = [(label, values) for label, values in cells if any(values)]
    for label, _ in shown:
        table.add_column(printable(label.format(metric=name)), justify="right")
    for index, (method, _) in enumerate(rows):
        figures = (Text(printable(values[index] or "")) for _, values in shown)
        table.add_row(Text(printable(method)), *figures)
    console.print(table, soft_wrap=False)
