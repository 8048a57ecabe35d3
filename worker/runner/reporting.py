"""How the job's process reports: JSON lines on a pipe, and the host-wide measuring lock."""

import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from worker.runner.messages import CheckpointSaved, Log, MetricPoint, Phase, Progress

#: Shortest time between two reports of progress within a phase, in seconds.
INTERVAL_S = 0.2
_MAX_LOG = 20_000
#: Below this share done, the time left is not yet worth telling.
_TELLING = 0.05


class PipeReporter:
    """The engine's `Reporter` on a pipe.

    Args:
        pipe: descriptor on which lines are written.
        lock: descriptor of the measuring lock's file; None: times are taken without a lock.
        output: folder that checkpoint files are named relative to.
    """

    def __init__(self, pipe: int, lock: int | None, output: Path) -> None:
        self._pipe, self._lock, self._output = pipe, lock, output
        self._started = time.monotonic()
        self._sent = -1.0
        self._phase, self._fraction = "", 0.0
        self._writing = threading.Lock()

    def send(self, message: BaseModel) -> None:
        """Write one message as one line."""
        line = message.model_dump_json().encode() + b"\n"
        with self._writing:
            while line:
                line = line[os.write(self._pipe, line) :]

    def progress(self, phase: str, fraction: float) -> None:
        """Report how far the job is; never backwards, and not more often than is worth showing."""
        now = time.monotonic()
        self._fraction = max(self._fraction, min(1.0, fraction))
        if phase == self._phase and now - self._sent < INTERVAL_S and self._fraction < 1:
            return
        self._phase, self._sent = phase, now
        left = (now - self._started) * (1 - self._fraction) / self._fraction if self._fraction >= _TELLING else None
        eta = None if left is None else round(left, 1)
        self.send(Progress(phase=cast(Phase, phase), fraction=round(self._fraction, 4), eta_s=eta))

    def log(self, message: str, level: str = "info") -> None:
        """Report a line for the user."""
        self.send(Log(level=cast(Any, level), message=message[:_MAX_LOG]))

    def metric(self, name: str, value: Any) -> None:
        """Report a figure worth showing live."""
        self.send(MetricPoint(name=name, value=value))

    def checkpoint(self, label: str, file: Path) -> None:
        """Report a finished checkpoint file, which lies in the output folder."""
        self.send(CheckpointSaved(label=label, file=str(file.relative_to(self._output))))

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Hold the host's measuring lock; waits for other jobs that take times."""
        if self._lock is None:
            yield
            return
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


def regular_file(descriptor: int) -> int | None:
    """`descriptor` where it is open on a regular file, else None."""
    try:
        return descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None
