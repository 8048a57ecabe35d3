"""Every route that there is, asked with another workspace's ids, with a reader's key and without one.

Nothing here lists routes: a new one is walked as soon as the application has it, and fails until `_ids` (and, where it
takes a body, `BODIES`) knows how to fill it.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import select, text

from app.jobs.broadcast import Broadcast
from app.jobs.schemas import JobRequest
from app.tables import Artifact, Base, Blob, Job, Model, ResumableUpload, Webhook, WebhookDelivery
from tests.app.conftest import Api, MakeApi
from tests.support.artifacts import new_key

pytestmark = pytest.mark.anyio
#: Bodies of calls that would be refused without one before anybody looks at the ids.
BODIES: dict[str, dict[str, Any]] = {"/v1/workspaces/{workspace_id}": {"quotas": {"jobs": 1}}}
#: Tables in which a refused request leaves its own traces.
OWN_TRACES = ("audit_events", "idempotency_keys")


#: Calls with a body that only ask.
QUESTIONS = ("/v1/jobs:estimate",)


@pytest.fixture
async def api(make_api: MakeApi) -> Api:
    """One with a key, so that there are signatures to keep from others."""
    return await make_api(signing_key=new_key())


@dataclass(frozen=True)
class Call:
    """One method of one path."""

    method: str
    path: str

    @property
    def names(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)

    def filled(self, ids: dict[str, str]) -> str:
        missing = [name for name in self.names if name not in ids]
        assert not missing, f"{self.method} {self.path}: tests/app/test_isolation.py knows no id for {missing}"
        return self.path.format(**ids)


def _calls(api: Api) -> Iterator[Call]:
    """Those under /v1, also what the OpenAPI document leaves out."""
    for route in iter_route_contexts(api.app.routes):
        for method in sorted(route.methods or ()):
            if str(route.path).startswith("/v1/"):
                yield Call(method, str(route.path))


async def _ids(api: Api) -> dict[str, str]:
    """One of everything in the workspace ``ours``: name of a path's parameter -> id (a layout has none of its own)."""
    member, admin = await api.client("member"), await api.client("admin")
    model, dataset = await api.upload(member), await api.upload(member, "datasets")
    key = (await admin.post("/v1/keys", json={"name": "k", "role": "reader"})).json()
    workspace_id = await api.workspace("ours")
    async with api.services.database.transaction() as session:
        recipe = {"steps": [{"method": "quantize.dynamic"}]}
        request = JobRequest.model_validate({"model_id": model["id"], "recipe": recipe, "targets": ["torch"]})
        job = Job(workspace_id=workspace_id, model_id=model["id"], state="failed", recipe=recipe)
        job.request = request.model_dump(mode="json")
        session.add(job)
        await session.flush()
        blob = (await session.scalars(select(Blob).where(Blob.sha256 == model["sha256"]))).one()
        artifact = Artifact(
            workspace_id=workspace_id, job_id=job.id, target="torch", format="pt2", filename="m.pt2",
            size_bytes=blob.size_bytes, sha256=blob.sha256, manifest={},
        )  # fmt: skip
        session.add(artifact)
        await session.flush()
        later = datetime.now(UTC) + timedelta(days=1)
        upload = ResumableUpload(workspace_id=workspace_id, filename="f", meta="", size_bytes=9, expires_at=later)
        webhook = Webhook(
            workspace_id=workspace_id, name="w", url="https://hooks.example/", events=["job.failed"], salt=b"s"
        )
        session.add_all([upload, webhook])
        await session.flush()
        delivery = WebhookDelivery(webhook_id=webhook.id, event="job.failed", body="{}", next_attempt_at=later)
        session.add(delivery)
        await session.flush()
        return {
            "model_id": model["id"], "dataset_id": dataset["id"], "job_id": job.id, "artifact_id": artifact.id,
            "key_id": key["id"], "workspace_id": workspace_id, "upload_id": upload.id,
            "webhook_id": webhook.id, "delivery_id": delivery.id, "layout": "triton",
        }  # fmt: skip


async def _everything(api: Api) -> dict[str, list[str]]:
    """All rows of all tables but those of refused requests, and times of a key's last use."""
    rows = {}
    async with api.services.database.transaction() as session:
        for name in Base.metadata.tables:
            if name not in OWN_TRACES:
                found = await session.scalars(text(f"SELECT to_jsonb({name}) - 'last_used_at' FROM {name}"))
                rows[name] = sorted(map(str, found))
    return rows


async def _send(client: httpx2.AsyncClient, call: Call, path: str) -> httpx2.Response:
    headers = {"Accept": "application/json", "Tus-Resumable": "1.0.0"}
    body = BODIES.get(call.path, {}) if call.method in ("POST", "PUT", "PATCH") else None
    return await client.request(call.method, path, json=body, headers=headers)


async def test_another_workspaces_ids(api: Api) -> None:
    """404 with any role there is, 403 where only an operator may ask; and nothing has changed."""
    ids = await _ids(api)
    strangers = [await api.client(role, "theirs") for role in ("reader", "member", "admin")]
    before, wrong = await _everything(api), []
    named = [call for call in _calls(api) if call.names]
    assert {name for call in named for name in call.names} == set(ids)
    for call, stranger in itertools.product(named, strangers):
        answer = await _send(stranger, call, call.filled(ids))
        if answer.status_code not in (403, 404) or (answer.status_code == 403 and stranger is strangers[-1]):
            wrong.append((call, answer.status_code, answer.text[:200]))
    # What only an operator may do is not an administrator's, whatever the workspace.
    operators_own = {"/v1/workspaces/{workspace_id}"}
    assert [one for one in wrong if one[0].path not in operators_own] == []
    assert all(status == 403 for _, status, _ in wrong)
    assert await _everything(api) == before


async def test_an_operator_sees_no_objects_of_others_either(api: Api) -> None:
    """An operator manages workspaces and keys; models, data, jobs and artifacts stay their owners'."""
    ids = await _ids(api)
    operator = await api.client("operator", "theirs")
    before = await _everything(api)
    for call in _calls(api):
        if call.names and not set(call.names) & {"key_id", "workspace_id"}:
            assert (await _send(operator, call, call.filled(ids))).status_code == 404, call
    assert await _everything(api) == before


async def test_lists_and_queries(api: Api) -> None:
    """No answer holds an id of another workspace, also when it is asked for by name."""
    ids = await _ids(api)
    admin = await api.client("admin", "theirs")
    query = "&".join(f"{name}={value}" for name, value in ids.items())
    for call in _calls(api):
        if call.method == "GET" and not call.names:
            for path in (call.path, f"{call.path}?{query}"):
                answer = await _send(admin, call, path)
                if answer.status_code == 200:  # others say what they were asked for
                    assert [one for one in ids.values() if one in answer.text] == [], path


async def test_ids_in_bodies(api: Api) -> None:
    """Another workspace's model and data are as unknown as if they were not there."""
    ids = await _ids(api)
    async with api.services.database.transaction() as session:
        (await session.get_one(Model, ids["model_id"])).state = "ready"
    member = await api.client("member", "theirs")
    before = await _everything(api)
    steps = [{"method": "distill", "student": {"model_id": ids["model_id"]}}]
    body = {"model_id": ids["model_id"], "calibration_dataset_id": ids["dataset_id"], "recipe": {"steps": steps}}
    answer = await member.post("/v1/jobs", json={**body, "targets": ["torch"]})
    codes = {error.get("code") for error in answer.json()["errors"]}
    assert answer.status_code == 422
    assert {"model_not_found", "dataset_not_found"} <= codes
    assert await _everything(api) == before


async def test_a_readers_key_changes_nothing(api: Api) -> None:
    ids = await _ids(api)
    reader = await api.client("reader")
    api.app.state.broadcast = Broadcast(api.services.database)
    before = await _everything(api)
    for call in _calls(api):
        answer = await _send(reader, call, call.filled(ids))
        if call.method not in ("GET", "HEAD", "OPTIONS") and call.path not in QUESTIONS:
            assert (answer.status_code, answer.json()["code"]) == (403, "role_too_weak"), call
        else:
            assert answer.status_code in (200, 204, 403, 422), (call, answer.text)
    assert await _everything(api) == before


async def test_without_a_key(api: Api) -> None:
    ids = await _ids(api)
    nobody = api.client_with({})
    before = await _everything(api)
    for call in _calls(api):
        answer = await _send(nobody, call, call.filled(ids))
        assert answer.status_code == 401, call
        assert call.method == "HEAD" or answer.json()["code"] == "key_missing"
    assert await _everything(api) == before


async def test_nothing_is_left_out(api: Api) -> None:
    """What is walked above is all that the document names, and what it does not: HEAD of downloads."""
    documented = {
        Call(method.upper(), path)
        for path, methods in api.app.openapi()["paths"].items()
        for method in methods
        if path.startswith("/v1/")
    }
    walked = set(_calls(api))
    assert documented <= walked
    assert {call.method for call in walked - documented} == {"HEAD"}
    with pytest.raises(AssertionError, match="knows no id for"):
        Call("GET", "/v1/news/{news_id}").filled(await _ids(api))
