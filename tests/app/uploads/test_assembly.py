"""What is made of a resumable upload, at once, late, or after bytes were lost."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, update

from app.jobs.maintenance import collect_blobs
from app.tables import Blob, ResumableUpload
from app.uploads import tus
from app.uploads.repository import forget_expired_uploads

pytestmark = pytest.mark.anyio
TUS = {"Tus-Resumable": tus.VERSION}
DATA = bytes(range(256)) * 12
PART = 1000


@pytest.fixture
async def api(make_api: Any) -> Any:
    return await make_api(upload_part_bytes=PART)


@pytest.fixture
async def upload(client: httpx2.AsyncClient) -> str:
    """Id of an upload that has all its bytes."""
    begun = await client.post("/v1/uploads", headers={"Upload-Length": str(len(DATA)), **TUS})
    headers = {"Upload-Offset": "0", "Content-Type": tus.MEDIA_TYPE, **TUS}
    assert (await client.patch(begun.headers["location"], content=DATA, headers=headers)).status_code == 204
    return str(begun.headers["location"].rpartition("/")[2])


@dataclass
class Gate:
    """Stops whoever has read a first part, until it is opened."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
def gate(api: Any, monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    read = api.services.store.read

    async def slowly(*where: Any) -> AsyncIterator[bytes]:
        async for data in read(*where):
            yield data
        if not gate.reached.is_set():
            gate.reached.set()
            await gate.opened.wait()

    monkeypatch.setattr(api.services.store, "read", slowly)
    return gate


async def _use(client: httpx2.AsyncClient, upload: str) -> httpx2.Response:
    return await client.post("/v1/models", json={"name": "n", "upload_id": upload})


async def _run(api: Any, *statements: Any) -> None:
    async with api.services.database.transaction() as session:
        for statement in statements:
            await session.execute(statement)


async def test_who_is_slower_than_another_still_finds_the_parts(
    api: Any, client: httpx2.AsyncClient, upload: str, gate: Gate
) -> None:
    await _run(api, update(Blob).values(touched_at=func.now() - timedelta(hours=20)))
    slow = asyncio.create_task(_use(client, upload))
    await gate.reached.wait()
    assert (await _use(client, upload)).status_code == 201
    await collect_blobs(api.services.database, api.services.store)
    gate.opened.set()
    answer = await slow
    assert (answer.status_code, answer.json()["sha256"]) == (201, hashlib.sha256(DATA).hexdigest())


async def test_parts_are_kept_for_as_long_as_they_are_read(
    api: Any, client: httpx2.AsyncClient, upload: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.uploads.assembly._TOUCH_EVERY_S", 0.05)
    slow = asyncio.create_task(_use(client, upload))
    await gate.reached.wait()
    assert (await _use(client, upload)).status_code == 201
    await _run(api, update(Blob).values(touched_at=func.now() - timedelta(hours=2)))
    await asyncio.sleep(0.5)
    await collect_blobs(api.services.database, api.services.store)
    gate.opened.set()
    assert (await slow).status_code == 201


async def test_an_upload_does_not_expire_while_it_is_put_together(
    api: Any, client: httpx2.AsyncClient, upload: str, gate: Gate
) -> None:
    await _run(api, update(ResumableUpload).values(expires_at=func.clock_timestamp() + timedelta(seconds=2)))
    slow = asyncio.create_task(_use(client, upload))
    await gate.reached.wait()
    await asyncio.sleep(2)
    async with api.services.database.transaction() as session:
        await forget_expired_uploads(session)
    gate.opened.set()
    assert (await slow).status_code == 201
    assert (await _use(client, upload)).status_code == 201, "it is still there"


async def test_one_that_was_given_up_meanwhile(api: Any, client: httpx2.AsyncClient, upload: str, gate: Gate) -> None:
    slow = asyncio.create_task(_use(client, upload))
    await gate.reached.wait()
    assert (await client.delete(f"/v1/uploads/{upload}", headers=TUS)).status_code == 204
    gate.opened.set()
    assert (await slow).status_code == 201


async def test_bytes_that_the_store_has_lost(api: Any, client: httpx2.AsyncClient, upload: str) -> None:
    await api.services.store.delete(await api.workspace("ours"), hashlib.sha256(DATA[:PART]).hexdigest())
    answer = await _use(client, upload)
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_bytes_missing")
