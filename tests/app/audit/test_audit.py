"""The audit log: every change is in it, in its transaction; nobody can rewrite it; who may read what."""

from datetime import timedelta
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from app.accounts import audit
from app.accounts.routes import WorkspaceRoute
from app.admin import KeyRequest, create_key, create_workspace
from app.tables import AuditEvent, Model
from app.uploads.tus import MEDIA_TYPE

pytestmark = pytest.mark.anyio


async def _events(client: Any, **filters: str) -> list[dict[str, Any]]:
    answer = await client.get("/v1/audit", params=filters)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def test_changes(api: Any) -> None:
    admin, member = await api.client("admin"), await api.client("member")
    model = await api.upload(member)
    assert (await member.get(f"/v1/models/{model['id']}")).status_code == 200
    assert (await member.delete(f"/v1/models/{model['id']}", headers={"X-Request-Id": "r1"})).status_code == 204
    assert (await member.delete(f"/v1/models/{model['id']}")).status_code == 404
    made = (await admin.post("/v1/keys", json={"name": "k", "role": "reader"})).json()
    events = await _events(admin)
    assert [(event["action"], event["object_id"], event["outcome"]) for event in events] == [
        ("create_key", made["id"], "ok"),
        ("delete_model", model["id"], "ok"),
        ("create_model", model["id"], "ok"),
    ]
    assert (events[1]["request_id"], events[1]["address"]) == ("r1", "127.0.0.1")
    assert {event["workspace_id"] for event in events} == {await api.workspace("ours")}
    keys = {item["id"] for item in (await admin.get("/v1/keys")).json()["items"]}
    assert {event["actor"] for event in events} <= keys
    assert made["key"] not in str(events)


async def test_an_upload_that_is_given_up_whichever_way_it_is_asked(api: Any) -> None:
    """What is recorded is what was meant; pieces of an upload are not, and who may do neither is told apart."""
    admin, member, reader = await api.client("admin"), await api.client("member"), await api.client("reader")
    ids = []
    for call in ({"method": "DELETE"}, {"method": "POST", "headers": {"X-HTTP-Method-Override": "delete"}}):
        tus = {"Tus-Resumable": "1.0.0"}
        begun = await member.post("/v1/uploads", headers={**tus, "Upload-Length": "4"})
        ids.append(begun.headers["location"].rpartition("/")[2])
        piece = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0", "Content-Type": MEDIA_TYPE, **tus}
        assert (await member.post(f"/v1/uploads/{ids[-1]}", content=b"data", headers=piece)).status_code == 204
        asked = {"url": f"/v1/uploads/{ids[-1]}", **call, "headers": {**tus, **call.get("headers", {})}}
        assert (await reader.request(**asked)).status_code == 403
        assert (await member.request(**asked)).status_code == 204
    every = list(reversed(await _events(admin)))
    assert [event["object_id"] for event in every if event["action"] == "create_upload"] == ids
    events = [event for event in every if event["action"] != "create_upload"]
    assert [(event["action"], event["object_id"], event["outcome"]) for event in events] == [
        ("delete_upload", one, outcome) for one in ids for outcome in ("role_too_weak", "ok")
    ]


async def test_a_repetition_is_no_change(api: Any) -> None:
    operator = await api.client("operator")
    for _ in range(2):
        await operator.post("/v1/workspaces", json={"name": "w"}, headers={"Idempotency-Key": "k"})
    assert len(await _events(operator, action="create_workspace")) == 1


async def test_change_and_record_are_both_there_or_neither(api: Any) -> None:
    """Where the event cannot be stored, nothing is changed."""
    member = await api.client()
    async with api.services.database.transaction() as session:
        await session.execute(text("ALTER TABLE audit_events ADD CONSTRAINT no CHECK (action <> 'create_model')"))
    with pytest.raises(AssertionError):
        await api.upload(member)
    async with api.services.database.transaction() as session:
        assert await session.scalar(select(func.count()).select_from(Model)) == 0


async def test_refusals(api: Any) -> None:
    admin, reader, operator = await api.client("admin"), await api.client("reader"), await api.client("operator")
    assert (await reader.delete("/v1/models/mdl_%00x")).status_code == 403
    (event,) = await _events(admin)
    assert (event["action"], event["outcome"], event["object_id"]) == ("delete_model", "role_too_weak", "mdl_\\0x")
    key = (await admin.post("/v1/keys", json={"name": "k", "role": "reader"})).json()
    await admin.delete(f"/v1/keys/{key['id']}")
    await api.client_with({"Authorization": f"Bearer {key['key']}"}).get("/v1/jobs")
    (event,) = await _events(admin, action="authenticate")
    assert (event["actor"], event["object_id"], event["outcome"]) == (None, key["id"], "key_invalid")
    await api.client_with({"Authorization": "Bearer nonsense"}).get("/v1/jobs")
    assert len(await _events(admin, action="authenticate")) == 1
    assert len(await _events(operator, action="authenticate")) == 2
    await api.client_with({}).get("/v1/jobs")
    assert len(await _events(operator, action="authenticate")) == 2


async def test_who_sees_what(api: Any) -> None:
    ours, theirs, operator = (
        await api.client("admin"),
        await api.client("admin", "theirs"),
        await api.client("operator"),
    )
    models = [await api.upload(ours, name=str(number)) for number in range(3)]
    await api.upload(theirs)
    assert len(await _events(theirs)) == 1
    assert await _events(theirs, workspace_id=await api.workspace("ours")) == []
    assert len(await _events(operator)) == 4
    assert len(await _events(operator, workspace_id=await api.workspace("theirs"))) == 1
    assert [one["object_id"] for one in await _events(ours, object_id=models[1]["id"])] == [models[1]["id"]]
    first = (await ours.get("/v1/audit?limit=2")).json()
    rest = await _events(ours, cursor=first["next_cursor"])
    assert [one["object_id"] for one in first["items"] + rest] == [model["id"] for model in reversed(models)]
    middle = first["items"][1]["created_at"]
    assert [one["object_id"] for one in await _events(ours, until=middle)] == [models[0]["id"]]
    assert len(await _events(ours, since=middle)) == 2
    assert await _events(ours, outcome="role_too_weak") == []
    assert (await ours.get("/v1/audit?since=yesterday")).status_code == 422


async def test_it_can_only_grow(api: Any) -> None:
    await api.upload(await api.client())
    for statement in (
        update(AuditEvent).values(actor="nobody"),
        delete(AuditEvent),
        text("TRUNCATE audit_events"),
    ):
        with pytest.raises(DBAPIError, match="can only grow"):
            async with api.services.database.transaction() as session:
                await session.execute(statement)
    with pytest.raises(DBAPIError, match="can only grow"):
        async with api.services.database.transaction() as session:
            await session.execute(select(func.set_config("modelpress.audit_retention", "on", True)))
            await session.execute(update(AuditEvent).values(actor="nobody"))


async def test_retention(api: Any) -> None:
    async with api.services.database.transaction() as session:
        for days in (1, 40):
            created_at = func.now() - timedelta(days=days)
            await session.execute(insert(AuditEvent).values(action=str(days), outcome="ok", created_at=created_at))
        await audit.forget_old(session, 0)
        assert len((await session.scalars(select(AuditEvent))).all()) == 2
        await audit.forget_old(session, 30)
        assert [event.action for event in await session.scalars(select(AuditEvent))] == ["1"]
    with pytest.raises(DBAPIError, match="can only grow"):
        async with api.services.database.transaction() as session:
            await session.execute(delete(AuditEvent))


async def test_the_command_line_is_recorded_too(api: Any) -> None:
    import asyncio

    workspace_id = await asyncio.to_thread(create_workspace, api.services.settings, "team")
    wanted = KeyRequest("team", "member", "k")
    await asyncio.to_thread(create_key, api.services.settings, wanted)
    events = await _events(await api.client("operator"), actor=audit.COMMAND_LINE)
    assert [(event["action"], event["workspace_id"]) for event in events] == [
        ("create_key", workspace_id),
        ("create_workspace", workspace_id),
    ]


async def test_nothing_that_changes_something_goes_around_it(api: Any) -> None:
    """Whoever adds a call under /v1 gives its router the route class that records."""
    around = [
        (context.path, context.methods)
        for context in iter_route_contexts(api.app.routes)
        if str(context.path).startswith("/v1")
        and not set(context.methods or ()) <= {"GET", "HEAD"}
        and not isinstance(context.original_route, WorkspaceRoute)
    ]
    assert around == []
