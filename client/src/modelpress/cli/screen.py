"""Live progress on a terminal, plain lines everywhere else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.text import Text

from modelpress.cli import text
from modelpress.cli.output import console, printable
from modelpress.views import Event

LOG_STYLES = {"warning": "yellow", "error": "red"}


@contextmanager
def transfer(label: str) -> Iterator[Callable[[int, int], None]]:
    """Shows an upload or download; yields what to call with the bytes done and in all."""
    stderr = console(stderr=True)
    shown = printable(label)
    if not stderr.is_terminal:
        total = 0

        def count(done: int, whole: int) -> None:
            nonlocal total
            total = whole

        yield count
        stderr.print(f"{shown}: {text.size(total)}")
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=stderr) as progress:
        task = progress.add_task(shown, total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)


class JobScreen:
    """Shows a job's events: a bar with phase and remaining time, and its log above; or one line for each change."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._phase = ""
        self._shown = -1
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[eta]}", markup=False),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("queued", total=1.0, eta="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def line(self, message: object, style: str = "") -> None:
        """A line that stays."""
        self._console.print(Text(printable(message), style))

    def event(self, event: Event) -> None:
        """Shows one event of the job."""
        data = event.data
        if event.type == "log":
            level = str(data.get("level", "info"))
            self.line(f"  {data.get('message', '')}", LOG_STYLES.get(level, "dim"))
        elif event.type == "state":
            state = str(data.get("state", ""))
            if self._bar is not None:
                self._bar.update(self._task, description=printable(state))
            self.line(f"job {state}")
        elif event.type == "progress":
            self._progress(str(data.get("phase") or self._phase), data.get("progress"), data.get("eta_s"))

    def _progress(self, phase: str, fraction: object, eta: object) -> None:
        done = float(fraction) if isinstance(fraction, int | float) else 0.0
        left = f"about {text.seconds(float(eta))} left" if isinstance(eta, int | float) else ""
        if self._bar is not None:
            self._bar.update(self._task, description=printable(phase), completed=done, eta=left)
            return
        # Plain: a line for each phase and each tenth, not for each event.
        tenth = int(done * 10)
        if phase != self._phase or tenth > self._shown:
            self.line(", ".join(part for part in (phase, f"{done:.0%}".replace("%", " %"), left) if part))
        self._phase, self._shown = phase, max(tenth, self._shown)
