"""The job's own process as the supervisor sees it: started inside the walls, listened to, watched, ended."""

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import ValidationError

from worker.runner import lifeline, usage
from worker.runner.folder import JobFolder
from worker.runner.launch import SANDBOX
from worker.runner.messages import MAX_LINE, REPORT, Failure, Report, Result
from worker.runner.sandbox import Confinement

CHILD_MODULE = "worker.runner.child"
#: Where CUDA is, and which GPU is ours.
_PASSED = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
_OUTPUT_TAIL = 4096
_KILL_GRACE_S = 3.0
_EXIT_GRACE_S = 20.0
_WATCH_S = 0.2
#: Where the kernel counts what it ended for lack of memory: of this container, else of the whole machine.
_OOM_COUNTS = ("/sys/fs/cgroup/memory.events", "/proc/vmstat")
#: How often files are looked at, and how long the watch rests for each second that it took.
_WATCH_FILES_S, _REST = 1.0, 10


class ProtocolError(Exception):
    """The job's process said something that is not in the contract."""


@dataclass(frozen=True)
class Death:
    """How the process ended without a result."""

    code: str
    detail: str


def environment(folder: JobFolder, threads: int) -> dict[str, str]:
    """All that the job's process finds in its environment: nothing of the worker's own (it holds passwords)."""
    count = str(threads)
    root = Path(__file__).resolve().parents[2]
    return {
        **{name: os.environ[name] for name in _PASSED if name in os.environ},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "PYTHONPATH": str(root),
        "PYTHONSAFEPATH": "1",  # no modules from the working folder, which the job may write to
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder.home),
        "TMPDIR": str(folder.tmp),
        "XDG_CACHE_HOME": str(folder.home / ".cache"),
        "USER": "modelpress",
        "LOGNAME": "modelpress",
        "TORCHINDUCTOR_CACHE_DIR": str(folder.tmp / "inductor"),
        "HF_HUB_OFFLINE": "1",  # transformers never looks further than what was uploaded, whatever a config names
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "OMP_NUM_THREADS": count,
        # Threads that wait for each other spin for a moment, then sleep: unbounded, calibration took 3 times as long on
        # a machine with other work; without any spinning, a fifth longer on an idle one.
        "GOMP_SPINCOUNT": "10000",
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
    }


class JobProcess:
    """One run of the job's process. Use as an async context manager: nothing is left behind afterwards.

    It ends by itself at `end`, a time of `lifeline.now`, unless `extend` has moved that.
    """

    def __init__(
        self,
        folder: JobFolder,
        confinement: Confinement,
        *,
        memory_bytes: int,
        threads: int,
        measure_lock: Path,
        command: tuple[str, ...] = ("-m", CHILD_MODULE),
        end: float = math.inf,
    ) -> None:
        self._folder = folder
        self._confinement = confinement
        self._memory_bytes = memory_bytes
        self._threads = threads
        self._measure_lock = measure_lock
        self._command = command
        self._end_at = end
        self._lifeline: lifeline.SupervisorEnd
        self._process: asyncio.subprocess.Process
        self._reports: asyncio.StreamReader
        self._pipe: asyncio.ReadTransport
        self._watchers: list[asyncio.Task[None]] = []
        self._tail = b""
        self._peak_bytes = 0
        self._over: Death | None = None
        self._shared = 0
        self._oom_kills = 0

    async def __aenter__(self) -> "JobProcess":
        (self._folder.path / SANDBOX).write_text(self._confinement.to_json())
        self._oom_kills = _kernel_oom_kills()
        usage.remove_shared_files(self._confinement.uid)  # of a job whose supervisor was killed
        read, write = os.pipe()
        lock = os.open(self._measure_lock, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)  # flock needs no more
        self._lifeline = lifeline.SupervisorEnd(self._end_at)
        try:
            self._process = await self._spawn(write, lock)
        except BaseException:
            os.close(read)
            self._lifeline.close()
            raise
        finally:
            for given in (write, lock, self._lifeline.reader):
                os.close(given)
        self._reports = asyncio.StreamReader(limit=MAX_LINE)
        self._pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._reports), os.fdopen(read, "rb", buffering=0)
        )
        watches = (self._keep_tail, self._watch_memory, self._watch_files)
        self._watchers = [asyncio.create_task(watch()) for watch in watches]
        return self

    async def _spawn(self, report: int, lock: int) -> asyncio.subprocess.Process:
        keeper = [sys.executable, "-m", "worker.runner.launch", str(self._folder.path)]
        keeper += [str(report), str(lock), str(os.getpid()), "--"]
        child = [sys.executable, *self._command, str(self._folder.path)]
        return await asyncio.create_subprocess_exec(
            *keeper,
            *child,
            stdin=self._lifeline.reader,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(report, lock),
            env=environment(self._folder, self._threads),
            cwd=self._folder.tmp,
            start_new_session=True,
        )

    async def __aexit__(self, *_: object) -> None:
        await self.kill()
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._pipe.close()
        self._lifeline.close()
        usage.remove_shared_files(self._confinement.uid)

    def extend(self, end: float) -> None:
        """The lease was renewed: the process may live until `end`."""
        self._lifeline.extend(end)

    @property
    def pid(self) -> int:
        """The keeper's process id; the job's process is its child."""
        return self._process.pid

    @property
    def peak_bytes(self) -> int:
        """The most memory that the process and its children have held together, as the limit counts it."""
        return self._peak_bytes

    async def reports(self) -> AsyncIterator[Report]:
        """What the process reports, until its last line or its end.

        Raises:
            ProtocolError: a line that is too long, is not JSON or does not fit the contract.
        """
        while True:
            try:
                line = await self._reports.readline()
            except ValueError:
                raise ProtocolError(f"a line of more than {MAX_LINE} bytes") from None
            if not line:
                return
            try:
                report = REPORT.validate_json(line)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                raise ProtocolError(f"a line outside the contract: {first['msg']}") from None
            yield report
            if isinstance(report, Result | Failure):
                return

    async def ended(self) -> Death:
        """Waits for the end of a process that gave no result, and tells why it ended."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _EXIT_GRACE_S)
        code = self._process.returncode
        if self._over is not None:
            return self._over
        if code == 128 + signal.SIGKILL and _kernel_oom_kills() > self._oom_kills:
            return Death("out_of_memory", "the system ran out of memory and ended the job's process")
        if code == lifeline.SILENT:
            return Death("worker_lost", "the worker did not renew the job's lease in time, and its process was ended")
        if code is None:
            return Death("job_process_died", "the job's process closed its report without a result and did not end")
        return Death("job_process_died", f"the job's process ended without a result ({_meaning(code)})")

    def output_tail(self) -> str:
        """The last that the process printed, for the job's log."""
        return self._tail.decode(errors="replace").replace("\0", "").strip()

    async def kill(self) -> None:
        """Ends the process, its children and whatever they started."""
        if self._process.returncode is None:
            below = usage.descendants(self._process.pid)
            _signal(self._process, signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), _KILL_GRACE_S)
            except TimeoutError:
                _signal(self._process, signal.SIGKILL)
                for process in {*below, *usage.descendants(self._process.pid)}:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                await self._process.wait()

    async def _keep_tail(self) -> None:
        stream = self._process.stdout
        while stream is not None and (chunk := await stream.read(65_536)):
            self._tail = (self._tail + chunk)[-_OUTPUT_TAIL:]

    async def _watch_memory(self) -> None:
        while self._process.returncode is None:
            used = self._shared + sum(usage.private_bytes(one) for one in usage.descendants(self._process.pid))
            self._peak_bytes = max(self._peak_bytes, used)
            if self._memory_bytes and used > self._memory_bytes:
                await self._end(Death("out_of_memory", f"the job used more than {self._memory_bytes >> 20} MiB"))
                return
            await asyncio.sleep(_WATCH_S)

    async def _watch_files(self) -> None:
        """Less often, and beside the loop: the job decides how many files there are to look at."""
        walls = self._confinement
        while self._process.returncode is None:
            started = time.monotonic()
            pids = [process.pid for process in usage.descendants(self._process.pid)]
            self._shared, written = await asyncio.to_thread(usage.shared_and_disk_bytes, pids, walls.uid, walls.write)
            if written > walls.file_bytes:
                await self._end(Death("storage_full", f"the job wrote more than {walls.file_bytes >> 20} MiB of files"))
                return
            await asyncio.sleep(max(_WATCH_FILES_S, _REST * (time.monotonic() - started)))

    async def _end(self, death: Death) -> None:
        self._over = death
        await self.kill()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _meaning(code: int) -> str:
    number = code - 128 if code > 128 else -code if code < 0 else 0
    if number in set(signal.Signals):
        return f"killed by {signal.Signals(number).name}"
    return f"exit status {code}"


def _kernel_oom_kills() -> int:
    """How often the kernel has ended a process for lack of memory so far."""
    for counts in _OOM_COUNTS:
        try:
            lines = Path(counts).read_text().splitlines()
        except OSError:  # no control groups of this kind, or not allowed
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
