"""Runs one leased job: prepares its folder, starts its process, listens, keeps the lease, records the outcome.

Whatever happens to the process is an outcome; whatever happens to this supervisor (a crash, a lost machine) is an
expired lease, which the database gives to another worker. The process is not trusted: its reports are parsed
against the contract, and its files are copied out of its reach before they are stored.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto
from pathlib import Path, PurePath
from typing import Any

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from app import tracing
from app.db import Database
from app.jobs.leases import Leases
from app.jobs.outcomes import (
    Fault,
    Finished,
    Lease,
    LeaseState,
    NewArtifact,
    NewCheckpoint,
    Outcome,
    Stopped,
    TimedOut,
    UserError,
)
from app.storage import ObjectMissing, ObjectStore, Stored, StoreFull
from app.uploads.keep import keep_file
from worker.runner.assignment import prepare
from worker.runner.folder import DISK_FULL, JobFolder, UntrustedFileError
from worker.runner.journal import Journal
from worker.runner.messages import ArtifactFile, CheckpointSaved, Failure, Log, Progress, Result
from worker.runner.process import JobProcess, ProtocolError
from worker.runner.renewal import Renewal
from worker.runner.slot import Slot

log = logging.getLogger(__name__)

_RETRY_S = 0.5
#: How long a worker that ends waits for what is on its way into the store; workers get 15 s and more to end.
_STORING_S = 8.0
_MAX_NAME = 200
_UNSTORABLE = UserError("job_protocol_error", "the job's process reported what the database does not take")


class Stop(Enum):
    """Why a job is stopped from outside."""

    CANCELED = auto()
    TIMED_OUT = auto()
    LEASE_LOST = auto()
    SHUTDOWN = auto()


_STOPS = {LeaseState.CANCEL: Stop.CANCELED, LeaseState.TIMED_OUT: Stop.TIMED_OUT, LeaseState.LOST: Stop.LEASE_LOST}


class Supervisor:
    """One attempt of one job.

    Args:
        asked: `lifeline.now()` before the lease was asked for.
        shutdown: set when this worker ends.
    """

    def __init__(
        self,
        slot: Slot,
        database: Database,
        leases: Leases,
        store: ObjectStore,
        lease: Lease,
        asked: float,
        shutdown: asyncio.Event,
    ) -> None:
        self._slot = slot
        self._database = database
        self._leases = leases
        self._store = store
        self._lease = lease
        self._shutdown = shutdown
        self._stop: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        #: Whether nothing that the job has made is on its way into the store.
        self._stored = asyncio.Event()
        self._stored.set()
        self._journal = Journal(database, leases, lease, lambda: self._stop_for(Stop.LEASE_LOST))
        self._renewal = Renewal(database, leases, lease, asked, self._answered)

    async def run(self) -> None:
        """Runs the job and records how it ended; only a lost lease leaves it without a record."""
        background = [
            asyncio.create_task(step()) for step in (self._renewal.run, self._await_shutdown, self._journal.run)
        ]
        work = asyncio.create_task(self._work())
        try:
            waited: set[asyncio.Future[Any]] = {work, self._stop}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and self._stop.result() is Stop.SHUTDOWN:
                await self._let_store(work)
            if work.done():
                outcome: Outcome | Stop = work.result()
            else:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                outcome = self._stop.result()
            await self._record(outcome)
        finally:
            for task in (*background, work):
                task.cancel()
            await asyncio.gather(*background, work, return_exceptions=True)

    async def _let_store(self, work: "asyncio.Task[Outcome]") -> None:
        """What the job has made already is not thrown away if it is in the store soon."""
        stored = asyncio.create_task(self._stored.wait())
        await asyncio.wait({work, stored}, timeout=_STORING_S, return_when=asyncio.FIRST_COMPLETED)
        stored.cancel()

    def _stop_for(self, reason: Stop) -> None:
        if not self._stop.done():
            self._stop.set_result(reason)

    def _answered(self, state: LeaseState) -> None:
        if state in _STOPS:
            self._stop_for(_STOPS[state])

    async def _await_shutdown(self) -> None:
        await self._shutdown.wait()
        self._stop_for(Stop.SHUTDOWN)

    async def _work(self) -> Outcome:
        """The whole attempt; faults of this machine become an outcome like any other."""
        try:
            async with self._folder() as (folder, uid):
                async with self._database.transaction() as session:
                    checkpoint = await self._leases.latest_checkpoint(session, self._lease)
                with tracing.span("job prepare"):
                    await prepare(self._lease, self._slot, self._store, folder, checkpoint)
                return await self._run_process(folder, uid)
        except (ProtocolError, UntrustedFileError) as error:
            return UserError("job_protocol_error", f"the job's process was stopped: {error}")
        except ObjectMissing as error:
            return Fault("input_missing", f"the store does not have {error} any more; upload the file again")
        except StoreFull:
            return Fault("storage_full", "the store has no room for what the job made; free some space and retry")
        except Exception as error:  # the worker must outlive whatever one job runs into
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                return Fault("storage_full", "the disk of the work folder is full; free some space and retry")
            log.exception("job %s: attempt %d failed in the worker", self._lease.job_id, self._lease.attempt)
            return Fault("worker_fault", f"the worker failed while running the job ({type(error).__name__})")

    @asynccontextmanager
    async def _folder(self) -> AsyncIterator[tuple[JobFolder, int | None]]:
        uid = self._slot.standing.uid(os.getpid())
        name = f"{self._lease.job_id}-{self._lease.attempt}"
        folder = await asyncio.to_thread(JobFolder.create, self._slot.settings.work_dir, name, uid)
        try:
            yield folder, uid
        finally:
            await asyncio.shield(asyncio.to_thread(folder.remove))

    async def _run_process(self, folder: JobFolder, uid: int | None) -> Outcome:
        process = JobProcess(
            folder,
            self._slot.confinement(folder, uid, self._lease.run_timeout_s),
            memory_bytes=self._slot.memory_bytes,
            threads=self._slot.threads,
            measure_lock=self._slot.measure_lock,
            end=self._renewal.end,
        )
        async with process:
            self._renewal.keep(process)
            last = await self._listen(process, folder)
            if last is None:
                death = await process.ended()
                await self._log_output(process)
                return Fault(death.code, death.detail)
        if isinstance(last, Failure):
            if not last.user:
                await self._log_output(process)
                return Fault(last.code, last.detail)
            return UserError(last.code, last.detail)
        return await self._collect(last, folder, process.peak_bytes)

    async def _listen(self, process: JobProcess, folder: JobFolder) -> Result | Failure | None:
        """Handles reports until the last one; None where the process ended without one."""
        phases = tracing.Phases("job ")
        try:
            async for report in process.reports():
                if isinstance(report, Result):
                    self._stored.clear()
                if isinstance(report, Result | Failure):
                    return report
                if isinstance(report, CheckpointSaved):
                    self._stored.clear()
                    await self._save_checkpoint(report, folder)
                    self._stored.set()
                    continue
                if isinstance(report, Progress):
                    phases.enter(report.phase)
                await self._journal.add(report)
            return None
        finally:
            phases.end()

    async def _log_output(self, process: JobProcess) -> None:
        """What a broken process printed goes to the log of the worker, and its end to the job's."""
        if output := process.output_tail():
            lines = output.splitlines()
            # Quoted: what a process prints must not pass for lines of the worker's own.
            log.warning(
                "job %s: its process printed:\n%s", self._lease.job_id, "\n".join(f"  | {line!r}" for line in lines)
            )
            last = lines[-1][:500]
            await self._journal.add(Log(level="error", message=f"the job's process ended after printing: {last}"))

    async def _save_checkpoint(self, report: CheckpointSaved, folder: JobFolder) -> None:
        """Stores a checkpoint; without room for it the job goes on, and a new attempt would start earlier."""
        copy = await asyncio.to_thread(folder.take, report.file)
        try:
            stored = await self._keep(copy)
            checkpoint = NewCheckpoint(report.label[:_MAX_NAME], stored.size_bytes, stored.sha256)
            async with self._database.transaction() as session:
                owned = await self._leases.save_checkpoint(session, self._lease, checkpoint)
        except (StoreFull, OSError, SQLAlchemyError) as error:
            log.warning("job %s: a checkpoint was not stored: %s", self._lease.job_id, error)
            return
        finally:
            copy.unlink()
        if not owned:
            self._stop_for(Stop.LEASE_LOST)

    async def _collect(self, result: Result, folder: JobFolder, peak_bytes: int) -> Outcome:
        """Stores the artifacts; they are published by the guarded finish."""
        with tracing.span("job store"):
            made = [await self._store_artifact(artifact, folder) for artifact in result.artifacts]
        return Finished(
            artifacts=made,
            metrics=result.metrics,
            gate=result.gate,
            facts=result.facts,
            peak_memory_bytes=peak_bytes,
        )

    async def _store_artifact(self, artifact: ArtifactFile, folder: JobFolder) -> NewArtifact:
        if artifact.target not in self._lease.targets:
            raise ProtocolError(f"an artifact for {artifact.target!r}, which was not asked for")
        copy = await asyncio.to_thread(folder.take, artifact.file)
        stored = await self._keep(copy)
        copy.unlink()
        return NewArtifact(
            target=artifact.target,
            format=artifact.format,
            filename=PurePath(artifact.filename).name[:_MAX_NAME] or "artifact",
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            manifest=artifact.manifest,
        )

    async def _keep(self, file: Path) -> Stored:
        return await keep_file(self._database, self._store, self._lease.workspace_id, file)

    async def _record(self, outcome: Outcome | Stop) -> None:
        """Ends the attempt in the database, trying for as long as the lease can be ours."""
        await self._journal.flush()
        if isinstance(outcome, Fault | UserError):
            tracing.fail(outcome.code)
        elif isinstance(outcome, Stop):
            tracing.fail(outcome.name.lower())
        if outcome is Stop.LEASE_LOST:
            log.warning("job %s: the lease of attempt %d is lost", self._lease.job_id, self._lease.attempt)
            return
        while True:
            try:
                state = await self._end(outcome)
            except (DataError, IntegrityError) as error:
                log.warning("job %s: its report does not fit the tables: %s", self._lease.job_id, error)
                if outcome == _UNSTORABLE:
                    return
                outcome = _UNSTORABLE
            except (SQLAlchemyError, OSError) as error:
                log.warning("job %s: the end was not recorded yet: %s", self._lease.job_id, error)
                if self._renewal.over:
                    return
                await asyncio.sleep(_RETRY_S)
            else:
                log.info("job %s: attempt %d ended, now %s", self._lease.job_id, self._lease.attempt, state or "lost")
                return

    async def _end(self, outcome: Outcome | Stop) -> str | None:
        ends: dict[Stop, Outcome] = {Stop.CANCELED: Stopped(), Stop.TIMED_OUT: TimedOut()}
        async with self._database.transaction() as session:
            if outcome is Stop.SHUTDOWN:
                return await self._leases.release(session, self._lease)
            ended = ends[outcome] if isinstance(outcome, Stop) else outcome
            return await self._leases.finish(session, self._lease, ended)
