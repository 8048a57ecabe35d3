"""The API with one live worker."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.config import Settings
from tests.support.stage import CPU, open_stage, serving


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def api(database_url: str, broker_url: str, tmp_path: Path, free_port: int) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        database_url=database_url,
        broker_url=broker_url,
        store_url=f"file://{tmp_path}/store",
        key_pepper="pepper",
        _env_file=None,
    )
    async with open_stage(settings) as stage, serving(stage, free_port) as client:
        await stage.offer(CPU)
        yield client
