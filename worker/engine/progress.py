"""Slices of a job's way from 0 to 1."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.engine.state import Reporter


@dataclass(frozen=True)
class Part:
    """A slice of the job: called with 0..1, it reports `start`..`end`."""

    reporter: Reporter
    phase: str
    start: float
    end: float

    def __call__(self, fraction: float) -> None:
        """Report that `fraction` of this slice is done."""
        within = min(1.0, max(0.0, fraction))
        self.reporter.progress(self.phase, self.start + (self.end - self.start) * within)

    def slice(self, index: int, count: int) -> "Part":
        """The `index`-th of `count` equal slices of this one."""
        step = (self.end - self.start) / count
        return Part(self.reporter, self.phase, self.start + index * step, self.start + (index + 1) * step)


@dataclass(frozen=True)
class Within:
    """A `Reporter` for one step: the step's own 0..1 becomes `part`, everything else goes through."""

    reporter: Reporter
    part: Part

    def progress(self, phase: str, fraction: float) -> None:
        """Report progress of the step; the phase is that of the part."""
        self.part(fraction)

    def log(self, message: str, level: str = "info") -> None:
        """Pass a line on."""
        self.reporter.log(message, level)

    def metric(self, name: str, value: Any) -> None:
        """Pass a figure on."""
        self.reporter.metric(name, value)

    def checkpoint(self, label: str, file: Path) -> None:
        """Pass a checkpoint on."""
        self.reporter.checkpoint(label, file)

    def measuring(self) -> AbstractContextManager[None]:
        """The host's measuring lock."""
        return self.reporter.measuring()
