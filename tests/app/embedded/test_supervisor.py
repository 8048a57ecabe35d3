"""The supervisor: restarts, gives up where it must, ends everything in order."""

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.embedded.process import EmbeddedError, Program
from app.embedded.supervisor import StopRequestedError, Supervisor

SLEEPER = "import os, sys, time; print(sys.argv[1], os.getpid(), flush=True); time.sleep(60)"


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    return Supervisor(lambda name: tmp_path / f"{name}.log")


def sleeper(name: str) -> Program:
    return Program(name, (sys.executable, "-c", SLEEPER, name), {})


def pids(tmp_path: Path, name: str) -> list[int]:
    log = tmp_path / f"{name}.log"
    return [int(line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []


def while_running(steps: Callable[[], None]) -> threading.Thread:
    """Does `steps` beside the main thread, which the supervisor needs, and then asks for the end."""

    def run() -> None:
        try:
            steps()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def test_what_dies_is_started_again(tmp_path: Path, supervisor: Supervisor) -> None:
    def kill_twice() -> None:
        for count in (1, 2):
            wait_for(lambda count=count: len(pids(tmp_path, "a")) == count)  # type: ignore[misc]
            os.kill(pids(tmp_path, "a")[-1], signal.SIGKILL)
        wait_for(lambda: len(pids(tmp_path, "a")) == 3)

    with supervisor.signals():
        supervisor.start(sleeper("a"))
        thread = while_running(kill_twice)
        supervisor.watch(lambda: True, lambda: None)
    thread.join()
    assert not any(psutil.pid_exists(pid) for pid in pids(tmp_path, "a"))


def test_children_end_in_reverse_order_after_a_signal(tmp_path: Path, supervisor: Supervisor) -> None:
    code = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        "    with open(sys.argv[2], 'a') as file: file.write(sys.argv[1])\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', 0, flush=True)\n"
        "time.sleep(60)\n"
    )
    order = tmp_path / "order"
    with supervisor.signals():
        for name in ("a", "b", "c"):
            program = Program(name, (sys.executable, "-c", code, name, str(order)), {})
            supervisor.start_and_wait(program, lambda name=name: bool(pids(tmp_path, name)))  # type: ignore[misc]
        thread = while_running(lambda: None)
        supervisor.watch(lambda: True, lambda: None)
    thread.join()
    assert order.read_text() == "cba"


def test_a_child_that_cannot_start_ends_the_start_with_its_log(tmp_path: Path, supervisor: Supervisor) -> None:
    program = Program("broken", (sys.executable, "-c", "raise SystemExit('no such table')"), {})
    with supervisor.signals(), pytest.raises(EmbeddedError, match=r"(?s)status 1.*broken\.log.*no such table"):
        supervisor.start(sleeper("fine"))
        supervisor.start(program)
        supervisor.watch(lambda: False, lambda: None)
    assert not any(psutil.pid_exists(pid) for pid in pids(tmp_path, "fine"))


def test_a_signal_interrupts_the_start(supervisor: Supervisor) -> None:
    with supervisor.signals():
        thread = while_running(lambda: time.sleep(0.2))
        with pytest.raises(StopRequestedError):
            supervisor.start_and_wait(sleeper("never-ready"), lambda: False)
    thread.join()


def test_readiness_is_announced_once(supervisor: Supervisor) -> None:
    said: list[str] = []
    with supervisor.signals():
        supervisor.start(sleeper("a"))
        thread = while_running(lambda: time.sleep(0.6))
        supervisor.watch(lambda: True, lambda: said.append("ready"))
    thread.join()
    assert said == ["ready"]


def watch_until_cut(supervisor: Supervisor, log: Path, *names: str, removed: Path | None = None) -> None:
    """Watches children of these names until `log` is cut; `removed` is gone once they run."""
    with supervisor.signals():
        for name in names:
            supervisor.start(sleeper(name))
        if removed is not None:
            removed.unlink()
        thread = while_running(lambda: wait_for(lambda: log.stat().st_size < 1000))
        supervisor.watch(lambda: True, lambda: None)
    thread.join()


def test_a_long_log_is_cut_and_one_older_copy_kept(
    tmp_path: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedded.supervisor._LOG_LIMIT", 1000)
    log = tmp_path / "a.log"
    log.write_text("x" * 2000)
    watch_until_cut(supervisor, log, "a")
    assert (tmp_path / "a.log.1").read_text().startswith("x" * 2000)


def test_a_log_that_was_removed_ends_nothing(
    tmp_path: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.embedded.supervisor._LOG_LIMIT", 1000)
    kept = tmp_path / "b.log"
    kept.write_text("x" * 2000)
    watch_until_cut(supervisor, kept, "a", "b", removed=tmp_path / "a.log")
    assert "the log of a is not looked after" in caplog.text


def test_a_long_log_is_cut_without_a_copy_on_a_full_disk(
    tmp_path: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(source: Path, target: Path) -> None:
        target.write_text("a part of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("app.embedded.supervisor._LOG_LIMIT", 1000)
    monkeypatch.setattr("shutil.copyfile", fill)
    log = tmp_path / "a.log"
    log.write_text("x" * 2000)
    watch_until_cut(supervisor, log, "a")
    assert not (tmp_path / "a.log.1").exists()


def test_what_cannot_be_started_again_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    supervisor = Supervisor(lambda name: logs / f"{name}.log")
    settled = threading.Event()

    def lose_the_logs() -> None:
        wait_for(lambda: settled.is_set() and bool(pids(logs, "a")))
        pid = pids(logs, "a")[-1]
        logs.rename(tmp_path / "moved")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: "a cannot be started" in caplog.text)
        logs.mkdir()
        wait_for(lambda: bool(pids(logs, "a")))

    with supervisor.signals():
        supervisor.start(sleeper("a"))
        thread = while_running(lose_the_logs)
        supervisor.watch(lambda: True, settled.set)
    thread.join()
    assert pids(logs, "a")


def test_signal_handlers_are_given_back(supervisor: Supervisor) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with supervisor.signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
