"""SQL of the lease: who may run what, decided by the database."""

import secrets

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    and_,
    bindparam,
    cast,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.clock import NOW, seconds
from app.jobs.inputs import inputs_ready
from app.jobs.outcomes import LeaseState, Offer
from app.jobs.states import State
from app.tables import Job, Workspace

#: The longest pause before another attempt, in seconds; one that seems longer was made before the clock was set back.
MAX_PAUSE_S = 300.0
#: A worker that does not say how much memory a job may use takes any.
MOST_BYTES = 2**62
#: Jobs of a workspace that a claim compares.
_FIRST = 64


def abandoned() -> ColumnElement[bool]:
    """Nobody renewed the job's lease any more, and maintenance has taken it away (`app.jobs.lost`)."""
    return Job.lease_token.is_(None)


def claimable() -> ColumnElement[bool]:
    """Some worker may start an attempt now."""
    return and_(
        or_(Job.state == State.QUEUED, and_(Job.state == State.RUNNING, abandoned())),
        Job.attempt < Job.max_attempts,
        or_(Job.not_before.is_(None), Job.not_before <= NOW, Job.not_before > NOW + seconds(MAX_PAUSE_S)),
        inputs_ready(),
    )


def fits(offer: Offer) -> ColumnElement[bool]:
    """This worker can run the job: its queue, every target that the job asks for, and the memory that it needs."""
    anywhere = and_(Job.queue.is_(None), Job.kind == "compress")
    queue = Job.queue == offer.queue if offer.queue == "checks" else or_(Job.queue == offer.queue, anywhere)
    targets = Job.targets.contained_by(cast(list(offer.targets), JSONB))
    memory = or_(Job.memory_bytes.is_(None), Job.memory_bytes <= (offer.memory_bytes or MOST_BYTES))
    return and_(queue, targets, memory)


def _waiting() -> ColumnElement[bool]:
    """The condition of `ix_jobs_waiting`, in constants: a prepared plan must see that the index serves it."""
    states = [State.QUEUED.value, State.RUNNING.value]
    named: BindParameter[list[str]] = bindparam("waiting", states, expanding=True, literal_execute=True)
    return Job.state.in_(named)


async def claim(session: AsyncSession, offer: Offer, lease_s: float) -> Job | None:
    """Takes the best claimable job: priority first, then the workspace with the fewest running jobs, then age.

    Only the first jobs of each workspace are compared, which `ix_jobs_waiting` has in order: a long queue costs no more
    than a short one. They are as many as workers can hold locked at once, whom this one passes by.
    """
    other = aliased(Job)
    busy = (
        select(other.workspace_id, func.count().label("running"))
        .where(other.state.in_([State.RUNNING, State.CANCELING]), other.lease_token.is_not(None))
        .group_by(other.workspace_id)
        .subquery()
    )
    first = (
        select(Job.id)
        .where(Job.workspace_id == Workspace.id, _waiting(), claimable(), fits(offer))
        .order_by(Job.priority.desc(), Job.created_at, Job.id)
        .limit(_FIRST)
        .correlate(Workspace)
        .lateral()
    )
    candidates = select(first.c.id).select_from(Workspace).join(first, true()).subquery()
    best = (
        select(Job.id)
        .join(candidates, candidates.c.id == Job.id)
        .outerjoin(busy, busy.c.workspace_id == Job.workspace_id)
        .where(claimable())
        .order_by(Job.priority.desc(), func.coalesce(busy.c.running, 0), Job.created_at, Job.id)
        .limit(1)
        .with_for_update(of=Job, skip_locked=True)
        .correlate(None)
        .scalar_subquery()
    )
    statement = (
        update(Job)
        .where(Job.id == best)
        .values(
            state=State.RUNNING.value,
            attempt=Job.attempt + 1,
            lease_token=secrets.token_hex(16),
            lease_expires_at=NOW + seconds(lease_s),
            worker_id=offer.id,
            started_at=NOW,
            phase=None,
            progress=0,
            not_before=None,
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return (await session.scalars(statement)).one_or_none()


async def renew(session: AsyncSession, job_id: str, token: str, lease_s: float) -> LeaseState:
    """Extends the lease, also of a job that is being canceled: its worker still has to stop it."""
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.lease_token == token)
        .values(lease_expires_at=NOW + seconds(lease_s))
        .returning(Job.state)
        .execution_options(synchronize_session=False)
    )
    state = await session.scalar(statement)
    if state is None:
        return LeaseState.LOST
    return LeaseState.CANCEL if state == State.CANCELING else LeaseState.OK


async def owned(session: AsyncSession, job_id: str, token: str) -> Job | None:
    """The job, locked, while `token` owns it."""
    statement = (
        select(Job)
        .where(Job.id == job_id, Job.lease_token == token)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.scalars(statement)).one_or_none()
