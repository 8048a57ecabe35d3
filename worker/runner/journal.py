"""Carries what a job reports to the database, in batches: a talkative job costs one transaction per beat."""

import asyncio
import logging
from collections.abc import Callable

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from app.db import Database
from app.jobs.events import NewEvent
from app.jobs.leases import Leases
from app.jobs.outcomes import Lease
from worker.runner.messages import Log, MetricPoint, Progress

log = logging.getLogger(__name__)

_BEAT_S = 0.3
_FULL = 500
_KEPT = 5_000


class Journal:
    """Buffers progress, logs and metric points; `run` writes them every beat. `lost` is called when the lease is."""

    def __init__(self, database: Database, leases: Leases, lease: Lease, lost: Callable[[], None]) -> None:
        self._database = database
        self._leases = leases
        self._lease = lease
        self._lost = lost
        self._events: list[NewEvent] = []
        self._progress: dict[str, Progress] = {}  # the latest of each phase: even a short one is told
        self._writing = asyncio.Lock()

    async def add(self, report: Progress | Log | MetricPoint) -> None:
        """Takes a report; waits for the database when too many are waiting already."""
        if isinstance(report, Progress):
            self._progress[report.phase] = report
            return
        self._events.append(NewEvent(report.type, report.model_dump(mode="json", exclude={"type"})))
        if len(self._events) >= _FULL:
            await self.flush()

    async def run(self) -> None:
        """Writes what has come in, until canceled."""
        while True:
            await asyncio.sleep(_BEAT_S)
            await self.flush()

    async def flush(self) -> None:
        """Writes everything now.

        Where the database is away it stays in the buffer, up to a limit; what the database refuses is dropped.
        """
        async with self._writing:
            events, progress = self._events, self._progress
            self._events, self._progress = [], {}
            if not events and not progress:
                return
            try:
                owned = await self._write(events, progress)
            except (DataError, IntegrityError) as error:
                log.warning("job %s: %d events do not fit the tables: %s", self._lease.job_id, len(events), error)
                return
            except (SQLAlchemyError, OSError) as error:
                log.warning("job %s: %d events wait for the database: %s", self._lease.job_id, len(events), error)
                self._events = [*events, *self._events][-_KEPT:]
                self._progress = {**progress, **self._progress}
                return
        if not owned:
            self._lost()

    async def _write(self, events: list[NewEvent], progress: dict[str, Progress]) -> bool:
        owned = True
        async with self._database.transaction() as session:
            for report in progress.values():
                owned = owned and await self._leases.progress(
                    session, self._lease, report.phase, report.fraction, report.eta_s
                )
            if events and owned:
                owned = await self._leases.append_events(session, self._lease, events)
        return owned
