"""Keeps a set of children running: starts them in order, restarts what dies, ends them in reverse order."""

import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from pathlib import Path
from types import FrameType

from app.embedded.process import EmbeddedError, Program, ask_to_stop, log_tail, stop, wait_or_kill

_POLL_S = 0.1
_START_TIMEOUT_S = 60.0
_BACK_OFF_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_S = 30.0  # a child that lived so long starts again with the shortest pause
_EARLY_DEATHS = 2  # before the service was ready once: then it never will be
_LOG_LIMIT = 20 * 1024**2
_DISK_FULL = (ENOSPC, EDQUOT)

log = logging.getLogger(__name__)


class StopRequestedError(Exception):
    """A signal asked for the end while children were being started."""


@dataclass
class _Child:
    program: Program
    log: Path | None
    process: "subprocess.Popen[bytes]"
    started: float
    needed: bool
    deaths: int = 0
    restart_at: float | None = None
    log_fault: str = ""  # why its log could not be trimmed the last time; said once


class Supervisor:
    """The parent of all children. Use it from the main thread only: they die with the thread that started them."""

    def __init__(self, log_of: Callable[[str], Path] | None = None) -> None:
        self._log_of = log_of
        self._children: list[_Child] = []
        self._stopping = threading.Event()
        self._settled = False

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Turns SIGTERM and SIGINT into an orderly end, and ends all children when the block is left."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            self.stop_all()
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, program: Program) -> None:
        """Starts a child, which from now on is kept running."""
        self._add(program, needed=False)

    def start_and_wait(self, program: Program, ready: Callable[[], bool]) -> None:
        """Starts a child that the next ones need, and waits until it is ready."""
        self._add(program, needed=True)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not ready():
            self._raise_if_stopping()
            self._revive()
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{program.name} is not ready after {_START_TIMEOUT_S:.0f} s; {self._hint(program)}"
                )
            time.sleep(0.02)

    def watch(self, ready: Callable[[], bool], announce: Callable[[], None]) -> None:
        """Keeps the children running until a signal comes; calls `announce` once, when `ready`.

        Raises:
            EmbeddedError: a child keeps dying before the service was ready once.
        """
        next_look = next_trim = time.monotonic()
        while not self._stopping.wait(_POLL_S):
            self._revive()
            now = time.monotonic()
            if not self._settled and now >= next_look:
                next_look = now + 0.2
                if ready():
                    self._settled = True
                    announce()
            if now >= next_trim:
                next_trim = now + 30
                self._trim_logs()

    def stop_all(self) -> None:
        """Ends every child: first, together, those that nothing waits for, then the others, the last one first."""
        leaves = [child for child in self._children if not child.needed]
        for child in leaves:
            ask_to_stop(child.process, child.program)
        for child in leaves:
            wait_or_kill(child.process, child.program)
        for child in reversed(self._children):
            stop(child.process, child.program)
        self._children.clear()

    def _add(self, program: Program, *, needed: bool) -> None:
        self._raise_if_stopping()
        log_file = self._log_of(program.name) if self._log_of else None
        self._children.append(_Child(program, log_file, program.spawn(log_file), time.monotonic(), needed))

    def _revive(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process.poll() is None:
                continue
            if child.restart_at is None:
                self._note_death(child, now)
            if child.restart_at is not None and now >= child.restart_at:
                self._start_again(child, now)

    def _start_again(self, child: _Child, now: float) -> None:
        child.restart_at = None
        child.started = now
        try:
            child.process = child.program.spawn(child.log)
        except OSError as error:  # no process or memory to be had, or no place for its log: as if it had died at once
            self._note(child, now, f"{child.program.name} cannot be started: {error}")

    def _note_death(self, child: _Child, now: float) -> None:
        self._note(child, now, f"{child.program.name} ended with status {child.process.returncode}")

    def _note(self, child: _Child, now: float, what: str) -> None:
        child.deaths = 1 if now - child.started > _STEADY_S else child.deaths + 1
        if not self._settled and child.deaths >= _EARLY_DEATHS:
            raise EmbeddedError(f"{what} while starting; {self._hint(child.program)}")
        pause = _BACK_OFF_S[min(child.deaths - 1, len(_BACK_OFF_S) - 1)]
        child.restart_at = now + pause
        log.warning("%s; it is started again in %.1f s", what, pause)

    def _hint(self, program: Program) -> str:
        if self._log_of is None:
            return "see its output above"
        path = self._log_of(program.name)
        return f"see {path}, which ends with:\n{log_tail(path)}"

    def _trim_logs(self) -> None:
        """Keeps one older copy of a long log. Children append, so that cutting the file off under them is safe."""
        for child in self._children:
            if child.log is None:
                continue
            try:
                _trim(child.log)
            except OSError as error:  # no log is worth the service: someone removed it, or the disk is in trouble
                if child.log_fault != str(error):
                    log.warning("the log of %s is not looked after: %s", child.program.name, error)
                child.log_fault = str(error)
            else:
                child.log_fault = ""

    def _raise_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise StopRequestedError

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()


def _trim(path: Path) -> None:
    """Copies a log that is too long, then cuts it; where the copy finds no room, cutting alone makes some."""
    if path.stat().st_size <= _LOG_LIMIT:
        return
    older = path.with_suffix(".log.1")
    try:
        shutil.copyfile(path, older)
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        older.unlink(missing_ok=True)
    os.truncate(path, 0)
