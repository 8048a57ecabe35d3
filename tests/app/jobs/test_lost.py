"""Leases are lost with their workers, whatever the database's clock does."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func

from app.jobs import control
from app.jobs.lost import Watch
from app.jobs.outcomes import LeaseState
from tests.support.stage import Stage

pytestmark = pytest.mark.anyio

LEASE_S = 30.0
ROUND_S = 5.0
#: What the database's clock is set by: a lease that ended long ago, and one that ends in days.
STEPS = {"forward": -timedelta(hours=6), "back": timedelta(days=2)}


@dataclass
class Maintained:
    """Rounds of one process, and the clock of that process."""

    stage: Stage
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.watch = Watch(LEASE_S, lambda: self.now)

    async def pass_by(self, seconds: float) -> None:
        """So much time, with a round every few seconds."""
        end = self.now + seconds
        while self.now < end:
            self.now += ROUND_S
            await self.stage.run(self.watch.lost_leases)


@pytest.fixture
async def maintained(stage: Stage) -> Maintained:
    return Maintained(stage)


async def _step(stage: Stage, job_id: str, by: timedelta) -> None:
    """As if the database's clock had been set: times that it wrote before are off."""
    job = await stage.get(job_id)
    await stage.set(job_id, lease_expires_at=job.lease_expires_at + by, started_at=job.started_at + by)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("max_attempts", [1, 3])
async def test_a_step_of_the_clock_costs_no_job_its_worker(
    stage: Stage, maintained: Maintained, step: str, max_attempts: int
) -> None:
    job_id, lease = await stage.in_state("running", max_attempts=max_attempts)
    for _ in range(4):
        await maintained.pass_by(LEASE_S - 2 * ROUND_S)
        await _step(stage, job_id, STEPS[step])
        assert await stage.claim() is None
        await maintained.pass_by(LEASE_S - 2 * ROUND_S)
        assert await stage.claim() is None
        assert await stage.run(stage.leases.renew, lease) == LeaseState.OK
    job = await stage.get(job_id)
    assert (job.state, job.attempt, job.lease_token) == ("running", 1, lease.token if lease else None)


@pytest.mark.parametrize("step", STEPS)
async def test_a_step_of_the_clock_keeps_no_lost_lease_alive(stage: Stage, maintained: Maintained, step: str) -> None:
    job_id, lease = await stage.in_state("running")
    await _step(stage, job_id, STEPS[step])
    await maintained.pass_by(LEASE_S)
    assert await stage.claim() is None
    await maintained.pass_by(2 * ROUND_S)
    second = await stage.claim()
    assert second is not None
    assert (second.job_id, second.attempt) == (job_id, 2)
    assert await stage.run(stage.leases.renew, lease) == LeaseState.LOST
    states = [(event.data["state"], event.data["attempt"]) for event in await stage.events(job_id, "state")]
    assert states == [("running", 1), ("running", 2)]


async def test_who_begins_to_watch_waits_for_a_whole_lease(stage: Stage, maintained: Maintained) -> None:
    await stage.in_state("running")
    await maintained.pass_by(LEASE_S)
    other = Maintained(stage, now=5.0)
    await other.pass_by(LEASE_S)
    assert await stage.claim() is None


async def test_a_lease_that_is_renewed_while_it_is_judged_is_kept(stage: Stage, maintained: Maintained) -> None:
    job_id, lease = await stage.in_state("running")
    assert lease is not None
    await maintained.pass_by(LEASE_S)
    maintained.now += LEASE_S
    async with stage.database.transaction() as session:
        await stage.leases.renew(session, lease)
        await stage.run(maintained.watch.lost_leases)
    await stage.run(maintained.watch.lost_leases)
    assert (await stage.get(job_id)).lease_token == lease.token


async def test_a_job_that_lost_its_worker_is_canceled_at_the_next_round(stage: Stage, maintained: Maintained) -> None:
    job_id, _ = await stage.in_state("running")
    await stage.lose(job_id)
    await stage.run(control.cancel, stage.workspaces[0], job_id)
    await maintained.pass_by(ROUND_S)
    assert (await stage.get(job_id)).state == "canceled"


@pytest.mark.parametrize(("pause", "claimed"), [(timedelta(minutes=4), False), (timedelta(days=1), True)])
async def test_a_pause_is_at_most_five_minutes_too_long(stage: Stage, pause: Any, claimed: bool) -> None:
    await stage.job(not_before=func.now() + pause)
    assert (await stage.claim() is not None) == claimed
