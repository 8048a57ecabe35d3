"""A stage, and the API on it."""

from collections.abc import AsyncIterator

import httpx
import pytest

from app.config import Settings
from tests.support.stage import Stage, serving


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # Streams that follow a job, and workers that claim at once, hold more connections than requests do.
    return settings.model_copy(update={"sse_keepalive_s": 0.3, "maintenance_s": 60.0, "database_pool_size": 10})


@pytest.fixture
async def api(stage: Stage, free_port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a member's key; a worker with every target is live."""
    await stage.offer()
    async with serving(stage, free_port) as client:
        yield client
