"""Real servers and processes, each of which can be killed and started again while the others go on."""

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from app.config import Settings
from app.embedded.process import Program, log_tail
from app.embedded.programs import api_program, listen, service_url
from app.migrate import upgrade
from app.tables import Worker
from tests.support.servers import FAST, ROOT, environment, new_postgres, new_valkey, temporary_folder

#: Attempts that a job or a check has, the most there may be: blows meet one job again and again.
ATTEMPTS = 10
#: How long a part that was told to end may take, in seconds.
PATIENCE_S = 60.0
#: What PostgreSQL has confirmed outlives its kill -9, as it does where nobody has set otherwise; the machine stays up.
DURABLE = {**FAST, "synchronous_commit": "on"}
#: How long the start may take, in seconds.
STARTS_S = 120.0
#: A lease that is lost soon, and a maintenance that is awake: in ten minutes much has to happen.
LEASE_S = 6.0
QUICK: Mapping[str, Any] = {
    "lease_s": LEASE_S,
    "heartbeat_s": 1.0,
    "cancel_poll_s": 0.5,
    "worker_ttl_s": 600.0,
    "maintenance_s": 1.0,
    "stale_queued_s": 3.0,
    "retry_backoff_s": 0.2,
    "check_attempts": ATTEMPTS,
    "job_threads": 1,
    "min_free_disk_bytes": 0,
    "database_pool_size": 5,
    "key_pepper": "chaos",
}


@dataclass
class Part:
    """One program that is kept running, and killed."""

    program: Program
    log: Path
    before: Callable[[], None] = lambda: None
    process: "subprocess.Popen[bytes] | None" = None
    #: When it may start again; none while it runs.
    due: float | None = None
    #: Told to end: when it is killed if it has not, and how long it stays away then.
    ending: tuple[float, float] | None = None

    def start(self) -> None:
        """Starts it. From the main thread only: it dies with the thread that started it."""
        self.before()
        self.process = self.program.spawn(self.log)
        self.due = self.ending = None

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
        if self.process is not None:
            self.process.wait()
        self.due = time.monotonic() + pause_s

    def terminate(self, pause_s: float) -> None:
        """The polite way: it is told, and comes back a pause after it has ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.ending = (time.monotonic() + PATIENCE_S, pause_s)

    def tend(self) -> None:
        """Starts it again when its pause is over, or when it ended by itself (Postgres after a child's crash)."""
        killed, pause_s = self.ending or (math.inf, 0.5)
        if self.process is not None and self.process.poll() is not None and self.due is None:
            self.due = time.monotonic() + pause_s
        if self.due is None and time.monotonic() >= killed:
            self.kill(pause_s)
        if self.due is not None and time.monotonic() >= self.due:
            self.start()


@dataclass
class Deployment:
    """Everything that runs."""

    folder: Path
    settings: Settings
    url: str
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

    def job_processes(self) -> list[tuple[psutil.Process, str]]:
        """Processes of jobs that are alive and not frozen, each with the name of its attempt's folder."""
        still = (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            ours = "worker.runner.child" in words[:3] and Path(words[-1]).is_relative_to(self.settings.work_dir)
            if ours and process.info["status"] not in still:
                found.append((process, Path(words[-1]).name))
        return found


@contextmanager
def deployment(folder: Path, workers: int) -> Iterator[Deployment]:
    """A running deployment of `workers` workers for jobs and one for checks, with its data in `folder`."""
    with temporary_folder() as private, listen("127.0.0.1", 0) as listener:
        postgres, valkey = new_postgres(private, DURABLE), new_valkey(private)
        settings = Settings(
            _env_file=None,
            database_url=postgres.url(),
            broker_url=valkey.broker_url(),
            store_url=f"file://{folder / 'store'}",
            work_dir=folder / "work",
            **QUICK,
        )
        env = {**environment(settings), "OMP_NUM_THREADS": "1"}
        made = Deployment(
            folder=folder,
            settings=settings,
            url=service_url(listener),
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
            _await(lambda: _live(settings) == len(made.workers), made.workers)
            yield made
        finally:
            for part in reversed(made.parts):
                part.kill(0)


def _start(part: Part, ready: Callable[[], bool]) -> None:
    part.start()
    _await(ready, [part])


def _await(ready: Callable[[], bool], parts: Sequence[Part]) -> None:
    """Before anything is struck all of it has to be there: jobs that no worker was ever seen for are refused."""
    deadline = time.monotonic() + STARTS_S
    while not ready():
        if time.monotonic() > deadline:
            logs = "\n".join(f"{part.program.name}:\n{log_tail(part.log, 20)}" for part in parts)
            raise RuntimeError(f"not started within {STARTS_S:.0f} s:\n{logs}")
        time.sleep(0.1)


def _live(settings: Settings) -> int:
    """How many workers have been seen."""
    engine = create_engine(settings.database_url)
    with Session(engine) as session:
        seen = len(session.scalars(select(Worker.id)).all())
    engine.dispose()
    return seen


def _worker(queue: str, env: dict[str, str]) -> Program:
    return Program(name=f"worker-{queue}", argv=(sys.executable, "-m", "worker", queue, "1"), env=env, cwd=ROOT)
