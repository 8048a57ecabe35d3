"""A stage, and the API on it."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.config import Settings
from tests.support.stage import Stage, open_stage, serving


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(database_url: str, broker_url: str, tmp_path: Path) -> Settings:
    return Settings(
        database_url=database_url,
        broker_url=broker_url,
        store_url=f"file://{tmp_path}/store",
        key_pepper="pepper",
        sse_keepalive_s=0.3,
        maintenance_s=60,
        _env_file=None,
    )


@pytest.fixture
async def stage(settings: Settings) -> AsyncIterator[Stage]:
    async with open_stage(settings) as stage:
        yield stage


@pytest.fixture
async def api(stage: Stage, free_port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a member's key; a worker with every target is live."""
    await stage.offer()
    async with serving(stage, free_port) as client:
        yield client
