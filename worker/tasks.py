"""What a look message does: claim, run, record, and look again until nothing is left."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from opentelemetry.trace import SpanKind
from sqlalchemy.exc import SQLAlchemyError

from app import logs, tracing
from app.db import Database
from app.jobs.leases import Leases
from app.jobs.outcomes import Lease
from app.queue import Queue
from app.storage import open_store
from worker.runner import lifeline
from worker.runner.presence import Shutdown
from worker.runner.slot import Slot
from worker.runner.supervisor import Supervisor

log = logging.getLogger(__name__)


def look(slot: Slot, shutdown: Shutdown) -> None:
    """Runs jobs until none is claimable for this slot; a spare message finds nothing and ends."""
    asyncio.run(_drain(slot, shutdown))


async def _drain(slot: Slot, shutdown: Shutdown) -> None:
    database = Database(slot.settings)
    leases = Leases(slot.settings, Queue(slot.settings))
    store = open_store(slot.settings)
    try:
        async with shutdown.watched() as stopping:
            while not stopping.is_set():
                asked = lifeline.now()
                lease = await _claim(slot, database, leases)
                if lease is None:
                    break
                with _told(slot, lease):
                    await Supervisor(slot, database, leases, store, lease, asked, stopping).run()
    finally:
        await database.close()


@contextmanager
def _told(slot: Slot, lease: Lease) -> Iterator[None]:
    """What is logged and traced within is about this attempt; its trace is that of the request which queued the job."""
    about = {"job_id": lease.job_id, "workspace_id": lease.workspace_id, "attempt": lease.attempt}
    attributes = {f"modelpress.{name}": value for name, value in about.items()}
    attributes |= {"modelpress.kind": lease.kind, "messaging.destination.name": slot.offer.queue}
    span = tracing.span("job run", attributes, parent=lease.trace_parent, kind=SpanKind.CONSUMER)
    with logs.bound(**about), span:
        if lease.queued_at is not None:
            tracing.past("job wait", (datetime.now(UTC) - lease.queued_at).total_seconds())
        log.info("attempt %d of %d starts", lease.attempt, lease.max_attempts)
        yield


async def _claim(slot: Slot, database: Database, leases: Leases) -> Lease | None:
    try:
        async with database.transaction() as session:
            return await leases.claim(session, slot.offer)
    except (SQLAlchemyError, OSError) as error:
        log.warning("no claim while the database is away: %s", error)
        return None
