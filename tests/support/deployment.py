"""A deployment without its API: database, broker, store, and worker processes that a test starts and kills."""

import asyncio
import hashlib
import io
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
from sqlalchemy import create_engine, delete, select, update
from sqlalchemy.orm import Session

from app.config import Settings
from app.db import Database
from app.jobs.leases import Leases
from app.jobs.maintenance import Maintenance
from app.queue import LOOK, Queue, celery_app
from app.storage import open_store
from app.tables import Blob, Dataset, Job, JobEvent, Worker, Workspace
from tests.support.servers import environment

T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], what: str, timeout_s: float = 90.0) -> T:
    """Polls until `condition` answers something; fails with `what` was awaited."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"after {timeout_s:g} s still no {what}")


def tensors(samples: int = 64, **columns: np.ndarray) -> bytes:
    """An npz file."""
    buffer = io.BytesIO()
    rng = np.random.default_rng(0)
    np.savez(buffer, **(columns or {"input": rng.normal(size=(samples, 8)).astype(np.float32)}))
    return buffer.getvalue()


def supervisors(worker: psutil.Process) -> list[psutil.Process]:
    """The worker and its slots, without the keepers of jobs and what is below those."""
    found, queue = [], [worker]
    while queue:
        process = queue.pop()
        if "worker.runner.launch" not in process.cmdline():
            found.append(process)
            queue += process.children()
    return found


@dataclass
class WorkerProcess:
    """One Celery worker; `log` is what it wrote."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def kill_tree(self) -> None:
        """``kill -9`` of the worker, its slots, and everything below them, as when a machine is lost."""
        tree = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in tree:
            process.suspend()
        for process in tree:
            process.kill()
        self.process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The worker and its slots stand still, the processes of its jobs do not."""
        still = supervisors(psutil.Process(self.process.pid))
        for process in still:
            process.suspend()
        try:
            yield
        finally:
            for process in still:
                process.resume()

    def stop(self) -> float:
        """SIGTERM; seconds until it ended."""
        started = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill_tree()
                raise
        return time.monotonic() - started


@dataclass
class Deployment:
    """Settings shared by all processes of one test, and the rows that a test looks at."""

    settings: Settings
    folder: Path
    workers: list[WorkerProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = create_engine(self.settings.database_url)
        with Session(self.engine) as session, session.begin():
            session.add(Workspace(id="wsp_test", name="test"))

    def close(self) -> None:
        """Ends every worker."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill_tree()
        self.engine.dispose()

    def environment(self, **changes: str) -> dict[str, str]:
        """Environment of a service process with these settings."""
        return {**environment(self.settings), **changes}

    def start_worker(self, queue: str = "checks", slots: int = 1, **changes: str) -> WorkerProcess:
        """A worker that is among the live ones."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        known = set(self.live_workers())
        command = [sys.executable, "-m", "worker", queue, str(slots)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=self.environment(**changes), stdout=output, stderr=subprocess.STDOUT, cwd=self.folder
            )
        worker = WorkerProcess(process, log)
        self.workers.append(worker)

        def registered() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"the worker ended:\n{log.read_text()}")
            return bool(set(self.live_workers()) - known)

        wait_for(registered, f"worker; its log:\n{log.read_text()}")
        return worker

    def live_workers(self) -> list[str]:
        """Ids in the table of workers."""
        with Session(self.engine) as session:
            return list(session.scalars(select(Worker.id)))

    def worker_rows(self) -> list[Worker]:
        """The workers, with what they offer."""
        with Session(self.engine, expire_on_commit=False) as session:
            return list(session.scalars(select(Worker)))

    def store(self, content: bytes) -> str:
        """Puts bytes into the store as an upload would; their digest."""
        sha256 = hashlib.sha256(content).hexdigest()
        path = Path(self.settings.store_url.removeprefix("file://")) / "wsp_test" / sha256[:2] / sha256
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return sha256

    def add_check(self, content: bytes | None = None, *, filename: str = "data.npz", **job: Any) -> str:
        """A dataset and the job that checks it; the job's id. No look is sent."""
        content = tensors() if content is None else content
        sha256 = self.store(content)
        with Session(self.engine) as session, session.begin():
            session.merge(Blob(workspace_id="wsp_test", sha256=sha256, size_bytes=len(content)))
            session.flush()
            dataset = Dataset(
                workspace_id="wsp_test",
                name=filename,
                filename=filename,
                kind="tensors",
                size_bytes=len(content),
                sha256=sha256,
            )
            session.add(dataset)
            session.flush()
            values = {"queue": "checks", "kind": "check_dataset", "calibration_dataset_id": dataset.id, **job}
            row = Job(workspace_id="wsp_test", **values)
            session.add(row)
            session.flush()
            return row.id

    def look(self, queue: str = "checks", times: int = 1) -> None:
        """Sends look messages."""
        app = celery_app(self.settings)
        for _ in range(times):
            app.send_task(LOOK, queue=queue)
        app.close()

    def job(self, job_id: str) -> Job:
        """The job's row as it is now."""
        with Session(self.engine, expire_on_commit=False) as session:
            return session.get_one(Job, job_id)

    def update_job(self, job_id: str, **values: Any) -> None:
        """Changes a row, as the API or maintenance would."""
        with Session(self.engine) as session, session.begin():
            session.execute(update(Job).where(Job.id == job_id).values(**values))

    def dataset_of(self, job_id: str) -> Dataset:
        """The dataset that a check looks at."""
        with Session(self.engine, expire_on_commit=False) as session:
            return session.get_one(Dataset, self.job(job_id).calibration_dataset_id)

    def states(self, job_id: str) -> list[tuple[str, int]]:
        """State events: (state, attempt), in order."""
        with Session(self.engine) as session:
            rows = session.scalars(
                select(JobEvent.data)
                .where(JobEvent.job_id == job_id, JobEvent.type == "state")
                .order_by(JobEvent.number)
            )
            return [(row["state"], row["attempt"]) for row in rows]

    def logs(self, job_id: str) -> str:
        """The job's log lines."""
        with Session(self.engine) as session:
            rows = session.scalars(select(JobEvent.data).where(JobEvent.job_id == job_id, JobEvent.type == "log"))
            return "\n".join(row["message"] for row in rows)

    def forget_workers(self) -> None:
        """Empties the table of workers."""
        with Session(self.engine) as session, session.begin():
            session.execute(delete(Worker))

    @contextmanager
    def maintained(self) -> Iterator[None]:
        """The maintenance loop of an API process, in a thread."""
        loop = asyncio.new_event_loop()

        async def run() -> None:
            database = Database(self.settings, pooled=False)
            leases = Leases(self.settings, Queue(self.settings))
            try:
                await Maintenance(self.settings, database, open_store(self.settings), leases).run()
            finally:
                await database.close()

        task = loop.create_task(run())
        thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])))
        thread.start()
        try:
            yield
        finally:
            ended = task.done()
            loop.call_soon_threadsafe(task.cancel)
            thread.join()
            loop.close()
            if ended:  # by itself: what should have put things right was not there
                task.result()

    def await_state(self, job_id: str, *states: str, timeout_s: float = 90.0) -> Job:
        """Waits until the job is in one of `states`."""

        def reached() -> Job | None:
            job = self.job(job_id)
            return job if job.state in states else None

        return self._wait_for(reached, job_id, " or ".join(states), timeout_s)

    def _wait_for(self, condition: Callable[[], T | None], job_id: str, what: str, timeout_s: float = 90.0) -> T:
        """As `wait_for`; its failure tells how the job stands and what the workers wrote."""
        try:
            return wait_for(condition, what, timeout_s)
        except AssertionError as error:
            job = self.job(job_id)
            logs = "\n".join(worker.log.read_text() for worker in self.workers)
            raise AssertionError(
                f"{error}: it is {job.state}, attempt {job.attempt}, {job.error}, after {self.states(job_id)}\n{logs}"
            ) from None

    def job_process(self, job_id: str, *, attempt: int = 1) -> psutil.Process:
        """The job's own process, as soon as there is one."""

        def find() -> psutil.Process | None:
            for process in psutil.process_iter(["cmdline"]):
                command = process.info["cmdline"] or []
                if "worker.runner.child" in command[:3] and f"{job_id}-{attempt}-" in command[-1]:
                    return process
            return None

        return self._wait_for(find, job_id, f"process of attempt {attempt} of {job_id}")

    def freeze(self, job_id: str, *, attempt: int = 1) -> psutil.Process:
        """Stops the job's process in mid-air, so that a test can act on a job that runs."""
        process = self.job_process(job_id, attempt=attempt)
        process.suspend()
        assert self.job(job_id).state == "running"
        return process


@contextmanager
def deployment(database_url: str, broker_url: str, folder: Path, **settings: Any) -> Iterator[Deployment]:
    """A deployment whose leases and pauses are short; ends with all its workers."""
    quick = {
        "lease_s": 10.0,  # a worker that is silent for longer has lost its job: a busy machine stands still for seconds
        "heartbeat_s": 0.5,
        "cancel_poll_s": 0.3,
        "retry_backoff_s": 0.1,
        "maintenance_s": 0.5,
        "stale_queued_s": 1.0,
        "job_threads": 1,
        "key_pepper": "pepper-of-the-tests",
    }
    values = {
        "database_url": database_url,
        "broker_url": broker_url,
        "store_url": f"file://{folder / 'store'}",
        "work_dir": folder / "work",
        **quick,
        **settings,
    }
    made = Deployment(Settings(_env_file=None, **values), folder)
    try:
        yield made
    finally:
        made.close()
