"""Idempotency-Key: one effect and one answer, whatever happens to the requests."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import httpx2
import pytest
from sqlalchemy import func, select, update

from app.accounts import idempotency
from app.accounts.credentials import Caller, identify
from app.accounts.idempotency import Once, Replay
from app.errors import Conflict
from app.tables import IdempotencyKey, Key, Model, Workspace

pytestmark = pytest.mark.anyio
KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}


@pytest.fixture
async def operator(api: Any) -> httpx2.AsyncClient:
    client: httpx2.AsyncClient = await api.client("operator")
    return client


async def _count(api: Any, table: Any) -> int:
    async with api.services.database.transaction() as session:
        return int(await session.scalar(select(func.count()).select_from(table)))


async def _member(api: Any) -> Caller:
    return Caller(await api.workspace("ours"), "member", key_id="key_x")


async def _upload(
    client: httpx2.AsyncClient, data: bytes = b"bytes", name: str = "n", filename: str = "m.pt2"
) -> httpx2.Response:
    return await client.post("/v1/models", data={"name": name}, files={"file": (filename, data)}, headers=KEY)


async def test_repetition_gets_the_first_answer(api: Any, operator: httpx2.AsyncClient) -> None:
    before = await _count(api, Workspace)
    first = await operator.post("/v1/workspaces", json={"name": "a"}, headers=KEY)
    again = await operator.post(
        "/v1/workspaces", content=b'{ "name" :"a"}', headers={**KEY, "Content-Type": "application/json"}
    )
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert await _count(api, Workspace) == before + 1


async def test_other_body_is_refused(operator: httpx2.AsyncClient) -> None:
    await operator.post("/v1/workspaces", json={"name": "a"}, headers=KEY)
    other = await operator.post("/v1/workspaces", json={"name": "b"}, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    elsewhere = await operator.post("/v1/keys", json={"name": "a"}, headers=KEY)
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (422, "idempotency_key_reused")


async def test_upload_is_known_by_its_fields_and_digest(api: Any, client: httpx2.AsyncClient) -> None:
    first = await _upload(client)
    again = await _upload(client, filename="other.pt2")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert again.headers["location"] == first.headers["location"]
    for other in (await _upload(client, data=b"others"), await _upload(client, name="m")):
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert await _count(api, Model) == 1


async def test_refusal_is_an_answer_too(operator: httpx2.AsyncClient) -> None:
    await operator.post("/v1/workspaces", json={"name": "a"})
    refused = [await operator.post("/v1/workspaces", json={"name": "a"}, headers=KEY) for _ in range(2)]
    assert [response.status_code for response in refused] == [409, 409]
    assert refused[0].json() == refused[1].json()
    assert refused[1].headers["idempotency-replayed"] == "true"
    invalid = [
        await operator.post("/v1/workspaces", json={"n": 1}, headers={"Idempotency-Key": "k2"}) for _ in range(2)
    ]
    assert [response.status_code for response in invalid] == [422, 422]
    assert invalid[1].headers["idempotency-replayed"] == "true"


async def test_cut_upload_can_be_repeated(client: httpx2.AsyncClient) -> None:
    headers = {**KEY, "Content-Type": "multipart/form-data; boundary=b"}
    cut = await client.post("/v1/models", content=b"--b\r\nContent-Disposition: form-da", headers=headers)
    assert cut.status_code == 400
    assert (await _upload(client)).status_code == 201


async def test_second_request_while_the_first_runs(api: Any, client: httpx2.AsyncClient) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nn\r\n'
        started.set()
        await go_on.wait()
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="m.pt2"\r\n\r\nbytes\r\n--b--\r\n'

    headers = {**KEY, "Content-Type": "multipart/form-data; boundary=b"}
    first = asyncio.create_task(client.post("/v1/models", content=body(), headers=headers))
    await started.wait()
    while await _count(api, IdempotencyKey) == 0:  # noqa: ASYNC110 - it is a row of the database
        await asyncio.sleep(0.01)
    second = await _upload(client)
    assert (second.status_code, second.json()["code"]) == (409, "request_in_progress")
    assert second.headers["retry-after"] == "1"
    go_on.set()
    assert (await first).status_code == 201
    assert (await _upload(client)).json() == (await first).json()


async def test_many_at_once_have_one_effect(api: Any, operator: httpx2.AsyncClient) -> None:
    before = await _count(api, Workspace)
    answers = await asyncio.gather(
        *(operator.post("/v1/workspaces", json={"name": "a"}, headers=KEY) for _ in range(8))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert all(answer.json()["code"] == "request_in_progress" for answer in answers if answer.status_code == 409)
    assert await _count(api, Workspace) == before + 1


async def test_crashed_request_frees_its_key(api: Any, operator: httpx2.AsyncClient) -> None:
    """A process that dies leaves its row behind, unfinished; the lease runs out."""
    caller = await identify(api.services, operator.headers["authorization"])
    dead = Once(api.services, caller, KEY["Idempotency-Key"])
    await dead._take()
    blocked = await operator.post("/v1/workspaces", json={"name": "a"}, headers=KEY)
    assert (blocked.status_code, blocked.json()["code"]) == (409, "request_in_progress")
    async with api.services.database.transaction() as session:
        await session.execute(update(IdempotencyKey).values(expires_at=func.now() - timedelta(seconds=1)))
    assert (await operator.post("/v1/workspaces", json={"name": "a"}, headers=KEY)).status_code == 201


async def test_who_lost_the_lease_cannot_commit(api: Any) -> None:
    caller = await _member(api)
    slow, quick = (Once(api.services, caller, "k") for _ in range(2))
    async with slow.lease():
        async with api.services.database.transaction() as session:
            await session.execute(update(IdempotencyKey).values(expires_at=func.now() - timedelta(seconds=1)))
        async with quick.lease():
            slow.settle("f")
            from fastapi import Response

            with pytest.raises(Conflict):
                async with api.services.database.transaction() as session:
                    await slow.remember(session, Response(b"slow"))
            quick.settle("f")
            async with api.services.database.transaction() as session:
                await quick.remember(session, Response(b"quick"))
    third = Once(api.services, caller, "k")
    async with third.lease():
        with pytest.raises(Replay) as replay:
            third.settle("f")
    assert replay.value.response.body == b"quick"


async def test_long_request_renews_its_lease(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "LEASE", timedelta(seconds=0.3))
    caller = await _member(api)
    async with Once(api.services, caller, "k").lease():
        await asyncio.sleep(0.8)
        with pytest.raises(Conflict):
            async with Once(api.services, caller, "k").lease():
                pass


async def test_failed_renewal_is_tried_again(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "LEASE", timedelta(seconds=1.2))
    caller = await _member(api)
    database, real = api.services.database, api.services.database.transaction
    async with Once(api.services, caller, "k").lease():
        monkeypatch.setattr(database, "transaction", Mock(side_effect=[OSError("away"), *(real() for _ in range(9))]))
        await asyncio.sleep(1.5)
        monkeypatch.setattr(database, "transaction", real)
        with pytest.raises(Conflict):
            async with Once(api.services, caller, "k").lease():
                pass


async def test_answer_is_kept_for_a_day(api: Any, operator: httpx2.AsyncClient) -> None:
    await operator.post("/v1/workspaces", json={"name": "a"}, headers=KEY)
    async with api.services.database.transaction() as session:
        left = await session.scalar(select(IdempotencyKey.expires_at - func.now()))
        assert timedelta(hours=23.9) < left <= timedelta(hours=24)
        await session.execute(update(IdempotencyKey).values(expires_at=func.now() - timedelta(seconds=1)))
    again = await operator.post("/v1/workspaces", json={"name": "a"}, headers=KEY)
    assert again.json()["code"] == "workspace_exists"


async def test_keys_are_those_of_a_workspace(api: Any) -> None:
    ours, theirs = await api.client(workspace="ours"), await api.client(workspace="theirs")
    assert (await _upload(ours)).json()["id"] != (await _upload(theirs)).json()["id"]


async def test_a_weaker_role_gets_no_answer_of_a_stronger_one(api: Any) -> None:
    body = {"name": "k", "role": "admin"}
    admin, reader = await api.client("admin"), await api.client("reader")
    made = await admin.post("/v1/keys", json=body, headers=KEY)
    refused = await reader.post("/v1/keys", json=body, headers=KEY)
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert (await admin.post("/v1/keys", json=body, headers=KEY)).json() == made.json()


async def test_a_rotated_key_goes_on(api: Any) -> None:
    old = await api.client("admin")
    first = await old.post("/v1/keys", json={"name": "a", "role": "reader"}, headers=KEY)
    (own,) = [item["id"] for item in (await old.get("/v1/keys")).json()["items"] if item["name"] == "test"]
    rotated = await old.post(f"/v1/keys/{own}:rotate")
    new = api.client_with({"Authorization": f"Bearer {rotated.json()['key']}"})
    again = await new.post("/v1/keys", json={"name": "a", "role": "reader"}, headers=KEY)
    assert again.json() == first.json()


async def test_secret_in_an_answer_is_not_stored_in_clear(api: Any, operator: httpx2.AsyncClient) -> None:
    answers = [await operator.post("/v1/keys", json={"name": "k", "role": "reader"}, headers=KEY) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    secret = answers[0].json()["key"].encode()
    async with api.services.database.transaction() as session:
        stored = await session.scalar(select(IdempotencyKey.body))
        keys = (await session.scalars(select(Key.hash))).all()
    assert secret not in stored
    assert all(secret not in key for key in keys)


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\tb"])
async def test_bad_key(operator: httpx2.AsyncClient, key: str) -> None:
    headers = [(b"idempotency-key", key.encode())]
    response = await operator.post("/v1/workspaces", json={"name": "a"}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "idempotency_key_invalid")


async def test_get_takes_no_notice(operator: httpx2.AsyncClient) -> None:
    for _ in range(2):
        response = await operator.get("/v1/workspaces", headers=KEY)
        assert (response.status_code, "idempotency-replayed" in response.headers) == (200, False)
