"""How a supervisor keeps its lease: on a real database, by its own clock."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy import func

from app.jobs.outcomes import LeaseState
from tests.support.stage import Stage
from worker.runner import lifeline
from worker.runner.renewal import Renewal

pytestmark = pytest.mark.anyio


async def _answers(stage: Stage, run_timeout_s: float, asked: float) -> list[LeaseState]:
    """What a second of renewals answers of an attempt that was claimed at `asked`."""
    job_id, lease = await stage.in_state("running", run_timeout_s=run_timeout_s)
    assert lease is not None
    await stage.set(job_id, started_at=func.now() - timedelta(days=1))
    answers: list[LeaseState] = []
    renewal = Renewal(stage.database, stage.leases, lease, asked, answers.append)
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await renewal.run()
    return answers


async def test_an_attempt_that_runs_for_too_long_is_stopped(stage: Stage) -> None:
    assert (await _answers(stage, 20.0, lifeline.now() - 20.0))[0] is LeaseState.TIMED_OUT


async def test_the_databases_clock_ends_no_attempt(stage: Stage) -> None:
    assert set(await _answers(stage, 60.0, lifeline.now())) == {LeaseState.OK}
