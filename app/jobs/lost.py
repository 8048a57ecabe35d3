"""Which leases are lost, judged by no clock that anybody can set.

A worker renews its lease every few seconds, and each renewal changes the row. A lease that one process has seen
unchanged for the whole length of a lease, by its own monotonic clock, is lost: its worker is silent, and whatever its
job still ran has ended by itself (`worker.runner.lifeline`). Steps of the database's clock make no lease lost, and keep
none alive.
"""

import time
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import and_, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import clock
from app.jobs import claims
from app.jobs.states import Event, State
from app.jobs.transitions import SOME, lock_some, move
from app.tables import Job

#: A lease as it is between two renewals: id of the job, token, end.
_Seen = tuple[str, str, datetime]


class Watch:
    """What one process has seen of all leases.

    Args:
        lease_s: how long a lease is, in seconds.
        clock: seconds that only grow.
    """

    def __init__(self, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_s = lease_s
        self._clock = clock
        self._since: dict[_Seen, float] = {}

    async def lost_leases(self, session: AsyncSession) -> None:
        """Jobs whose worker is gone: canceled where that was asked for, failed where no attempt is left.

        The others stay running, without a lease: any worker may claim them, and they wait as queued ones do.
        """
        lost = await self._unchanged(session)
        stopped = and_(Job.state == State.CANCELING, claims.abandoned())
        found = or_(tuple_(Job.id, Job.lease_token, Job.lease_expires_at).in_(lost[:SOME]), stopped)
        for job in await lock_some(session, found):
            detail = f"the worker was lost in attempt {job.attempt} of {job.max_attempts}"
            state = await move(session, job, Event.LEASE_EXPIRED, error={"code": "worker_lost", "detail": detail})
            if state == State.RUNNING:
                job.lease_token, job.looked_at, job.queued_at = None, None, await clock(session)

    async def _unchanged(self, session: AsyncSession) -> list[_Seen]:
        """The leases that were as they are now for the length of a lease."""
        held = Job.state.in_([State.RUNNING, State.CANCELING])
        statement = select(Job.id, Job.lease_token, Job.lease_expires_at).where(held)
        before = self._clock()
        leases = [(job, token, end) for job, token, end in await session.execute(statement) if token and end]
        after = self._clock()
        self._since = {lease: self._since.get(lease, after) for lease in leases}
        return [lease for lease, since in self._since.items() if before - since >= self._lease_s]
