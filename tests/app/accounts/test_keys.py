"""Rotation of keys, and what nobody may do to them by accident."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

pytestmark = pytest.mark.anyio


async def _make(client: Any, role: str = "member", **fields: Any) -> dict[str, Any]:
    response = await client.post("/v1/keys", json={"name": "ci", "role": role, **fields})
    assert response.status_code == 201, response.text
    return dict(response.json())


async def _works(api: Any, key: dict[str, Any]) -> bool:
    answer = await api.client_with({"Authorization": f"Bearer {key['key']}"}).get("/v1/methods")
    return bool(answer.status_code == 200)


async def test_rotation_overlaps(api: Any) -> None:
    admin = await api.client("admin")
    old = await _make(admin)
    rotated = await admin.post(f"/v1/keys/{old['id']}:rotate")
    new = rotated.json()
    assert rotated.status_code == 201
    assert [new[name] for name in ("name", "role", "workspace_id", "replaces", "expires_at")] == [
        "ci", "member", old["workspace_id"], old["id"], None,
    ]  # fmt: skip
    assert await _works(api, old)
    assert await _works(api, new)
    listed = {item["id"]: item for item in (await admin.get("/v1/keys")).json()["items"]}
    left = datetime.fromisoformat(listed[old["id"]]["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
    again = await admin.post(f"/v1/keys/{old['id']}:rotate")
    assert (again.status_code, again.json()["code"]) == (409, "key_replaced")
    assert new["id"] in again.json()["detail"]
    await admin.post(f"/v1/keys/{new['id']}:rotate", json={"overlap_s": 1})
    await asyncio.sleep(1.1)
    assert not await _works(api, new)


async def test_rotation_at_once_and_of_what_is_over(api: Any) -> None:
    admin = await api.client("admin")
    old = await _make(admin)
    new = (await admin.post(f"/v1/keys/{old['id']}:rotate", json={"overlap_s": 0})).json()
    assert not await _works(api, old)
    assert await _works(api, new)
    again = await admin.post(f"/v1/keys/{old['id']}:rotate")
    assert (again.status_code, again.json()["code"]) == (409, "key_not_live")
    wrong = await admin.post(f"/v1/keys/{new['id']}:rotate", json={"overlap_s": -1})
    assert wrong.json()["errors"][0]["pointer"] == "/overlap_s"


async def test_rotation_keeps_the_length_of_life_and_never_prolongs_the_old_key(api: Any) -> None:
    admin = await api.client("admin")
    old = await _make(admin, expires_at=(datetime.now(UTC) + timedelta(hours=2)).isoformat())
    new = (await admin.post(f"/v1/keys/{old['id']}:rotate")).json()
    life = datetime.fromisoformat(new["expires_at"]) - datetime.fromisoformat(new["created_at"])
    assert abs(life - timedelta(hours=2)) < timedelta(seconds=10)
    listed = {item["id"]: item for item in (await admin.get("/v1/keys")).json()["items"]}
    assert listed[old["id"]]["expires_at"] == old["expires_at"]


async def test_rotation_of_stronger_and_foreign_keys(api: Any) -> None:
    admin, operator = await api.client("admin"), await api.client("operator")
    stronger = await _make(operator, "operator")
    assert (await admin.post(f"/v1/keys/{stronger['id']}:rotate")).json()["code"] == "role_too_weak"
    theirs = await _make(operator, "reader", workspace_id=await api.workspace("theirs"))
    assert (await admin.post(f"/v1/keys/{theirs['id']}:rotate")).status_code == 404
    assert (await operator.post(f"/v1/keys/{theirs['id']}:rotate")).json()["workspace_id"] == theirs["workspace_id"]


async def test_the_last_operator_key_stays(api: Any) -> None:
    operator = await api.client("operator")
    (own,) = (await operator.get("/v1/keys")).json()["items"]
    expiring = await _make(operator, "operator", expires_at=(datetime.now(UTC) + timedelta(seconds=1)).isoformat())
    await asyncio.sleep(1.1)
    refused = await operator.delete(f"/v1/keys/{own['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "last_operator_key")
    assert (await operator.delete(f"/v1/keys/{expiring['id']}")).status_code == 204
    assert (await operator.post(f"/v1/keys/{own['id']}:rotate")).status_code == 201
    assert (await operator.delete(f"/v1/keys/{own['id']}")).status_code == 204


async def test_two_operators_cannot_revoke_each_other(api: Any) -> None:
    first, second = await api.client("operator"), await api.client("operator")
    newer, older = [item["id"] for item in (await first.get("/v1/keys")).json()["items"]]
    answers = await asyncio.gather(first.delete(f"/v1/keys/{newer}"), second.delete(f"/v1/keys/{older}"))
    codes = sorted(answer.status_code for answer in answers)
    # The second may also find that its own key is revoked already.
    assert codes in ([204, 401], [204, 409])


async def test_a_revoked_key_ends_at_once_here_and_within_seconds_elsewhere(make_api: Any) -> None:
    here, there = await make_api(key_memory_s=0.5), await make_api(key_memory_s=0.5)
    admin = await here.client("admin")
    key = await _make(admin)
    assert await _works(here, key)
    assert await _works(there, key)
    assert (await admin.delete(f"/v1/keys/{key['id']}")).status_code == 204
    assert not await _works(here, key)
    await asyncio.sleep(0.6)
    assert not await _works(there, key)


async def test_a_remembered_key_is_not_asked_for_and_ends_when_it_expires(make_api: Any) -> None:
    api = await make_api(key_memory_s=5)
    expires_at = datetime.now(UTC) + timedelta(seconds=4)
    key = {"key": await api.key(expires_at=expires_at)}
    statements: list[str] = []
    engine = api.services.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: statements.append(statement))
    assert await _works(api, key)
    assert any("FROM keys" in one for one in statements)
    statements.clear()
    assert await _works(api, key)
    assert not any("FROM keys" in one for one in statements)
    await asyncio.sleep(max(0.0, (expires_at - datetime.now(UTC)).total_seconds()) + 0.05)
    assert not await _works(api, key)
