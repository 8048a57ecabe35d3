"""SQL of a job's history: rows numbered without gaps under the job's row lock, announced when they commit."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.tables import Job, JobEvent
from app.tables.base import Json

#: Channel of NOTIFY; the payload is the job's id.
CHANNEL = "job_events"
#: A job's process is not trusted: past so many events its logs and metrics are dropped, its states never.
MAX_EVENTS = 20_000
#: Nor is an event larger than this kept.
MAX_EVENT_BYTES = 64 * 1024


@dataclass(frozen=True)
class NewEvent:
    """One entry to append. `type`: ``state``, ``progress``, ``log`` or ``metric``."""

    type: str
    data: Json


async def append(
    session: AsyncSession, job_id: str, events: Sequence[NewEvent], *, lease_token: str | None = None
) -> bool:
    """Appends `events`; with a `lease_token`, only while that lease owns the job. False: it does not."""
    guard = [] if lease_token is None else [Job.lease_token == lease_token]
    statement = update(Job).where(Job.id == job_id, *guard).values(last_event=Job.last_event + len(events))
    last = await session.scalar(statement.returning(Job.last_event).execution_options(synchronize_session=False))
    if last is None:
        return False
    if not events:
        return True
    first = last - len(events) + 1
    rows = [
        {"job_id": job_id, "number": first + index, "type": event.type, "data": event.data}
        for index, event in enumerate(events)
    ]
    await session.execute(insert(JobEvent), rows)
    await announce(session, job_id)
    return True


async def append_guarded(session: AsyncSession, job_id: str, token: str, events: Sequence[NewEvent]) -> bool:
    """Appends what a job's process reported, up to `MAX_EVENTS`; the last one says that the rest is dropped."""
    room = await session.scalar(
        select(MAX_EVENTS - Job.last_event).where(Job.id == job_id, Job.lease_token == token).with_for_update()
    )
    if room is None:
        return False
    kept = [_bounded(event) for event in events[: max(room, 0)]]
    if kept and len(kept) == room:
        kept[-1] = NewEvent("log", {"level": "warning", "message": "too many events: later ones are not kept"})
    return await append(session, job_id, kept, lease_token=token)


async def announce(session: AsyncSession, job_id: str) -> None:
    """Wakes every stream that follows the job, once this transaction commits."""
    await session.execute(select(func.pg_notify(CHANNEL, job_id)))


async def after(
    session: AsyncSession, job_id: str, number: int, *, limit: int, types: Sequence[str] = ()
) -> Sequence[JobEvent]:
    """The next events after `number`, oldest first; of some types only, where given."""
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.number > number)
    if types:
        statement = statement.where(JobEvent.type.in_(types))
    return (await session.scalars(statement.order_by(JobEvent.number).limit(limit))).all()


async def last_state(session: AsyncSession, job_id: str) -> str | None:
    """What the job's last event of a state says; None before the first."""
    statement = select(JobEvent.data["state"].astext).where(JobEvent.job_id == job_id, JobEvent.type == "state")
    state: str | None = await session.scalar(statement.order_by(JobEvent.number.desc()).limit(1))
    return state


def _bounded(event: NewEvent) -> NewEvent:
    size = len(json.dumps(event.data))
    if size <= MAX_EVENT_BYTES:
        return event
    return NewEvent("log", {"level": "warning", "message": f"a {event.type} event of {size} bytes is not kept"})


def state_event(state: str, attempt: int, error: Json | None) -> NewEvent:
    """A change of state; `error` is why, where something went wrong."""
    data: dict[str, Any] = {"state": state, "attempt": attempt}
    return NewEvent("state", data | ({"error": error} if error else {}))
