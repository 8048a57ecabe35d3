"""Applies the state table to a locked row, and draws the consequences in the same transaction."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import clock
from app.jobs import counts, events, notices
from app.jobs.inputs import dataset_of_check, waiting_on
from app.jobs.states import Event, State, decide
from app.tables import Dataset, Job, Model
from app.tables.base import Json
from app.tables.jobs import TERMINAL

#: Jobs that one step of maintenance takes in one round.
SOME = 100


async def lock(session: AsyncSession, job_id: str, *, workspace_id: str | None = None) -> Job | None:
    """The job, locked until the transaction ends; of one workspace only, where given."""
    statement = select(Job).where(Job.id == job_id).with_for_update().execution_options(populate_existing=True)
    if workspace_id is not None:
        statement = statement.where(Job.workspace_id == workspace_id)
    return (await session.scalars(statement)).one_or_none()


async def lock_some(session: AsyncSession, *conditions: ColumnElement[bool]) -> Sequence[Job]:
    """Jobs that nobody else has locked, the oldest first, up to `SOME`; locked until the transaction ends."""
    statement = select(Job).where(*conditions).order_by(Job.created_at, Job.id).limit(SOME)
    return (await session.scalars(statement.with_for_update(skip_locked=True, of=Job))).all()


async def move(
    session: AsyncSession, job: Job, event: Event, *, error: Json | None = None, pause_s: float = 0
) -> State | None:
    """Moves a locked job as the table says, appends the state event, and settles the upload that it checks.

    Args:
        error: ``{"code", "detail"}``: why; kept on the job where it fails.
        pause_s: a job that is queued again is not claimable for so long.

    Returns:
        The state after; None where the event cannot come about.

    Raises:
        Conflict: the table refuses the event.
    """
    state = decide(event, job.state, attempts_left=job.attempt < job.max_attempts)
    if state is None or state == job.state:
        return state
    now = await clock(session)
    _count(session, job, event, state, now, error)
    job.state = state.value
    if state == State.QUEUED:
        _queue_again(job, now, pause_s)
    elif state in TERMINAL:
        _end(job, now, state, error)
    await session.flush()
    cause = error if state in (State.QUEUED, State.FAILED) else None
    await events.append(session, job.id, [events.state_event(state, job.attempt, cause)])
    if state in (State.FAILED, State.CANCELED) and job.kind != "compress":
        canceled = {"code": "check_canceled", "detail": "the check of this file was canceled; upload it again"}
        await reject_upload(session, job, error or canceled)
    if state in TERMINAL and job.kind == "compress":
        await notices.tell_end(session, job, now)
    return state


async def reject_upload(session: AsyncSession, job: Job, error: Json) -> None:
    """Marks the file that `job` checks as rejected, and fails the queued jobs that wait for it."""
    if job.kind == "check_model":
        await session.execute(
            update(Model)
            .where(Model.id == job.model_id, Model.state == "checking")
            .values(state="rejected", error=error)
        )
        await fail_waiting(session, str(job.model_id), error)
        return
    dataset_id = dataset_of_check(job)
    await session.execute(
        update(Dataset)
        .where(Dataset.id == dataset_id, Dataset.state == "checking")
        .values(state="rejected", error=error)
    )
    await fail_waiting(session, dataset_id, error)


async def fail_waiting(session: AsyncSession, input_id: str, cause: Json) -> None:
    """Fails the queued jobs that use a rejected input; rows locked by others are left to maintenance."""
    statement = waiting_on(input_id).with_for_update(skip_locked=True)
    for job in (await session.scalars(statement)).all():
        await move(session, job, Event.USER_ERROR, error=rejection(job, input_id, cause))


def rejection(job: Job, input_id: str, cause: Json | None) -> Json:
    """The error of a job whose input was rejected for `cause`, or is gone."""
    code = "model_rejected" if input_id in (job.model_id, *job.step_model_ids) else "dataset_rejected"
    if cause is None:
        return {"code": code, "detail": f"{input_id} was deleted before the job could start; upload it again"}
    return {"code": code, "detail": f"{input_id} was rejected by its check: {cause['detail']} [{cause['code']}]"}


def _count(session: AsyncSession, job: Job, event: Event, state: State, now: datetime, error: Json | None) -> None:
    """Counts what the move ends: an attempt, the job, a lease; with the job as it is before."""
    if job.lease_token is not None and job.started_at is not None and state != State.CANCELING:
        again = "released" if event == Event.RELEASED else "requeued"
        outcome = again if state == State.QUEUED else state.value
        counts.attempt_ended(session, job, outcome, (now - job.started_at).total_seconds())
    if state in TERMINAL and job.state not in TERMINAL:
        counts.job_ended(session, job, state)
    if event == Event.LEASE_EXPIRED:
        counts.lease_lost(session, job)
    elif event == Event.FAULT and error is not None and job.state == State.RUNNING:
        counts.fault(session, job, str(error["code"]))


def _queue_again(job: Job, now: datetime, pause_s: float) -> None:
    _drop_lease(job)
    job.queued_at, job.looked_at, job.finished_at = now, None, None
    job.not_before = now + timedelta(seconds=pause_s) if pause_s else None
    job.phase, job.progress, job.error = None, 0.0, None


def _end(job: Job, now: datetime, state: State, error: Json | None) -> None:
    _drop_lease(job)
    job.finished_at, job.not_before = now, None
    job.error = error if state == State.FAILED else None
    if state == State.SUCCEEDED:
        job.progress, job.eta_s = 1.0, 0.0


def _drop_lease(job: Job) -> None:
    job.lease_token, job.lease_expires_at, job.worker_id, job.eta_s = None, None, None, None
