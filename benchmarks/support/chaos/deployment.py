"""Real servers and processes, each of which can be killed and started again while the others go on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from app.embedded.binaries import find_postgres, find_valkey, reachable_postgres, reachable_valkey
from app.embedded.postgres import Postgres
from app.embedded.process import Program, log_tail, servers_account
from app.embedded.programs import api_program, listen, service_url
from app.embedded.valkey import Valkey
from app.migrate import upgrade
from tests.support.servers import temporary_folder

ROOT = Path(__file__).parents[3]
PASSWORD = "chaos"
#: A lease that is lost soon, and a maintenance that is awake: in ten minutes much has to happen.
QUICK = {
    "LEASE_S": "6",
    "HEARTBEAT_S": "1",
    "CANCEL_POLL_S": "0.5",
    "WORKER_TTL_S": "600",
    "MAINTENANCE_S": "1",
    "STALE_QUEUED_S": "3",
    "RETRY_BACKOFF_S": "0.2",
    "JOB_THREADS": "1",
    "MIN_FREE_DISK_BYTES": "0",
    "DATABASE_POOL_SIZE": "5",
    "KEY_PEPPER": "chaos",
}
LEASE_S = float(QUICK["LEASE_S"])
#: Data of this deployment may be lost with the machine's power, never with its processes.
POSTGRES = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


@dataclass
class Part:
    """One program that is kept running, and killed."""

    program: Program
    log: Path
    before: Callable[[], None] = lambda: None
    process: "subprocess.Popen[bytes] | None" = None
    #: When it may start again; none while it runs.
    due: float | None = None

    def start(self) -> None:
        """Starts it. From the main thread only: it dies with the thread that started it."""
        self.before()
        self.process = self.program.spawn(self.log)
        self.due = None

    def tree(self) -> list[psutil.Process]:
        """Its process and all below it."""
        if self.process is None or self.process.poll() is not None:
            return []
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self, pause_s: float) -> None:
        """``kill -9`` of it and all below it; it comes back after a pause."""
        tree = self.tree()
        for action in (psutil.Process.suspend, psutil.Process.kill):
            for process in tree:
                try:
                    action(process)
                except psutil.NoSuchProcess:
                    continue
        psutil.wait_procs(tree, timeout=10)
        self._gone(pause_s)

    def terminate(self, pause_s: float) -> None:
        """The polite way."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill(pause_s)
        self._gone(pause_s)

    def tend(self) -> None:
        """Starts it again when its pause is over, or when it ended by itself (Postgres after a child's crash)."""
        if self.process is not None and self.process.poll() is not None and self.due is None:
            self.due = time.monotonic() + 0.5
        if self.due is not None and time.monotonic() >= self.due:
            self.start()

    def _gone(self, pause_s: float) -> None:
        if self.process is not None:
            self.process.wait()
        self.due = time.monotonic() + pause_s


@dataclass
class Deployment:
    """Everything that runs."""

    folder: Path
    url: str
    database_url: str
    redis_url: str
    postgres: Part
    valkey: Part
    api: Part
    workers: list[Part] = field(default_factory=list)

    @property
    def parts(self) -> list[Part]:
        """All of them, servers first."""
        return [self.postgres, self.valkey, self.api, *self.workers]

    def tend(self) -> None:
        """Starts again what is due."""
        for part in self.parts:
            part.tend()

    def job_processes(self) -> list[psutil.Process]:
        """Processes of jobs that are alive."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            if "worker.runner.child" in words[:3] and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found


@contextmanager
def deployment(folder: Path, workers: int) -> Iterator[Deployment]:
    """A running deployment of `workers` workers for jobs and one for checks, with its data in `folder`."""
    with temporary_folder() as private, listen("127.0.0.1", 0) as listener:
        account = servers_account()
        postgres = Postgres(
            programs=reachable_postgres(find_postgres(), account, private / "programs"),
            data=private / "postgres",
            sockets=private,
            password=PASSWORD,
            account=account,
            options=POSTGRES,
        )
        postgres.initialize(folder / "postgres.log")
        valkey = Valkey(
            executable=reachable_valkey(find_valkey(), account, private),
            data=private / "valkey",
            sockets=private,
            password=PASSWORD,
            account=account,
        )
        valkey.initialize()
        env = _environment(folder, postgres.url(), valkey.broker_url())
        made = Deployment(
            folder=folder,
            url=service_url(listener),
            database_url=postgres.url(),
            redis_url=valkey.url(),
            postgres=Part(postgres.program(), folder / "postgres.log", before=postgres.forget_dead_owner),
            valkey=Part(valkey.program(), folder / "valkey.log"),
            api=Part(api_program(listener, env), folder / "api.log"),
        )
        queues = ["checks", *(["cpu"] * workers)]
        made.workers = [Part(_worker(queue, env), folder / f"worker-{n}.log") for n, queue in enumerate(queues)]
        try:
            _start(made.postgres, postgres.ready)
            _start(made.valkey, valkey.ready)
            upgrade(postgres.url())
            for part in (made.api, *made.workers):
                part.start()
            yield made
        finally:
            for part in reversed(made.parts):
                part.kill(0)


def _start(part: Part, ready: Callable[[], bool]) -> None:
    part.start()
    deadline = time.monotonic() + 60
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{part.program.name} did not start:\n{log_tail(part.log, 20)}")
        time.sleep(0.05)


def _worker(queue: str, env: dict[str, str]) -> Program:
    return Program(name=f"worker-{queue}", argv=(sys.executable, "-m", "worker", queue, "1"), env=env, cwd=ROOT)


def _environment(folder: Path, database_url: str, broker_url: str) -> dict[str, str]:
    own = {
        "DATABASE_URL": database_url,
        "BROKER_URL": broker_url,
        "STORE_URL": f"file://{folder / 'store'}",
        "WORK_DIR": str(folder / "work"),
        **QUICK,
    }
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    settings = {f"MODELPRESS_{name}": value for name, value in own.items()}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **settings}
