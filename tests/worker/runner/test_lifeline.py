"""A silent supervisor's job ends by itself, whatever the job does; that of a supervisor which renews goes on."""

import asyncio
import math
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import psutil
import pytest

from tests.support.jobs_below import alive_after, supervisor
from worker.runner.folder import JobFolder
from worker.runner.lifeline import SHARE, KeeperEnd, SupervisorEnd, now, until
from worker.runner.process import Death, JobProcess
from worker.runner.sandbox import Confinement

#: In C, with the interpreter's lock: no thread of the job's process and none of its signal handlers gets a turn.
NATIVE = "sum(itertools.repeat(0))"


@pytest.fixture(params=["walls", "no walls"])
def walls(request: pytest.FixtureRequest, confinement: Confinement) -> Confinement:
    return confinement if request.param == "walls" else replace(confinement, walls=())


def run(
    folder: JobFolder,
    walls: Confinement,
    code: str,
    act: Callable[[JobProcess], Awaitable[None]] | None = None,
    end: float = math.inf,
) -> Death:
    """How a job ended; `act` is called once it has reported."""
    report = """os.write(3, b'{"type": "log", "message": "here"}\\n')"""

    async def watch() -> Death:
        process = JobProcess(
            folder,
            walls,
            memory_bytes=0,
            threads=1,
            measure_lock=folder.path.parent / "measure.lock",
            command=("-c", f"import itertools, os, pathlib, sys, time\n{report}\n{code}"),
            end=end,
        )
        async with process:
            async for _ in process.reports():
                if act is not None:
                    await act(process)
            return await process.ended()

    return asyncio.run(watch())


def test_a_job_in_native_code_ends_with_its_lease(folder: JobFolder, walls: Confinement) -> None:
    ends: list[float] = []

    async def act(process: JobProcess) -> None:
        await asyncio.sleep(0.2)
        ends.append(now() + 0.5)
        process.extend(ends[0])

    death = run(folder, walls, NATIVE, act)
    assert death.code == "worker_lost"
    assert 0 <= now() - ends[0] < 5


def test_a_job_goes_on_while_its_lease_is_renewed(folder: JobFolder, walls: Confinement) -> None:
    async def act(process: JobProcess) -> None:
        for _ in range(20):
            process.extend(now() + 1.5)
            await asyncio.sleep(0.1)

    death = run(folder, walls, "time.sleep(2)\nsys.exit(3)", act)
    assert "exit status 3" in death.detail


def test_a_job_whose_lease_is_over_does_not_start(folder: JobFolder, confinement: Confinement) -> None:
    death = run(folder, confinement, "pathlib.Path(sys.argv[1], 'output', 'ran').touch()", end=now() - 1)
    assert death.code == "worker_lost"
    assert list(folder.output.iterdir()) == []


def test_what_came_while_the_keeper_stood_still_counts(folder: JobFolder, confinement: Confinement) -> None:
    async def act(process: JobProcess) -> None:
        keeper = psutil.Process(process.pid)
        process.extend(now() + 0.3)
        keeper.suspend()
        process.extend(math.inf)
        await asyncio.sleep(0.5)
        keeper.resume()

    death = run(folder, confinement, "time.sleep(1)\nsys.exit(3)", act)
    assert "exit status 3" in death.detail


def test_the_lifeline_is_not_the_jobs(folder: JobFolder, confinement: Confinement) -> None:
    code = "sys.exit(3 if os.path.samefile('/dev/stdin', os.devnull) and not os.read(0, 1) else 4)"
    assert "exit status 3" in run(folder, confinement, code).detail


@pytest.mark.parametrize("all_frozen", [False, True])
def test_a_frozen_supervisor_leaves_no_process_of_its_job(
    folder: JobFolder, walls: Confinement, all_frozen: bool
) -> None:
    """Frozen alone; or with everything below it, as when a machine sleeps, which is then woken too late."""
    command = supervisor(folder, walls, signal.SIGSTOP, left_s=0.7, then=NATIVE)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as frozen:
        try:
            assert frozen.stdout is not None
            pids = [int(pid) for pid in frozen.stdout.readline().split()]
            assert len(pids) == 3
            if all_frozen:
                _signal(pids, signal.SIGSTOP)
                time.sleep(1)
                _signal(pids, signal.SIGCONT)
            alive = alive_after(pids, 5)
            assert psutil.Process(frozen.pid).status() == psutil.STATUS_STOPPED
            assert alive == []
        finally:
            frozen.kill()


def test_the_time_is_counted_from_before_the_lease_was_asked_for() -> None:
    assert until(100.0, 30.0) == 100.0 + SHARE * 30.0
    assert SHARE < 1


def test_the_last_that_was_written_counts() -> None:
    end = SupervisorEnd(now() + 5)
    keeper = KeeperEnd(end.reader)
    assert 4 < keeper.left() <= 5
    for seconds in (10, 500, 100):
        end.extend(now() + seconds)
    assert 99 < keeper.left() <= 100
    for _ in range(10_000):  # more than a pipe holds: nobody waits
        end.extend(now() + 50)
    assert 0 < keeper.left() <= 50
    end.extend(now() + 1000)
    assert 999 < keeper.left() <= 1000
    end.close()
    end.extend(now() + 2000)
    assert 999 < keeper.left() <= 1000
    os.close(end.reader)


def test_a_keeper_that_is_gone_is_no_error() -> None:
    end = SupervisorEnd(0.0)
    os.close(end.reader)
    end.extend(1.0)
    end.extend(1.0)


def test_without_a_word_the_time_is_over() -> None:
    reader, writer = os.pipe()
    assert KeeperEnd(reader).left() < 0
    os.close(writer)
    assert KeeperEnd(reader).left() < 0
    os.close(reader)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)
