"""What every job of one worker process has in common: settings, what it offers, which walls stand."""

import logging
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.config import Settings
from app.jobs.outcomes import Offer
from app.queue import QUEUES
from app.tables import new_id
from worker.runner import capabilities
from worker.runner.folder import JobFolder, sweep
from worker.runner.sandbox import Confinement, Standing

log = logging.getLogger(__name__)

_MEMORY_SHARE = 0.9


@dataclass(frozen=True)
class Slot:
    """A worker process, made before its pool forks.

    Attributes:
        memory_bytes: what a job may use, all its processes together.
        threads: processors that a job may use.
    """

    settings: Settings
    offer: Offer
    standing: Standing
    memory_bytes: int
    threads: int

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where jobs compute."""
        return "cuda" if self.offer.queue == "gpu" else "cpu"

    @property
    def measure_lock(self) -> Path:
        """The host's lock for taking times; workers on one host share the work folder."""
        return self.settings.work_dir / "measure.lock"

    def confinement(self, folder: JobFolder, uid: int | None, run_timeout_s: float) -> Confinement:
        """The walls of one job."""
        on_gpu = self.device == "cuda"
        return Confinement(
            walls=self.standing.walls,
            read=(str(folder.path),),
            write=(str(folder.output), str(folder.tmp), str(folder.home)),
            devices=capabilities.gpu_devices() if on_gpu else (),
            memory_bytes=0 if on_gpu else self.memory_bytes,
            file_bytes=self.settings.job_file_bytes,
            processes=self.settings.job_processes,
            cpu_s=int(run_timeout_s * capabilities.processors()) + 60,
            uid=uid,
            keep_search=self.standing.keep_search,
        )


def open_slot(settings: Settings, queue: str) -> Slot:
    """Finds out what this worker can do, and removes what dead workers left.

    Raises:
        CannotServeError: it cannot do what `queue` asks for.
    """
    if queue not in QUEUES:
        raise capabilities.CannotServeError(f"no queue {queue!r}; a worker serves one of {', '.join(QUEUES)}")
    if queue == "gpu":
        capabilities.require_gpu()
    settings.work_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    if settings.work_dir.stat().st_uid != os.geteuid():
        raise capabilities.CannotServeError(f"{settings.work_dir} belongs to another user; set MODELPRESS_WORK_DIR")
    for name in sweep(settings.work_dir):
        log.warning("removed what a dead worker left: %s", name)
    standing = _probe(settings)
    memory = settings.job_memory_bytes or int(capabilities.memory_bytes() * _MEMORY_SHARE)
    threads = settings.job_threads or capabilities.processors()
    sandbox = {"walls": list(standing.walls), "missing": standing.missing}
    offer = Offer(
        id=new_id("wrk"),
        hostname=socket.gethostname(),
        queue=queue,
        targets=() if queue == "checks" else capabilities.targets(gpu=queue == "gpu"),
        capabilities={
            **capabilities.describe(),
            "sandbox": sandbox,
            "job": {"memory_bytes": memory, "threads": threads},
        },
    )
    return Slot(settings, offer, standing, memory, threads)


def _probe(settings: Settings) -> Standing:
    command = [sys.executable, "-m", "worker.runner.launch", "--probe", str(settings.work_dir)]
    environment = {"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    except subprocess.SubprocessError as error:
        raise capabilities.CannotServeError(f"the sandbox cannot be probed: {error}") from error
    standing = Standing.from_json(answer.stdout)
    for wall, why in standing.missing.items():
        log.warning("the sandbox stands without the wall %s: %s", wall, why)
    if standing.missing and settings.require_sandbox:
        raise capabilities.CannotServeError(
            f"MODELPRESS_REQUIRE_SANDBOX is set, but these walls cannot stand here: {', '.join(standing.missing)} "
            "(docs/sandbox.md says what each needs)"
        )
    return standing
