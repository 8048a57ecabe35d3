"""A supervisor in a process of its own, which a signal meets while its job and what that started are running."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from signal import Signals

from worker.runner.folder import JobFolder
from worker.runner.sandbox import Confinement

_SUPERVISOR = """
import asyncio, os, pathlib, sys
from worker.runner.folder import JobFolder
from worker.runner.lifeline import now
from worker.runner.process import JobProcess
from worker.runner.sandbox import Confinement

async def main():
    folder = JobFolder(pathlib.Path(sys.argv[1]), -1)
    process = JobProcess(folder, Confinement.from_json(sys.argv[2]), memory_bytes=0, threads=1,
                         measure_lock=pathlib.Path(sys.argv[1], "lock"), command=("-c", sys.argv[3]))
    async with process:
        async for report in process.reports():
            process.extend(now() + float(sys.argv[5]))
            print(process.pid, report.message, flush=True)
            os.kill(os.getpid(), int(sys.argv[4]))

asyncio.run(main())
"""
_JOB = """
import itertools, json, os, subprocess, sys, time
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
os.write(3, json.dumps({"type": "log", "message": f"{os.getpid()} {below.pid}"}).encode() + b"\\n")
"""


def supervisor(
    folder: JobFolder, confinement: Confinement, met_by: Signals, *, left_s: float, then: str = "time.sleep(60)"
) -> list[str]:
    """The command of a supervisor that prints three process ids (keeper, job, below the job) and signals itself.

    Args:
        left_s: for how long its job may live from then on.
        then: what the job does.
    """
    arguments = [str(folder.path), confinement.to_json(), _JOB + then, str(int(met_by)), str(left_s)]
    return [sys.executable, "-c", _SUPERVISOR, *arguments]


def alive_after(pids: Iterable[int], seconds: float) -> list[int]:
    """Those that are still there when this time is over."""
    deadline = time.monotonic() + seconds
    while (alive := [pid for pid in pids if not _gone(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def _gone(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
