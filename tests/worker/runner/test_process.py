"""The process as the supervisor sees it: its reports are checked, its end is told apart."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.runner.folder import JobFolder
from worker.runner.messages import MAX_LINE, Report
from worker.runner.process import Death, JobProcess, ProtocolError
from worker.runner.sandbox import Confinement


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[JobFolder]:
    made = JobFolder.create(tmp_path, "job", None)
    yield made
    made.remove()


def run(folder: JobFolder, code: str, reports: list[Report] | None = None, peaks: list[int] | None = None) -> Death:
    """Runs `code`, listening until its last report, and tells its end; `peaks` gets the memory that it took."""

    async def watch() -> Death:
        process = JobProcess(
            folder,
            Confinement(walls=("no_new_privs",)),
            memory_bytes=0,
            threads=1,
            measure_lock=folder.path.parent / "measure.lock",
            command=("-c", f"import fcntl, os, sys, time\n{code}"),
        )
        async with process:
            async for report in process.reports():
                if reports is not None:
                    reports.append(report)
            death = await process.ended()
        if peaks is not None:
            peaks.append(process.peak_bytes)
        assert "secret" not in process.output_tail()
        return death

    return asyncio.run(watch())


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b'{"type": "unheard-of"}',
        b'{"type": "progress", "phase": "reading", "fraction": 2}',
        b'{"type": "log", "message": "x", "more": 1}',
        b'{"type": "progress", "phase": "lunch", "fraction": 0}',
        b"\xff\xfe",
        b'{"type": "log", "message": "' + b"x" * 20_001 + b'"}',
        b'{"type": "result", "metrics": {"baseline": 5}}',
        b'{"type": "result", "metrics": {"artifacts": {"torch": []}}}',
        b'{"type": "result", "metrics": {"layers\\u0000": []}}',
        b'{"type": "result", "gate": {"checks": []}}',
        b'{"type": "result", "artifacts": [{"target": "t", "format": "a\\u0000", "file": "a", "filename": "a"}]}',
        b'{"type": "result", "artifacts": [{"target": "t", "format": "a", "file": "a", "filename": "a\\r\\nb"}]}',
        b'{"type": "result", "gate": {"passed": true, "checks": ["all"]}}',
    ],
)
def test_junk_is_a_protocol_error(folder: JobFolder, line: bytes) -> None:
    (folder.inputs / "line").write_bytes(line + b"\n")
    with pytest.raises(ProtocolError):
        run(folder, "os.write(3, open(sys.argv[1] + '/inputs/line', 'rb').read())\ntime.sleep(30)")


def test_an_endless_line_is_a_protocol_error(folder: JobFolder) -> None:
    with pytest.raises(ProtocolError, match=str(MAX_LINE)):
        run(folder, "while True: os.write(3, b'x' * 65536)")


def test_reports_arrive_in_order_and_nothing_after_the_last(folder: JobFolder) -> None:
    reports: list[Report] = []
    run(
        folder,
        """
os.write(3, b'{"type": "progress", "phase": "reading", "fraction": 0.5}\\n{"type": "log", "message": "a"}\\n')
os.write(3, b'{"type": "failure", "code": "bad", "detail": "d", "user": true}\\n{"type": "log", "message": "late"}\\n')
""",
        reports,
    )
    assert [report.type for report in reports] == ["progress", "log", "failure"]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
        ("os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("sys.exit(3)", "exit status 3"),
        ("pass", "exit status 0"),
    ],
)
def test_deaths_are_told_apart(folder: JobFolder, code: str, says: str) -> None:
    death = run(folder, code)
    assert death.code == "job_process_died"
    assert says in death.detail


@pytest.mark.parametrize(("counted", "code"), [(1, "out_of_memory"), (0, "job_process_died")])
def test_what_the_kernel_ended_for_lack_of_memory_is_told_apart(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, counted: int, code: str
) -> None:
    """By the counts of the job's own container: what is ended elsewhere on the machine is not among them."""
    absent, counts = folder.path.parent / "absent", folder.path.parent / "memory.events"
    counts.write_text("low 0\noom 7\noom_kill 7\noom_group_kill 0\n")
    monkeypatch.setattr("worker.runner.process._OOM_COUNTS", (str(absent), str(counts)))
    count = f"open({str(counts)!r}, 'w').write('oom 9\\noom_kill {7 + counted}\\n')"
    assert run(folder, f"{count}\nos.kill(os.getpid(), 9)").code == code


def test_the_environment_is_made_from_nothing(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("MODELPRESS_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "SOMETHING_ELSE", "PYTHONPATH")
    for name in secrets:
        monkeypatch.setenv(name, "/the-secret")
    reports: list[Report] = []
    run(
        folder,
        "import json; "
        "os.write(3, json.dumps({'type': 'metric', 'name': 'env', 'value': dict(os.environ)}).encode() + b'\\n')",
        reports,
    )
    (report,) = reports
    assert report.type == "metric"
    assert not set(secrets[:3]) & report.value.keys()
    assert "/the-secret" not in report.value.values()


def test_the_measuring_lock_is_one_for_all(folder: JobFolder) -> None:
    """A second job waits for the first; the lock goes with the process that held it."""
    code = """
fcntl.flock(4, fcntl.LOCK_EX)
other = os.open(sys.argv[1] + "/../measure.lock", os.O_RDONLY)
try:
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    answer = "free"
except BlockingIOError:
    answer = "held"
os.write(3, b'{"type": "log", "message": "%s"}\\n' % answer.encode())
os.kill(os.getpid(), 9)
"""
    reports: list[Report] = []
    run(folder, code, reports)
    run(folder, code, reports)
    assert [report.message for report in reports if report.type == "log"] == ["held", "held"]


def test_the_memory_of_the_process_and_its_children_is_measured(folder: JobFolder) -> None:
    """Without a limit too; what is given back before the end still counts."""
    code = """
import subprocess
taken = bytearray(os.urandom(64)) * 2**20
child = subprocess.Popen([sys.executable, "-c", "import time; taken = bytearray(b'xy') * 2**24; time.sleep(1)"])
child.wait()
del taken
time.sleep(0.5)
"""
    peaks: list[int] = []
    run(folder, code, peaks=peaks)
    assert 96 * 2**20 < peaks[0] < 160 * 2**20
