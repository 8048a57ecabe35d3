"""``/healthz`` and ``/readyz``."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest
from sqlalchemy import func, text

from app.migrate import upgrade
from app.tables import Worker
from app.web import health
from tests.support.servers import running_postgres, running_valkey, temporary_folder

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


async def test_tables_of_another_version(api: Any) -> None:
    await _worker(api, "cpu")
    await _worker(api, "checks")
    async with api.services.database.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = 'older'"))
    assert (await _ready(api))[1].startswith("database: its tables are of another version")
    async with api.services.database.transaction() as session:
        await session.execute(text("DROP TABLE alembic_version"))
    assert (await _ready(api))[1].startswith("database: its tables are of another version")


async def test_a_process_that_stops_is_not_ready(api: Any) -> None:
    await _worker(api, "cpu")
    await _worker(api, "checks")
    assert (await _ready(api))[0] == 200
    api.app.state.readiness.stop()
    assert await _ready(api) == (503, "process: it is stopping")
    assert (await api.client_with({}).get("/healthz")).status_code == 200


async def test_a_probe_that_hangs_is_not_started_again(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started = 0

    async def hanging(_services: Any) -> None:
        nonlocal started
        started += 1
        await asyncio.sleep(60)

    monkeypatch.setattr(health, "PATIENCE_S", 0.05)
    monkeypatch.setattr(health, "_PROBES", {"store": hanging})
    for _ in range(3):
        assert await _ready(api) == (503, "store: no answer within 0.05 s")
    assert started == 1


@pytest.fixture
def own_servers() -> Iterator[tuple[ExitStack, ExitStack, dict[str, str]]]:
    """A PostgreSQL and a Valkey that the test may stop: closing its stack stops each; and their settings."""
    with temporary_folder() as folder, ExitStack() as postgres, ExitStack() as valkey:
        database_url = postgres.enter_context(running_postgres(folder)).url()
        upgrade(database_url)
        broker_url = valkey.enter_context(running_valkey(folder)).broker_url()
        yield postgres, valkey, {"database_url": database_url, "broker_url": broker_url}


async def test_real_servers_that_hang_or_stop(own_servers: Any, make_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE_S", 1.0)
    postgres, valkey, settings = own_servers
    api = await make_api(**settings)
    await _worker(api, "cpu")
    await _worker(api, "checks")
    assert await _ready(api) == (200, "")
    for process in _servers(settings["database_url"]):
        process.send_signal(signal.SIGSTOP)
    assert await _ready(api) == (503, "database: no answer within 1 s; workers: no answer within 1 s")
    for process in _servers(settings["database_url"]):
        process.send_signal(signal.SIGCONT)
    for _ in range(100):
        if (await _ready(api))[0] == 200:
            break
        await asyncio.sleep(0.05)
    assert await _ready(api) == (200, ""), "what hung for a while does not stay in the way"
    valkey.close()
    assert await _ready(api) == (503, "queue: does not answer")
    postgres.close()
    assert await _ready(api) == (
        503,
        "database: does not answer; workers: does not answer; queue: does not answer",
    )


def _servers(database_url: str) -> list[psutil.Process]:
    """The processes of the PostgreSQL whose socket is in this folder."""
    folder = parse_qs(urlsplit(database_url).query)["host"][0]
    server = psutil.Process(int(Path(folder, "postgres", "postmaster.pid").read_text().split()[0]))
    return [*server.children(), server]
