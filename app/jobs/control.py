"""What a user may do to a job that is there: cancel, retry, delete; each as the state table says."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import quotas
from app.errors import Conflict, NotFound
from app.jobs import events, fitting, inputs, repository, transitions, workers
from app.jobs.inputs import Known
from app.jobs.leases import Leases
from app.jobs.states import Event
from app.tables import Job
from app.web.fields import is_storable


async def locked(session: AsyncSession, workspace_id: str, job_id: str) -> Job:
    """A compression job of this workspace, locked.

    Raises:
        NotFound: there is none.
    """
    job = await transitions.lock(session, job_id, workspace_id=workspace_id) if is_storable(job_id) else None
    if job is None or job.kind != "compress":
        raise NotFound(f"There is no job {job_id[:100]!r} in this workspace.", code="job_not_found")
    return job


async def cancel(session: AsyncSession, workspace_id: str, job_id: str) -> Job:
    """A queued job is canceled at once; a running one when its worker has stopped it.

    Raises:
        NotFound, Conflict: ``job_already_finished``.
    """
    job = await locked(session, workspace_id, job_id)
    await transitions.move(session, job, Event.CANCEL)
    return job


async def retry(session: AsyncSession, leases: Leases, workspace_id: str, job_id: str) -> Job:
    """Queues a failed or canceled job for one more attempt, from its last checkpoint.

    Raises:
        NotFound, Conflict: ``job_not_finished``, ``job_already_finished``, or ``inputs_gone`` where a file that it
            reads was rejected or deleted.
        TooManyRequests, Forbidden: see `app.accounts.quotas.hold_job`.
    """
    there = await repository.find(session, workspace_id, job_id)
    # The inputs before the job, as the end of a check locks them.
    known = None if there is None else await fitting.known_to(session, there, settled=True)
    job = await locked(session, workspace_id, job_id)
    await transitions.move(session, job, Event.RETRY)
    lost = await inputs.first_lost(session, job)
    if lost is not None:
        raise Conflict(f"{lost[0]}, which the job reads, was rejected or deleted: upload it again", code="inputs_gone")
    job.max_attempts += 1
    await session.flush()
    await quotas.hold_job(session, leases.settings, workspace_id)
    if known is not None and job.estimate is None and not await _fits(session, leases, job, known):
        return job
    await leases.look_for(session, [job])
    return job


async def _fits(session: AsyncSession, leases: Leases, job: Job, known: Known) -> bool:
    """Whether a job fits its inputs whose checks may have ended while it was not queued; else it fails again."""
    return await fitting.fits(session, job, known, await workers.live(session, leases.settings.worker_ttl_s))


async def delete(session: AsyncSession, workspace_id: str, job_id: str) -> None:
    """Deletes a job that is not running, with its events, metrics, checkpoints and artifacts.

    Raises:
        NotFound, Conflict: ``job_running``.
    """
    job = await locked(session, workspace_id, job_id)
    await transitions.move(session, job, Event.DELETE)
    await events.announce(session, job.id)
    await session.delete(job)
    await session.flush()
