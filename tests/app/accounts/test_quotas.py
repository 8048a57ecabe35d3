"""Quotas hold, also for clients that come at the same moment, and free themselves."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select, update

from app.accounts import quotas
from app.accounts.holdings import forget_lost_slots
from app.tables import Blob, Job, ResumableUpload, UploadSlot, Worker
from app.uploads.tus import MEDIA_TYPE
from tests.app.conftest import PT2_LIKE

pytestmark = pytest.mark.anyio
SIZE = len(PT2_LIKE) + 1
TUS = {"Tus-Resumable": "1.0.0"}


async def _job_body(api: Any, client: Any) -> dict[str, Any]:
    async with api.services.database.transaction() as session:
        session.add(Worker(id="w", hostname="h", queue="cpu", targets=["torch"], capabilities={}))
    model = await api.upload(client)
    return {"model_id": model["id"], "recipe": {"steps": [{"method": "quantize.dynamic"}]}, "targets": ["torch"]}


async def test_jobs(make_api: Any) -> None:
    api = await make_api(quota_jobs=2)
    client = await api.client()
    body = await _job_body(api, client)
    answers = await asyncio.gather(*(client.post("/v1/jobs", json=body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [202, 202, 429, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("quota_exceeded", "15")
    job_id = next(answer for answer in answers if answer.status_code == 202).json()["id"]
    assert (await client.post(f"/v1/jobs/{job_id}:cancel")).status_code == 202
    assert (await client.post("/v1/jobs", json=body)).status_code == 202
    retry = await client.post(f"/v1/jobs/{job_id}:retry")
    assert (retry.status_code, retry.json()["code"]) == (429, "quota_exceeded")
    assert (await client.get(f"/v1/jobs/{job_id}")).json()["state"] == "canceled"
    async with api.services.database.transaction() as session:
        assert len((await session.scalars(select(Job).where(Job.kind == "compress"))).all()) == 2 + 1


async def test_stored_bytes_count_the_same_bytes_once(make_api: Any) -> None:
    api = await make_api(quota_stored_bytes=2 * SIZE)
    client, other = await api.client(), await api.client(workspace="theirs")
    first = await api.upload(client, name="a")
    await api.upload(client, name="a")
    await api.upload(other, name="a")
    await api.upload(client, name="b")
    form = {"data": {"name": "c"}, "files": {"file": ("m.pt2", PT2_LIKE + b"c")}}
    refused = await client.post("/v1/models", **form)
    assert (refused.status_code, refused.json()["code"]) == (403, "storage_quota_exceeded")
    assert "retry-after" not in refused.headers
    await client.delete(f"/v1/models/{first['id']}")
    assert (await client.post("/v1/models", **form)).status_code == 403
    twin = next(item for item in (await client.get("/v1/models?name=a")).json()["items"])
    await client.delete(f"/v1/models/{twin['id']}")
    assert (await client.post("/v1/models", **form)).status_code == 201


async def test_stored_bytes_of_uploads_that_end_together(make_api: Any) -> None:
    api = await make_api(quota_stored_bytes=3 * SIZE)
    client = await api.client()
    forms = [{"data": {"name": "n"}, "files": {"file": ("m.pt2", PT2_LIKE + bytes([n]))}} for n in range(6)]
    answers = await asyncio.gather(*(client.post("/v1/models", **form) for form in forms))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [403] * 3
    usage = (await client.get("/v1/usage")).json()
    assert (usage["stored_bytes"], usage["models"]) == (3 * SIZE, 3)


async def _announce(client: httpx2.AsyncClient, size: int) -> httpx2.Response:
    return await client.post("/v1/uploads", headers={**TUS, "Upload-Length": str(size)})


async def test_bytes_that_were_announced_have_their_room(make_api: Any) -> None:
    api = await make_api(quota_stored_bytes=100)
    client, other = await api.client(), await api.client(workspace="theirs")
    answers = await asyncio.gather(*(_announce(client, 60) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [201, 403, 403]
    assert {one.json()["code"] for one in answers if one.status_code == 403} == {"storage_quota_exceeded"}
    assert (await _announce(other, 100)).status_code == 201
    path = next(answer.headers["location"] for answer in answers if answer.status_code == 201)
    piece = {**TUS, "Upload-Offset": "0", "Content-Type": MEDIA_TYPE}
    assert (await client.patch(path, content=bytes(range(30)), headers=piece)).status_code == 204
    assert (await _announce(client, 41)).status_code == 403, "what has arrived counts once"
    assert (await _announce(client, 40)).status_code == 201
    assert (await client.delete(path, headers=TUS)).status_code == 204
    assert (await _announce(client, 61)).status_code == 403
    assert (await _announce(client, 60)).status_code == 201
    async with api.services.database.transaction() as session:
        await session.execute(update(ResumableUpload).values(expires_at="2020-01-01T00:00:00Z"))
    assert (await _announce(client, 100)).status_code == 201


async def test_announced_uploads_together_store_no_more_than_the_quota(make_api: Any) -> None:
    api = await make_api(quota_stored_bytes=1000, upload_part_bytes=100)
    client = await api.client()
    piece = {**TUS, "Upload-Offset": "0", "Content-Type": MEDIA_TYPE}
    for number in range(5):
        answer = await _announce(client, 900)
        assert answer.status_code == (201 if number == 0 else 403)
        if number == 0:
            path = answer.headers["location"]
            assert (await client.patch(path, content=os.urandom(950), headers=piece)).status_code == 413
    async with api.services.database.transaction() as session:
        assert await session.scalar(select(func.sum(Blob.size_bytes))) == 900


async def test_what_was_announced_can_be_used(make_api: Any) -> None:
    """Its parts and the file that they make are not counted both."""
    api = await make_api(quota_stored_bytes=SIZE)
    client = await api.client()
    path = (await _announce(client, SIZE)).headers["location"]
    piece = {**TUS, "Upload-Offset": "0", "Content-Type": MEDIA_TYPE}
    assert (await client.patch(path, content=PT2_LIKE + b"x", headers=piece)).status_code == 204
    made = await client.post("/v1/models", json={"name": "n", "upload_id": path.rpartition("/")[2]})
    assert made.status_code == 201, made.text


async def test_a_form_without_room_is_refused_unread(make_api: Any) -> None:
    api = await make_api(quota_stored_bytes=18 * 1024**2)
    client = await api.client()
    once = {"Idempotency-Key": "k"}
    form = {"data": {"name": "n"}, "files": {"file": ("m.pt2", PT2_LIKE + bytes(17 * 1024**2))}}
    first = await client.post("/v1/models", **form, headers=once)
    assert first.status_code == 201

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("a byte was asked for")
        yield b""

    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(18 * 1024**2)}
    refused = await client.post("/v1/datasets", content=body(), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "storage_quota_exceeded")
    again = await client.post("/v1/models", **form, headers=once)
    assert (again.status_code, again.json()) == (201, first.json()), "its bytes are there already"


async def test_no_job_where_there_is_no_room_for_what_it_makes(make_api: Any) -> None:
    api = await make_api(quota_stored_bytes=SIZE)
    client = await api.client()
    refused = await client.post("/v1/jobs", json=await _job_body(api, client))
    assert (refused.status_code, refused.json()["code"]) == (403, "storage_quota_exceeded")


async def test_uploads_on_their_way(make_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    api = await make_api(quota_uploads=2)
    workspace_id = await api.workspace("ours")
    client = await api.client()
    form = {"data": {"name": "n"}, "files": {"file": ("m.pt2", PT2_LIKE)}}
    async with quotas.upload_slot(api.services, workspace_id), quotas.upload_slot(api.services, workspace_id):
        assert (await client.get("/v1/usage")).json()["uploads"] == 2
        refused = await client.post("/v1/models", **form)
        assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
        assert refused.headers["retry-after"] == "5"
        other = await api.client(workspace="theirs")
        assert (await other.post("/v1/models", **form)).status_code == 201
    assert (await client.post("/v1/models", **form)).status_code == 201
    assert (await client.get("/v1/usage")).json()["uploads"] == 0


async def test_slots_are_taken_one_by_one_and_renewed(make_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "SLOT_LEASE", timedelta(seconds=0.6))
    api = await make_api(quota_uploads=1)
    workspace_id = await api.workspace("ours")
    full = 0

    async def upload() -> None:
        nonlocal full
        try:
            async with quotas.upload_slot(api.services, workspace_id):
                await asyncio.sleep(1.5)
        except quotas.TooManyRequests:
            full += 1

    await asyncio.gather(*(upload() for _ in range(4)))
    assert full == 3


async def test_a_slot_whose_process_died_is_free(make_api: Any) -> None:
    api = await make_api(quota_uploads=1)
    workspace_id = await api.workspace("ours")
    async with quotas.upload_slot(api.services, workspace_id):
        async with api.services.database.transaction() as session:
            await session.execute(update(UploadSlot).values(expires_at="2020-01-01T00:00:00Z"))
        async with quotas.upload_slot(api.services, workspace_id):
            pass
        async with api.services.database.transaction() as session:
            await forget_lost_slots(session)
            assert (await session.scalars(select(UploadSlot))).all() == []


async def test_a_workspace_of_its_own_limits(make_api: Any) -> None:
    api = await make_api(quota_stored_bytes=1, quota_jobs=7)
    operator, client = await api.client("operator"), await api.client()
    path = f"/v1/workspaces/{await api.workspace('ours')}"
    changed = await operator.patch(path, json={"quotas": {"stored_bytes": 0, "uploads": 3}})
    assert changed.json()["quotas"] == {"stored_bytes": 0, "jobs": None, "uploads": 3}
    await api.upload(client)
    limits = (await client.get("/v1/usage")).json()["limits"]
    assert (limits["stored_bytes"], limits["jobs"], limits["uploads"]) == (0, 7, 3)
    back = await operator.patch(path, json={"quotas": {"stored_bytes": None}})
    assert back.json()["quotas"] == {"stored_bytes": None, "jobs": None, "uploads": 3}
    assert (await operator.patch(path, json={"quotas": {"jobs": -1}})).status_code == 422
    assert (await operator.patch("/v1/workspaces/wsp_x", json={"quotas": {}})).status_code == 404
