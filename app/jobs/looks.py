"""Looks: the messages that make workers look for a claimable job, and how those are repeated that got lost."""

import logging
from functools import partial

from kombu.exceptions import OperationalError
from sqlalchemy import ColumnElement, and_, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import NOW, seconds
from app.config import Settings
from app.db import after_commit
from app.jobs import claims, workers
from app.queue import QUEUES, Queue
from app.tables import Job, Worker

#: Looks that a round sends on one queue: so many idle workers come to work at once.
MOST = 10

log = logging.getLogger(__name__)


def send(session: AsyncSession, queue: Queue, name: str) -> None:
    """Sends a look on the queue `name` once the transaction has committed."""
    after_commit(session, partial(queue.look, name))


async def repeat(session: AsyncSession, queue: Queue, settings: Settings) -> None:
    """Sends looks on each queue where none waits although it has claimable jobs that nobody was told of lately.

    A look does not say which job, so one that waits for a worker serves all of its queue: what the broker keeps is
    bounded, however many jobs wait while all workers are busy. As many are sent as there are such jobs, up to `MOST`:
    several idle workers all come.
    """
    try:
        waiting = await queue.waiting()
    except (OperationalError, OSError) as error:
        log.warning("no look is repeated while the broker is away: %s", error)
        return
    told: set[str] = set()
    for name in QUEUES:
        if waiting[name] > 0:
            continue
        statement = select(Job.id).where(claims.claimable(), _untold(settings.stale_queued_s), _on(name, settings))
        statement = statement.order_by(Job.looked_at.nulls_first(), Job.id).limit(MOST)
        for job_id in (await session.scalars(statement)).all():
            send(session, queue, name)
            told.add(job_id)
    if told:
        # Locked as late as can be: a worker that claims passes locked jobs by.
        free = select(Job.id).where(Job.id.in_(told)).with_for_update(skip_locked=True)
        await session.execute(update(Job).where(Job.id.in_(free)).values(looked_at=NOW))


def _untold(stale_s: float) -> ColumnElement[bool]:
    """No look was sent since the job got claimable, or none for `stale_s` seconds (or the clock was set back)."""
    return or_(Job.looked_at.is_(None), Job.looked_at < NOW - seconds(stale_s), Job.looked_at > NOW)


def _on(name: str, settings: Settings) -> ColumnElement[bool]:
    """A look on this queue can find the job: as `workers.queues_for` says."""
    able = exists().where(
        workers.seen(settings.worker_ttl_s), Worker.queue == name, Worker.targets.contains(Job.targets)
    )
    if name == "checks":
        return Job.queue == name
    return or_(Job.queue == name, and_(Job.queue.is_(None), able))
