"""What a worker may do with jobs: claim one, keep it, report on it, end it.

Every call runs in the caller's transaction and is guarded by the lease's token: where it does not own the job any more,
nothing is written and the answer says so.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import clock
from app.config import Settings
from app.jobs import claims, counts, estimates, events, fitting, inputs, looks, results, workers
from app.jobs.clean import clean, clean_error
from app.jobs.events import NewEvent
from app.jobs.outcomes import (
    Fault,
    Finished,
    Lease,
    LeaseState,
    NewCheckpoint,
    Offer,
    Outcome,
    Stopped,
    TimedOut,
    UserError,
)
from app.jobs.states import Event, State
from app.jobs.transitions import move
from app.queue import Queue
from app.recipes import DatasetFacts, ModelFacts
from app.tables import Checkpoint, Job
from app.tables.base import Json


class Leases:
    """The worker's side of the jobs. `queue` carries the looks that an outcome calls for."""

    def __init__(self, settings: Settings, queue: Queue) -> None:
        self._settings = settings
        self._queue = queue

    @property
    def settings(self) -> Settings:
        """Those of the deployment."""
        return self._settings

    @property
    def queue(self) -> Queue:
        """The broker, for looks."""
        return self._queue

    async def register_worker(self, session: AsyncSession, offer: Offer) -> None:
        """Announces this worker; jobs for its targets are accepted from now on."""
        await workers.register(session, offer)

    async def heartbeat_worker(self, session: AsyncSession, offer: Offer) -> None:
        """Keeps this worker live."""
        if not await workers.heartbeat(session, offer.id):
            await workers.register(session, offer)

    async def forget_worker(self, session: AsyncSession, worker_id: str) -> None:
        """This worker ends."""
        await workers.forget(session, worker_id)

    async def claim(self, session: AsyncSession, offer: Offer) -> Lease | None:
        """Takes the best job that this worker can run; None where there is none."""
        job = await claims.claim(session, offer, self._settings.lease_s)
        if job is None or job.lease_token is None:
            return None
        lost = job.attempt > 1 and await events.last_state(session, job.id) == State.RUNNING
        counts.claimed(session, job, lost_by=lost)
        await events.append(session, job.id, [events.state_event(job.state, job.attempt, None)])
        return Lease(
            job_id=job.id,
            token=job.lease_token,
            workspace_id=job.workspace_id,
            kind=job.kind,
            queue=job.queue,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            run_timeout_s=job.run_timeout_s,
            recipe=job.recipe,
            targets=tuple(job.targets),
            request=job.request,
            inputs=await inputs.files_of(session, job),
            queued_at=job.queued_at,
            trace_parent=job.trace_parent,
        )

    async def renew(self, session: AsyncSession, lease: Lease) -> LeaseState:
        """Extends the lease and tells what the database says about the job: go on, stop, or you have lost it."""
        return await claims.renew(session, lease.job_id, lease.token, self._settings.lease_s)

    async def progress(
        self, session: AsyncSession, lease: Lease, phase: str, fraction: float, eta_s: float | None = None
    ) -> bool:
        """Records how far the job is. An event is appended only for a new phase or another whole percent."""
        job = await claims.owned(session, lease.job_id, lease.token)
        if job is None:
            return False
        fraction = min(max(fraction, job.progress), 1.0)
        telling = phase != job.phase or int(fraction * 100) > int(job.progress * 100)
        job.phase, job.progress, job.eta_s = phase, fraction, clean(eta_s)
        await session.flush()
        if not telling:
            return True
        data = {"phase": phase, "progress": fraction, "eta_s": job.eta_s}
        return await events.append_guarded(session, lease.job_id, lease.token, [NewEvent("progress", data)])

    async def append_events(self, session: AsyncSession, lease: Lease, new: Iterable[NewEvent]) -> bool:
        """Appends logs and metric points, in the order given. False: the lease is lost."""
        cleaned = [NewEvent(event.type, clean(event.data)) for event in new]
        return await events.append_guarded(session, lease.job_id, lease.token, cleaned)

    async def save_checkpoint(self, session: AsyncSession, lease: Lease, checkpoint: NewCheckpoint) -> bool:
        """Records a checkpoint whose bytes are stored. False: the lease is lost."""
        job = await claims.owned(session, lease.job_id, lease.token)
        if job is None:
            return False
        await results.add_checkpoint(session, job, checkpoint)
        return True

    async def latest_checkpoint(self, session: AsyncSession, lease: Lease) -> Checkpoint | None:
        """Where this attempt continues."""
        return await results.latest_checkpoint(session, lease.job_id)

    async def release(self, session: AsyncSession, lease: Lease) -> State | None:
        """Gives the job back because this worker shuts down; the attempt does not count. None: the lease is lost."""
        job = await claims.owned(session, lease.job_id, lease.token)
        if job is None:
            return None
        if job.state == State.RUNNING:
            job.attempt -= 1
        state = await move(session, job, Event.RELEASED)
        if state == State.QUEUED:
            await self.look_for(session, [job])
        return state

    async def finish(self, session: AsyncSession, lease: Lease, outcome: Outcome) -> State | None:
        """Ends the attempt. Returns the job's state after; None where the lease is lost and nothing was recorded."""
        job = await claims.owned(session, lease.job_id, lease.token)
        if job is None:
            return None
        match outcome:
            case Finished():
                return await self._finished(session, job, outcome)
            case UserError():
                return await move(session, job, Event.USER_ERROR, error=clean_error(outcome.code, outcome.detail))
            case TimedOut():
                detail = f"the job ran for longer than {job.run_timeout_s:g} s (timeouts.run_s)"
                return await move(session, job, Event.TIMED_OUT, error=clean_error("run_timeout", detail))
            case Fault():
                return await self._fault(session, job, clean_error(outcome.code, outcome.detail))
            case Stopped():
                return await self._fault(session, job, clean_error("worker_lost", "the job's process was stopped"))

    async def look_for(self, session: AsyncSession, jobs: Sequence[Job]) -> None:
        """Sends a look for each of these jobs once the transaction has committed."""
        ttl_s = self._settings.worker_ttl_s
        for job in jobs:
            for name in await workers.queues_for(session, job.queue, job.targets, ttl_s):
                looks.send(session, self._queue, name)

    async def _finished(self, session: AsyncSession, job: Job, outcome: Finished) -> State | None:
        if job.state == State.CANCELING:
            return await move(session, job, Event.FINISHED)
        if job.kind != "compress":
            return await self._checked(session, job, dict(outcome.facts or {}))
        await results.replace_results(session, job, outcome.artifacts, outcome.metrics)
        await self._measured(session, job, outcome.peak_memory_bytes)
        job.gate = clean(dict(outcome.gate)) if outcome.gate is not None else None
        if job.gate is not None and not job.gate.get("passed"):
            counts.gate_failed(session, job.gate)
            return await move(session, job, Event.USER_ERROR, error=clean_error("limits_not_met", _broken(job.gate)))
        await results.drop_checkpoints(session, job.id)
        return await move(session, job, Event.FINISHED)

    async def _measured(self, session: AsyncSession, job: Job, peak_memory_bytes: int) -> None:
        """What the job took is kept, and later estimates learn of it."""
        job.peak_memory_bytes = peak_memory_bytes or None
        worker = await workers.find(session, job.worker_id)
        if worker is not None and job.started_at is not None:
            run_s = (await clock(session) - job.started_at).total_seconds()
            await estimates.learn(session, job, run_s, worker.queue)

    async def _checked(self, session: AsyncSession, job: Job, facts: Json) -> State | None:
        """The file is what its check says; who waits for it is looked at."""
        schema = ModelFacts if job.kind == "check_model" else DatasetFacts
        try:
            schema.model_validate(facts)
        except ValidationError as error:
            return await self._fault(
                session, job, clean_error("invalid_report", f"the check reported no facts: {error}")
            )
        input_id = await results.accept_upload(session, job, facts)
        state = await move(session, job, Event.FINISHED)
        live = await workers.live(session, self._settings.worker_ttl_s)
        await self.look_for(session, await fitting.fit_to_start(session, input_id, live))
        return state

    async def _fault(self, session: AsyncSession, job: Job, error: Json) -> State | None:
        if error["code"] == "out_of_memory":
            worker = await workers.find(session, job.worker_id)
            live = await workers.live(session, self._settings.worker_ttl_s)
            more = None if worker is None else estimates.more_memory(job, worker, live)
            job.memory_bytes = more or job.memory_bytes
        pause_s = min(self._settings.retry_backoff_s * 2 ** (job.attempt - 1), claims.MAX_PAUSE_S)
        return await move(session, job, Event.FAULT, error=error, pause_s=pause_s)


def _broken(gate: Json) -> str:
    """Which limits the gate found broken, in a sentence."""
    checks: list[Any] = [check for check in gate.get("checks", []) if not check.get("passed")]
    parts = [
        f"{check.get('limit')} on {check.get('target')}:"
        f" allowed {check.get('allowed')}, measured {_readable(check.get('measured'))}"
        for check in checks
    ]
    return "; ".join(parts) or "the gate did not pass"


def _readable(measured: object) -> object:
    """The gate itself keeps every digit."""
    return f"{measured:.6g}" if isinstance(measured, float) else measured
