"""Counts of jobs: right after whatever ends an attempt, and never lost with the rows of jobs."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select

from app.jobs import control, counts
from app.jobs.lost import Watch
from app.jobs.outcomes import Fault, Finished, Stopped, UserError
from app.tables import Count
from tests.support.stage import Stage

pytestmark = pytest.mark.anyio


async def _values(stage: Stage, definition: counts.Counter | counts.Histogram) -> dict[tuple[str, ...], float]:
    """Labels -> the counter's value, or how many values the histogram took."""
    async with stage.database.transaction() as session:
        rows = await session.scalars(select(Count).where(Count.name == definition.name, Count.bucket != "sum"))
        values: dict[tuple[str, ...], float] = {}
        for row in rows:
            values[row.labels] = values.get(row.labels, 0.0) + row.value
        return values


async def test_an_attempt_that_is_tried_again_and_a_success(stage: Stage) -> None:
    job_id, lease = await stage.in_state("running")
    await stage.run(stage.leases.finish, lease, Fault("storage_full", "no room"))
    await stage.set(job_id, not_before=None)
    lease = await stage.claim()
    await stage.run(stage.leases.finish, lease, Finished())
    assert await _values(stage, counts.FAULTS) == {("any", "storage_full"): 1}
    assert await _values(stage, counts.WAIT) == {("any",): 2}
    method = "quantize.dynamic"
    assert await _values(stage, counts.RUN) == {(method, "requeued"): 1, (method, "succeeded"): 1}
    assert await _values(stage, counts.ENDED) == {(method, "succeeded"): 1}
    await stage.run(control.delete, stage.workspaces[0], job_id)
    assert await _values(stage, counts.ENDED) == {(method, "succeeded"): 1}, "what is deleted stays counted"


async def test_a_lost_lease_counts_once_whoever_finds_it(stage: Stage) -> None:
    job_id, _ = await stage.in_state("running", max_attempts=2, queue="cpu")
    await stage.lose(job_id)
    await stage.claim()
    assert await _values(stage, counts.LEASES_LOST) == {("cpu",): 1}
    assert await _values(stage, counts.WAIT) == {("cpu",): 1}
    watch = Watch(0.0)
    for _ in range(3):
        await stage.run(watch.lost_leases)
    assert await _values(stage, counts.LEASES_LOST) == {("cpu",): 2}
    assert await _values(stage, counts.ENDED) == {("quantize.dynamic", "failed"): 1}


async def test_what_is_no_fault(stage: Stage) -> None:
    _, lease = await stage.in_state("running")
    await stage.run(stage.leases.release, lease)
    lease = await stage.claim()
    assert lease is not None
    await stage.run(control.cancel, stage.workspaces[0], lease.job_id)
    await stage.run(stage.leases.finish, lease, Stopped())
    assert await _values(stage, counts.FAULTS) == {}
    assert await _values(stage, counts.LEASES_LOST) == {}
    method = "quantize.dynamic"
    assert await _values(stage, counts.RUN) == {(method, "released"): 1, (method, "canceled"): 1}


async def test_names_that_a_jobs_process_makes_up_are_one_series(stage: Stage) -> None:
    checks = [{"limit": name, "passed": False} for name in ("max_size_ratio", "max_size_ratio", "made_up", "too")]
    for outcome in (Fault("made_up", ""), Finished(gate={"passed": False, "checks": checks}), UserError("x", "")):
        _, lease = await stage.in_state("running", max_attempts=1, recipe={"steps": [{"method": "a"}, {"method": "b"}]})
        await stage.run(stage.leases.finish, lease, outcome)
    assert await _values(stage, counts.FAULTS) == {("any", "other"): 1}
    assert await _values(stage, counts.GATE_FAILURES) == {("max_size_ratio",): 1, ("other",): 1}
    assert await _values(stage, counts.ENDED) == {("several", "failed"): 3}


async def test_nothing_is_counted_that_does_not_commit(stage: Stage) -> None:
    with pytest.raises(RuntimeError):
        async with stage.database.transaction() as session:
            counts.count(session, counts.LEASES_LOST, "cpu")
            raise RuntimeError
    assert await _values(stage, counts.LEASES_LOST) == {}


async def test_many_at_once_neither_lose_nor_wait_for_each_other(stage: Stage) -> None:
    async def counting(queues: list[str]) -> None:
        for _ in range(10):
            async with stage.database.transaction() as session:
                for queue in queues:
                    counts.count(session, counts.LEASES_LOST, queue)
                    await session.execute(select(func.pg_sleep(0.001)))

    orders: list[Any] = [["cpu", "gpu", "checks"], ["checks", "gpu", "cpu"], ["gpu", "cpu", "checks"]]
    await asyncio.gather(*map(counting, orders))
    assert set((await _values(stage, counts.LEASES_LOST)).values()) == {30}


def test_buckets() -> None:
    assert [counts.WAIT.bucket(value) for value in (0.0, 1.0, 1.1, 1e9)] == ["1.0", "1.0", "5.0", "+Inf"]
