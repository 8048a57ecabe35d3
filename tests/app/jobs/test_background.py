"""What an API process does on the side starts and ends cleanly, whenever that is."""

import asyncio
import gc

import pytest

from app.jobs import events
from app.jobs.background import in_background
from app.rates import Rates
from app.storage import open_store
from app.web.services import Services
from tests.support.stage import Stage

pytestmark = pytest.mark.anyio


async def test_it_ends_at_any_moment_and_leaves_no_connection(stage: Stage) -> None:
    services = Services(
        stage.settings, stage.database, open_store(stage.settings), stage.queue, Rates(stage.settings.broker_url)
    )
    for pause in range(10):
        async with in_background(services):
            await asyncio.sleep(pause / 250)
    gc.collect()
    await asyncio.sleep(0)
    gc.collect()


async def test_it_listens_and_maintains(stage: Stage) -> None:
    settings = stage.settings.model_copy(update={"lease_s": 0.2, "maintenance_s": 0.1})
    services = Services(settings, stage.database, open_store(settings), stage.queue, Rates(settings.broker_url))
    job_id, _ = await stage.in_state("running", max_attempts=1)
    async with asyncio.timeout(20), in_background(services) as broadcast:
        await broadcast.connected.wait()
        with broadcast.follow(job_id) as follower:
            await stage.until(job_id, "failed")
            follower.news.clear()
            await stage.run(events.announce, job_id)
            await follower.news.wait()
