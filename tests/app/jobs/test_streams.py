"""Following a job over real sockets."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import event as sql
from sqlalchemy import text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from app.accounts.caller import recognize
from app.beside import beside
from app.instruments import REGISTRY
from app.jobs import streams
from app.jobs.events import NewEvent
from app.jobs.outcomes import Finished, UserError
from tests.support.stage import Stage

pytestmark = pytest.mark.anyio

SSE = {"Accept": "text/event-stream"}


async def parsed(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream; comments as ``{"comment": ...}``."""
    fields: dict[str, Any] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            yield {"comment": line[1:].strip()}
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield {"id": int(fields["id"]), "event": fields["event"], "data": json.loads(fields["data"])}
            fields = {}


async def follow(api: httpx.AsyncClient, job_id: str, **headers: str) -> list[dict[str, Any]]:
    """Every event until the stream ends."""
    async with api.stream("GET", f"/v1/jobs/{job_id}/events", headers={**SSE, **headers}) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        return [event async for event in parsed(response) if "comment" not in event]


async def test_a_stream_tells_what_happens_and_ends(stage: Stage, api: httpx.AsyncClient) -> None:
    job_id, lease = await stage.in_state("running")
    followers = [asyncio.create_task(follow(api, job_id)) for _ in range(3)]
    await asyncio.sleep(0.1)
    await stage.run(stage.leases.progress, lease, "reading", 0.1)
    await stage.run(stage.leases.append_events, lease, [NewEvent("log", {"level": "info", "message": "line\nbreak é"})])
    await stage.run(stage.leases.append_events, lease, [NewEvent("metric", {"name": "loss", "value": 0.5})])
    await stage.run(stage.leases.finish, lease, Finished())
    async with asyncio.timeout(20):
        told = await asyncio.gather(*followers)
    assert told[0] == told[1] == told[2]
    assert [(event["id"], event["event"]) for event in told[0]] == [
        (1, "state"),
        (2, "progress"),
        (3, "log"),
        (4, "metric"),
        (5, "state"),
    ]
    assert told[0][2]["data"]["message"] == "line\nbreak é"
    assert told[0][4]["data"] == {"state": "succeeded", "attempt": 1}


async def test_news_are_pushed_not_polled(stage: Stage, api: httpx.AsyncClient) -> None:
    job_id, lease = await stage.in_state("running")
    async with api.stream("GET", f"/v1/jobs/{job_id}/events", headers=SSE) as response:
        events = parsed(response)
        assert (await anext(events))["event"] == "state"
        delays = []
        for number in range(5):
            # Right after a keep-alive the next poll is the whole interval away.
            while "comment" not in await anext(events):
                pass
            started = asyncio.get_running_loop().time()
            new = [NewEvent("log", {"message": str(number)})]
            await stage.run(stage.leases.append_events, lease, new)
            while (event := await anext(events)).get("event") != "log":
                pass
            assert event["data"]["message"] == str(number)
            delays.append(asyncio.get_running_loop().time() - started)
    assert min(delays) < stage.settings.sse_keepalive_s / 2


async def test_a_stream_resumes(stage: Stage, api: httpx.AsyncClient) -> None:
    job_id, lease = await stage.in_state("running")
    for number in range(3):
        await stage.run(stage.leases.append_events, lease, [NewEvent("log", {"message": str(number)})])
    async with api.stream("GET", f"/v1/jobs/{job_id}/events", headers=SSE) as response:
        events = parsed(response)
        seen = [await anext(events) for _ in range(2)]
    await stage.run(stage.leases.finish, lease, UserError("dataset_mismatch", "no"))
    rest = await follow(api, job_id, **{"Last-Event-ID": str(seen[-1]["id"])})
    assert [event["id"] for event in seen + rest] == [1, 2, 3, 4, 5]
    assert rest[-1]["data"]["error"]["code"] == "dataset_mismatch"
    assert await follow(api, job_id, **{"Last-Event-ID": "5"}) == []
    assert await follow(api, job_id, **{"Last-Event-ID": "999"}) == []


async def test_a_long_history_comes_whole(stage: Stage, api: httpx.AsyncClient) -> None:
    job_id, lease = await stage.in_state("running")
    lines = [NewEvent("log", {"message": str(number)}) for number in range(1200)]
    await stage.run(stage.leases.append_events, lease, lines)
    await stage.run(stage.leases.finish, lease, Finished())
    assert [event["id"] for event in await follow(api, job_id)] == list(range(1, 1203))
    ids, query = [], "limit=500"
    while True:
        answer = await api.get(f"/v1/jobs/{job_id}/events?{query}", headers={"Accept": "application/json"})
        page = answer.json()
        ids += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query = f"limit=500&cursor={page['next_cursor']}"
    assert ids == list(range(1, 1203))
    logs = (await api.get(f"/v1/jobs/{job_id}/logs")).text.splitlines()
    assert len(logs) == 1202
    assert logs[1].endswith(" INFO    0")
    assert logs[-1].endswith("succeeded (attempt 1)")


async def test_a_message_cannot_forge_lines_of_the_log(stage: Stage, api: httpx.AsyncClient) -> None:
    job_id, lease = await stage.in_state("running")
    lines = [NewEvent("log", {"message": "one\ntwo\u2028three"}), NewEvent("log", {"message": ""})]
    await stage.run(stage.leases.append_events, lease, lines)
    logs = (await api.get(f"/v1/jobs/{job_id}/logs")).text.splitlines()
    assert logs[1].endswith(" INFO    one")
    assert logs[2:4] == ["    two", "    three"]
    assert logs[4].endswith(" INFO    ")


async def test_a_stream_goes_through_a_retry(stage: Stage, api: httpx.AsyncClient) -> None:
    job_id, lease = await stage.in_state("running")
    await stage.run(stage.leases.finish, lease, UserError("dataset_mismatch", "no"))
    await api.post(f"/v1/jobs/{job_id}:retry")
    following = asyncio.create_task(follow(api, job_id))
    await asyncio.sleep(0.1)
    await api.post(f"/v1/jobs/{job_id}:cancel")
    async with asyncio.timeout(20):
        states = [event["data"]["state"] for event in await following]
    assert states == ["running", "failed", "queued", "canceled"]
    assert "failed (attempt 1): dataset_mismatch: no" in (await api.get(f"/v1/jobs/{job_id}/logs")).text


async def test_a_stream_ends_when_its_job_is_deleted(stage: Stage, api: httpx.AsyncClient) -> None:
    job_id = await stage.job()
    following = asyncio.create_task(follow(api, job_id))
    await asyncio.sleep(0.2)
    assert (await api.delete(f"/v1/jobs/{job_id}")).status_code == 204
    async with asyncio.timeout(20):
        await following


async def test_listening_survives_a_lost_connection(stage: Stage, api: httpx.AsyncClient) -> None:
    job_id, lease = await stage.in_state("running")
    following = asyncio.create_task(follow(api, job_id))
    await asyncio.sleep(0.1)
    async with stage.database.transaction() as session:
        killed = await session.scalars(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'listen%'")
        )
        assert killed.all() == [True]
    await stage.run(stage.leases.append_events, lease, [NewEvent("log", {"message": "meanwhile"})])
    await stage.run(stage.leases.finish, lease, Finished())
    async with asyncio.timeout(20):
        assert [event["event"] for event in await following] == ["state", "log", "state"]


async def _make_key(stage: Stage, api: httpx.AsyncClient, **fields: Any) -> tuple[str, dict[str, str]]:
    """Id of a new key, and headers with it."""
    made = await api.post("/v1/keys", json={"name": "k", "role": "reader", **fields}, headers=await stage.key("admin"))
    return made.json()["id"], {"Authorization": f"Bearer {made.json()['key']}"}


@pytest.mark.parametrize("noise_s", [0.03, 60.0])
async def test_a_stream_ends_soon_after_its_key(stage: Stage, api: httpx.AsyncClient, noise_s: float) -> None:
    """Also where there is news all the time; streams of other keys go on."""
    job_id, lease = await stage.in_state("running")
    key_id, headers = await _make_key(stage, api)

    async def noise() -> None:
        while True:
            await stage.run(stage.leases.append_events, lease, [NewEvent("log", {"message": "x"})])
            await asyncio.sleep(noise_s)

    async with beside(noise()), api.stream("GET", f"/v1/jobs/{job_id}/events", headers=SSE) as other:
        following = asyncio.create_task(follow(api, job_id, **headers))
        await asyncio.sleep(0.7)
        assert not following.done(), "two keep-alives ago its key was found to be good"
        revoked = await api.delete(f"/v1/keys/{key_id}", headers=await stage.key("admin"))
        assert revoked.status_code == 204
        async with asyncio.timeout(stage.settings.sse_keepalive_s + 1 + 2):
            assert (await following)[0]["event"] == "state"
        await stage.run(stage.leases.append_events, lease, [NewEvent("log", {"message": "last"})])
        async with asyncio.timeout(10), aclosing(parsed(other)) as events:
            while (await anext(events)).get("data", {}).get("message") != "last":
                pass
    again = await api.get(f"/v1/jobs/{job_id}/events", headers={**SSE, **headers})
    assert (again.status_code, again.json()["code"]) == (401, "key_invalid")


async def test_streams_of_one_key_ask_together_until_it_expires(stage: Stage, api: httpx.AsyncClient) -> None:
    job_id, _ = await stage.in_state("running")
    expires_at = datetime.now(UTC) + timedelta(seconds=6)
    _, headers = await _make_key(stage, api, expires_at=expires_at.isoformat())
    asked: list[float] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM keys" in statement:
            asked.append(time.monotonic())

    followers = [asyncio.create_task(follow(api, job_id, **headers)) for _ in range(40)]
    async with asyncio.timeout(6):
        for pause in itertools.repeat(0.02):
            if REGISTRY.get_sample_value("modelpress_event_streams") == 40:
                break
            await asyncio.sleep(pause)
    sql.listen(Engine, "before_cursor_execute", count)
    try:
        async with asyncio.timeout(20):
            await asyncio.gather(*followers)
    finally:
        sql.remove(Engine, "before_cursor_execute", count)
    assert datetime.now(UTC) >= expires_at
    assert 1 <= len(asked) <= 8


async def test_a_stream_outlives_a_key_that_nobody_can_look_up(
    stage: Stage, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is away at a keep-alive: the question is asked again at a later one."""
    job_id, lease = await stage.in_state("running")
    away = True

    async def looked_up(*arguments: Any) -> Any:
        if away:
            raise OperationalError("SELECT", {}, OSError("away"))
        return await recognize(*arguments)

    monkeypatch.setattr(streams, "recognize", looked_up)
    following = asyncio.create_task(follow(api, job_id))
    await asyncio.sleep(1.0)
    assert not following.done()
    away = False
    await asyncio.sleep(0.5)
    await stage.run(stage.leases.finish, lease, Finished())
    async with asyncio.timeout(10):
        assert (await following)[-1]["data"]["state"] == "succeeded"


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "9" * 30])
async def test_a_bad_event_id(stage: Stage, api: httpx.AsyncClient, number: str) -> None:
    job_id = await stage.job()
    answer = await api.get(f"/v1/jobs/{job_id}/events", headers={**SSE, "Last-Event-ID": number})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_event_id")
