"""How answers look in a notebook: tables, and a job's progress that moves; text from elsewhere is escaped."""

import dataclasses
import html
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from modelpress.cli import report, text
from modelpress.cli.screen import JobScreen
from modelpress.views import Estimate, Event, Job, Page

#: Secrets, which a saved notebook must not keep, and what is shown otherwise.
HIDDEN = frozenset({"key", "secret", "raw"})
LINES = 5
COLUMNS = 7


def table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """An HTML table; every cell is text."""
    told = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    top = "".join(f"<th>{_cell(one)}</th>" for one in head)
    body = "".join("<tr>" + "".join(f"<td>{_cell(one)}</td>" for one in row) + "</tr>" for row in rows)
    return f"<table>{told}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def fields(view: Any) -> str:
    """What a view holds, a line for each field that has a value."""
    held = {one.name: getattr(view, one.name) for one in dataclasses.fields(view) if one.name not in HIDDEN}
    rows = [(name, value) for name, value in held.items() if value not in (None, (), {})]
    return table(("", type(view).__name__), rows)


def page(shown: Page[Any]) -> str:
    """A row for each item, with the first fields that are short."""
    if not shown.items:
        return "<p>nothing</p>"
    names = [one.name for one in dataclasses.fields(shown.items[0]) if one.name not in HIDDEN]
    short = [name for name in names if any(_is_short(getattr(item, name)) for item in shown.items)][:COLUMNS]
    rows = [[getattr(item, name) for name in short] for item in shown.items]
    return table(short, rows, "" if shown.next_cursor is None else "there are more: page(cursor=...)")


def estimate(shown: Estimate) -> str:
    """Figures as people read them."""
    return table(("", "estimate"), report.estimated(shown)) + _notes(shown.notes or ())


def job(shown: Job) -> str:
    """State, error, and what was measured before and after."""
    name = f" ({html.escape(shown.name)})" if shown.name else ""
    told = f"<p><b>{html.escape(shown.id)}</b>{name}: {html.escape(shown.state)}</p>"
    if shown.error is not None:
        told += f"<p>{html.escape(f'[{shown.error.code}] {shown.error.detail}')}</p>"
    if not shown.finished:
        return told + _bar(shown.phase or shown.state, shown.progress or 0.0, shown.eta_s)
    measured = report.sides(shown)
    metric = next((side.after.metric.name for side in measured if side.after.metric), "metric")
    lines = ((label.format(metric=metric), [figure(side) for side in measured]) for label, figure in report.ROWS)
    rows = [(label, *cells) for label, cells in lines if any(cells)]
    return told + (table(("", *(side.target for side in measured)), rows) if rows else "")


class NotebookScreen:
    """A job's events as one piece of HTML that is shown again with every change. `show` shows it."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._state, self._phase, self._done, self._eta = "queued", "", 0.0, None
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        self._draw()
        return self

    def __exit__(self, *details: object) -> None:
        self._draw()

    def event(self, event: Event) -> None:
        """Shows one event of the job."""
        data = event.data
        if event.type == "log":
            self._lines = [*self._lines, str(data.get("message", ""))][-LINES:]
        elif event.type == "state":
            self._state = str(data.get("state", ""))
        elif event.type == "progress":
            told = data.get("progress")
            self._done = float(told) if isinstance(told, int | float) else self._done
            self._phase, self._eta = str(data.get("phase") or self._phase), data.get("eta_s")
        self._draw()

    def _draw(self) -> None:
        label = self._phase if self._state == "running" and self._phase else self._state
        lines = html.escape("\n".join(self._lines))
        self._show(_bar(label, self._done, self._eta) + (f"<pre>{lines}</pre>" if lines else ""))


def screen() -> NotebookScreen | JobScreen:
    """What shows a job here: HTML in a notebook (ipywidgets is not needed), else a terminal's bar or plain lines."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or type(shell).__name__ == "TerminalInteractiveShell":
        return JobScreen()
    shown = importlib.import_module("IPython.display")
    handle = shown.display(shown.HTML(""), display_id=True)
    return NotebookScreen(lambda drawn: handle.update(shown.HTML(drawn)))


def _bar(label: str, done: float, eta_s: object) -> str:
    left = f", about {text.seconds(float(eta_s))} left" if isinstance(eta_s, int | float) else ""
    bar = f'<progress value="{min(max(done, 0.0), 1.0):.3f}" max="1"></progress>'
    return f"<p>{bar} {html.escape(label)} {done:.0%}{left}</p>"


def _notes(notes: Iterable[str]) -> str:
    return "".join(f"<p>note: {html.escape(note)}</p>" for note in notes)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return text.when(value)
    if isinstance(value, tuple) and all(isinstance(one, str) for one in value):
        value = ", ".join(value)
    if dataclasses.is_dataclass(value):
        value = getattr(value, "raw", value)
    return html.escape(str(value))


def _is_short(value: object) -> bool:
    strings = isinstance(value, tuple) and bool(value) and all(isinstance(one, str) for one in value)
    return strings or (isinstance(value, str | int | float | datetime) and not isinstance(value, Mapping))
