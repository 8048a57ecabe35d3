"""Workers: SQL of who is live, what is on offer, and whom a new job concerns."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, cast, delete, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import NOW, seconds
from app.db import delete_some
from app.jobs.outcomes import Offer
from app.tables import Worker


async def register(session: AsyncSession, offer: Offer) -> None:
    """Announces a worker, or what it offers now."""
    values = {
        "hostname": offer.hostname,
        "queue": offer.queue,
        "targets": list(offer.targets),
        "capabilities": dict(offer.capabilities),
        "started_at": NOW,
        "seen_at": NOW,
    }
    statement = insert(Worker).values(id=offer.id, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=[Worker.id], set_=values))


async def heartbeat(session: AsyncSession, worker_id: str) -> bool:
    """Keeps a worker live. False: it is not registered (any more)."""
    statement = update(Worker).where(Worker.id == worker_id).values(seen_at=NOW)
    return await session.scalar(statement.returning(Worker.id)) is not None


async def forget(session: AsyncSession, worker_id: str) -> None:
    """Removes a worker that ends."""
    await session.execute(delete(Worker).where(Worker.id == worker_id))


def seen(ttl_s: float) -> ColumnElement[bool]:
    """The worker was seen in the last `ttl_s` seconds: it is live."""
    return Worker.seen_at >= NOW - seconds(ttl_s)


async def live(session: AsyncSession, ttl_s: float) -> Sequence[Worker]:
    """Workers seen in the last `ttl_s` seconds."""
    return (await session.scalars(select(Worker).where(seen(ttl_s)).order_by(Worker.id))).all()


def of_kind(compute: str, among: Sequence[Worker]) -> list[Worker]:
    """Those for jobs of this `compute`: any, cpu or gpu."""
    kinds = ("cpu", "gpu") if compute == "any" else (compute,)
    return [worker for worker in among if worker.queue in kinds]


def able(targets: Sequence[str], compute: str, among: Sequence[Worker]) -> list[Worker]:
    """Those of the right kind that have every target."""
    return [worker for worker in of_kind(compute, among) if set(targets) <= set(worker.targets)]


async def find(session: AsyncSession, worker_id: str | None) -> Worker | None:
    """A worker, live or not; None where it is not known (any more)."""
    return None if worker_id is None else await session.get(Worker, worker_id)


async def queues_for(session: AsyncSession, queue: str | None, targets: Sequence[str], ttl_s: float) -> list[str]:
    """Queues on which a look finds a worker that can run such a job; a named queue is always one of them."""
    if queue is not None:
        return [queue]
    statement = select(Worker.queue).where(
        seen(ttl_s), Worker.queue != "checks", Worker.targets.contains(cast(list(targets), JSONB))
    )
    return sorted(set((await session.scalars(statement)).all()))


async def forget_silent(session: AsyncSession, silence_s: float) -> None:
    """Removes workers that died without a word, some at a time."""
    await session.execute(delete_some(Worker, Worker.seen_at < NOW - seconds(silence_s)))
