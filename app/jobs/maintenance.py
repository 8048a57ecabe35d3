"""What puts right what crashes, lost messages and time leave behind.

Every API process runs it; a Postgres advisory lock lets one at a time do a round. Each step is idempotent, takes rows
that nobody else has locked, and is bounded: what is left over comes in the next round. Bytes are removed beside the
rounds, under a lock of their own: a store that lets wait keeps no job waiting.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import audit
from app.accounts.holdings import HOLDERS, forget_lost_slots
from app.accounts.idempotency import forget_expired
from app.clock import NOW, seconds
from app.config import Settings
from app.db import Database
from app.jobs import claims, inputs, looks, workers
from app.jobs.leases import Leases
from app.jobs.lost import Watch
from app.jobs.states import Event, State
from app.jobs.transitions import lock_some, move, rejection
from app.storage import ObjectStore
from app.tables import Blob, Job
from app.uploads.repository import forget_expired_uploads
from app.webhooks.repository import forget_finished

Step = Callable[[AsyncSession], Awaitable[None]]

#: Keys of the advisory locks ("mp" and a number): of rounds, and of the collection of bytes.
LOCK, COLLECTION = 0x6D70_0001, 0x6D70_0002
#: Blobs that one round collects.
BATCH = 100
#: A blob is left alone for so long after something last referred to it.
BLOB_GRACE_S = 3600.0
#: A silent worker is forgotten after so many times its time to live.
SILENCE = 20

log = logging.getLogger(__name__)


class Maintenance:
    """The loops of one API process."""

    def __init__(self, settings: Settings, database: Database, store: ObjectStore, leases: Leases) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._leases = leases
        self._watch = Watch(settings.lease_s)

    async def run(self) -> None:
        """Does rounds, and collects bytes, until it is cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._repeat(self.round))
            loops.create_task(self._repeat(self.collect))

    async def _repeat(self, work: Callable[[], Awaitable[bool]]) -> None:
        while True:
            try:
                await work()
            except (SQLAlchemyError, OSError) as error:
                log.warning("maintenance could not do its round: %s", error)
            except Exception:
                log.exception("maintenance could not do its round")
            await asyncio.sleep(self._settings.maintenance_s)

    async def round(self) -> bool:
        """Does every step once; False where another process is at it."""
        async with self._alone(LOCK) as alone:
            for step in self._steps() if alone else ():
                try:
                    async with self._database.transaction() as session:
                        await step(session)
                except Exception:
                    log.exception("maintenance step %s failed", step.__name__)
        return alone

    async def collect(self) -> bool:
        """Removes bytes that nothing needs, for as long as the store takes; False where another process is at it."""
        async with self._alone(COLLECTION) as alone:
            if alone:
                await collect_blobs(self._database, self._store)
                await self._store.remove_leftovers()
        return alone

    @asynccontextmanager
    async def _alone(self, lock: int) -> AsyncIterator[bool]:
        """Whether no other process holds the lock, which this one then holds while the block runs."""
        async with self._database.transaction() as guard:
            yield bool(await guard.scalar(select(func.pg_try_advisory_xact_lock(lock))))

    def _steps(self) -> Sequence[Step]:
        own = (self._looks, self._workers, self._deliveries, self._audit)
        forgotten = (forget_expired, forget_lost_slots, forget_expired_uploads)
        return (self._watch.lost_leases, time_outs, rejected_inputs, *own, *forgotten)

    async def _looks(self, session: AsyncSession) -> None:
        await looks.repeat(session, self._leases.queue, self._settings)

    async def _workers(self, session: AsyncSession) -> None:
        await workers.forget_silent(session, SILENCE * self._settings.worker_ttl_s)

    async def _deliveries(self, session: AsyncSession) -> None:
        await forget_finished(session, self._settings.webhook_retention_s)

    async def _audit(self, session: AsyncSession) -> None:
        await audit.forget_old(session, self._settings.audit_retention_days)


async def time_outs(session: AsyncSession) -> None:
    """Jobs that waited for a worker for too long, their first one or, since they lost theirs, another.

    Time to run is for the worker to measure, by its own clock: it stops its job itself.
    """
    waiting = or_(Job.state == State.QUEUED, and_(Job.state == State.RUNNING, claims.abandoned()))
    for job in await lock_some(session, waiting, _older(Job.queued_at, Job.pending_timeout_s)):
        detail = f"no worker took the job within {job.pending_timeout_s:g} s (timeouts.pending_s)"
        await move(session, job, Event.TIMED_OUT, error={"code": "pending_timeout", "detail": detail})


async def rejected_inputs(session: AsyncSession) -> None:
    """Queued jobs whose model or data was rejected or is gone."""
    for job in await lock_some(session, Job.state == State.QUEUED, inputs.inputs_lost()):
        lost = await inputs.first_lost(session, job)
        if lost is not None:
            await move(session, job, Event.USER_ERROR, error=rejection(job, *lost))


async def collect_blobs(database: Database, store: ObjectStore, grace_s: float = BLOB_GRACE_S) -> int:
    """Removes bytes that nothing refers to any more. Returns how many.

    The blob's row stays locked while its bytes go: who stores the same bytes again waits for the lock when it claims
    the row, and publishes after.
    """
    for collected in range(BATCH):
        async with database.transaction() as session:
            statement = select(Blob).where(_unreferenced(), _older(Blob.touched_at, grace_s))
            blob = (await session.scalars(statement.limit(1).with_for_update(skip_locked=True))).one_or_none()
            if blob is None:
                return collected
            await store.delete(blob.workspace_id, blob.sha256)
            await session.delete(blob)
    return BATCH


def _unreferenced() -> ColumnElement[bool]:
    return and_(
        *(
            ~exists(select(1).where(table.workspace_id == Blob.workspace_id, table.sha256 == Blob.sha256))
            for table in HOLDERS
        )
    )


def _older(since: Any, age_s: Any) -> ColumnElement[bool]:
    older: ColumnElement[bool] = since < NOW - seconds(age_s)
    return older
