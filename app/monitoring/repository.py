"""SQL of the figures: two aggregates over the jobs that are not over, which an index holds, and two small tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import extract, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import NOW
from app.jobs import claims, workers
from app.jobs.states import State
from app.queue import QUEUES
from app.tables import Count, Job, Worker
from app.tables.jobs import TERMINAL

#: Every queue that a job can be on; ``any``: cpu or gpu.
JOB_QUEUES = ("any", *QUEUES)
ACTIVE = tuple(state for state in State if state not in TERMINAL)


@dataclass(frozen=True)
class Figures:
    """What the database says at one moment.

    Attributes:
        jobs: (queue, state) -> how many, zeros included.
        oldest_s: queue -> age in seconds of what has waited longest though a worker could take it; 0 for nothing.
        workers: queue -> how many are live.
    """

    jobs: Mapping[tuple[str, str], int]
    oldest_s: Mapping[str, float]
    workers: Mapping[str, int]
    counts: Sequence[Count]


async def read(session: AsyncSession, worker_ttl_s: float) -> Figures:
    """All figures of the database."""
    jobs = {(queue, state.value): 0 for queue in JOB_QUEUES for state in ACTIVE}
    oldest_s = dict.fromkeys(JOB_QUEUES, 0.0)
    queue = func.coalesce(Job.queue, "any")
    since = func.greatest(Job.queued_at, Job.not_before, Job.lease_expires_at)
    age = func.max(extract("epoch", NOW - since)).filter(claims.claimable())
    active = select(queue, Job.state, func.count(), age).where(Job.state.in_(ACTIVE)).group_by(queue, Job.state)
    for name, state, number, seconds in await session.execute(active):
        jobs[name, state] = number
        oldest_s[name] = max(oldest_s.get(name, 0.0), float(seconds or 0.0))
    found = await session.execute(
        select(Worker.queue, func.count().label("live")).where(workers.seen(worker_ttl_s)).group_by(Worker.queue)
    )
    live = dict.fromkeys(QUEUES, 0) | {row.queue: row.live for row in found}
    counts = (await session.scalars(select(Count).order_by(Count.name, Count.labels))).all()
    return Figures(jobs, oldest_s, live, counts)
