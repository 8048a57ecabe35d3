"""``/healthz`` and ``/readyz``."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func

from app.tables import Worker

pytestmark = pytest.mark.anyio


async def _worker(api: Any, queue: str, age_s: float = 0) -> None:
    async with api.services.database.transaction() as session:
        seen = func.clock_timestamp() - timedelta(seconds=age_s)
        name = f"{queue}-{age_s}"
        session.add(Worker(id=name, hostname="h", queue=queue, targets=[], capabilities={}, seen_at=seen))


async def _ready(api: Any) -> tuple[int, str]:
    response = await api.client_with({}).get("/readyz")
    return response.status_code, response.json().get("detail", "")


async def test_alive_whatever_is_missing(make_api: Any) -> None:
    api = await make_api(
        database_url="postgresql+psycopg://nobody@127.0.0.1:1/none", broker_url="redis://127.0.0.1:1/0"
    )
    assert (await api.client_with({}).get("/healthz")).status_code == 200


async def test_ready_once_workers_are_live(api: Any) -> None:
    assert await _ready(api) == (503, "workers: none is live for jobs")
    await _worker(api, "cpu", age_s=100)
    assert await _ready(api) == (503, "workers: none is live for jobs")
    await _worker(api, "cpu")
    assert await _ready(api) == (503, "workers: none is live for checks of uploads")
    await _worker(api, "checks")
    assert await _ready(api) == (200, "")


async def test_says_all_that_is_missing(make_api: Any) -> None:
    api = await make_api(
        database_url="postgresql+psycopg://nobody@127.0.0.1:1/none", broker_url="redis://127.0.0.1:1/0"
    )
    response = await api.client_with({}).get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "not_ready")
    assert "database: does not answer" in response.json()["detail"]
    assert "queue: does not answer" in response.json()["detail"]
    assert response.headers["retry-after"]


async def test_store_that_cannot_be_written(make_api: Any, tmp_path: Any) -> None:
    (tmp_path / "file").touch()
    api = await make_api(store_url=f"file://{tmp_path}/file/store")
    assert "store: does not answer" in (await _ready(api))[1]
