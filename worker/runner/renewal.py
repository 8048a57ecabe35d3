"""Renews a lease for as long as its job runs, and passes on what the database answers; ends what runs for too long."""

import asyncio
import logging
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from app.db import Database
from app.jobs.leases import Leases
from app.jobs.outcomes import Lease, LeaseState
from worker.runner import lifeline
from worker.runner.process import JobProcess

log = logging.getLogger(__name__)

#: Without a renewal for this share of the lease the job is stopped: another worker may be about to claim it.
_GIVE_UP = 0.75


class Renewal:
    """Of one lease. Every time is counted from before the database was asked: its lease can only end later.

    Args:
        asked: `lifeline.now()` before the lease was claimed.
        answered: called with what the database says; with ``lost`` where it has been silent for too long, with
            ``timed_out`` where the attempt has run for longer than it may.
    """

    def __init__(
        self, database: Database, leases: Leases, lease: Lease, asked: float, answered: Callable[[LeaseState], None]
    ) -> None:
        self._database = database
        self._leases = leases
        self._lease = lease
        self._renewed = self._claimed = asked
        self._answered = answered
        self._process: JobProcess | None = None

    @property
    def over(self) -> bool:
        """Whether the lease has expired, as far as this side knows."""
        return self._without_renewal_for(1.0)

    @property
    def end(self) -> float:
        """When the job's process has to end by itself, unless the lease is renewed."""
        return lifeline.until(self._renewed, self._leases.settings.lease_s)

    def keep(self, process: JobProcess) -> None:
        """Lets this process live for as long as the lease."""
        self._process = process
        process.extend(self.end)

    async def run(self) -> None:
        """Renews until canceled."""
        settings = self._leases.settings
        while True:
            await asyncio.sleep(min(settings.cancel_poll_s, settings.heartbeat_s))
            asked = lifeline.now()
            left = self._renewed + _GIVE_UP * settings.lease_s - asked
            try:
                async with asyncio.timeout(max(left, 0.0)), self._database.transaction() as session:
                    answer = await self._leases.renew(session, self._lease)
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("job %s: the lease was not renewed: %s", self._lease.job_id, error)
                if self._without_renewal_for(_GIVE_UP):
                    self._answered(LeaseState.LOST)
                continue
            if answer is not LeaseState.LOST:
                self._renewed = asked
                if self._process is not None:
                    self._process.extend(self.end)
            self._answered(LeaseState.TIMED_OUT if answer is LeaseState.OK and self._timed_out else answer)

    @property
    def _timed_out(self) -> bool:
        """Whether the attempt has run for as long as it may, by this machine's clock, which nobody sets."""
        return lifeline.now() - self._claimed > self._lease.run_timeout_s

    def _without_renewal_for(self, share: float) -> bool:
        return lifeline.now() - self._renewed >= share * self._leases.settings.lease_s
