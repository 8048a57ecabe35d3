"""A worker that is asked to end: what is on its way into the store gets there, nothing else is waited for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.jobs.outcomes import Finished, Outcome
from tests.support.stage import Stage
from worker.runner import lifeline, supervisor
from worker.runner.supervisor import Supervisor

pytestmark = pytest.mark.anyio
Work = Callable[["Working"], Awaitable[Outcome]]


class Working(Supervisor):
    """A supervisor whose job is a function of it."""

    def does(self, work: Work) -> "Working":
        self._does = work
        return self

    async def _work(self) -> Outcome:
        return await self._does(self)


async def stores(working: Working) -> Outcome:
    working._stored.clear()
    await asyncio.sleep(0.2)
    return Finished([], {}, None)


async def stores_a_checkpoint(working: Working) -> Outcome:
    working._stored.clear()
    await asyncio.sleep(0.2)
    working._stored.set()
    await asyncio.Event().wait()
    raise AssertionError


async def computes(_: Working) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


async def stores_for_ever(working: Working) -> Outcome:
    working._stored.clear()
    return await computes(working)


@pytest.mark.parametrize(
    ("work", "state"),
    [(stores, "succeeded"), (stores_a_checkpoint, "queued"), (computes, "queued"), (stores_for_ever, "queued")],
)
async def test_a_worker_that_ends(work: Work, state: str, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_STORING_S", 1.0)
    job_id, lease = await stage.in_state("running")
    assert lease is not None
    nothing: Any = None
    shutdown = asyncio.Event()
    shutdown.set()
    working = Working(nothing, stage.database, stage.leases, nothing, lease, lifeline.now(), shutdown)
    async with asyncio.timeout(10):
        await working.does(work).run()
    job = await stage.get(job_id)
    assert (job.state, job.attempt) == (state, 1 if state == "succeeded" else 0)
