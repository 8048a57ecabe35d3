"""Errors: one shape, nothing of the inside, and every one documented."""

import logging
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter

from app.accounts.routes import WorkspaceRoute
from app.web.problems import responses
from app.web.services import SessionDep

pytestmark = pytest.mark.anyio


def _is_problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["type"] == f"urn:modelpress:error:{code}"
    assert (body["status"], body["code"]) == (status, code)
    assert body["instance"] == f"urn:modelpress:request:{response.headers['x-request-id']}"
    assert body["title"]
    assert body["detail"]
    return body


async def test_unknown_path(client: httpx2.AsyncClient) -> None:
    _is_problem(await client.get("/v2/nothing"), 404, "not_found")


async def test_unknown_method(client: httpx2.AsyncClient) -> None:
    response = await client.patch("/v1/models")
    _is_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"]


@pytest.mark.parametrize(
    ("query", "pointer"), [("limit=0", "/query/limit"), ("limit=x", "/query/limit"), ("state=odd", "/query/state")]
)
async def test_bad_query(client: httpx2.AsyncClient, query: str, pointer: str) -> None:
    body = _is_problem(await client.get(f"/v1/models?{query}"), 422, "invalid_request")
    assert [error["pointer"] for error in body["errors"]] == [pointer]


async def test_bad_json(api: Any) -> None:
    operator = await api.client("operator")
    response = await operator.post("/v1/workspaces", content=b"{", headers={"Content-Type": "application/json"})
    _is_problem(response, 400, "invalid_json")


@pytest.mark.parametrize("path", ["/v1/workspaces", "/v1/jobs"])
@pytest.mark.parametrize(
    ("content", "kind"), [("{}", "application/x-www-form-urlencoded"), ("{}", "text/plain"), ("[]", "application/json")]
)
async def test_body_that_is_no_json_object(api: Any, path: str, content: str, kind: str) -> None:
    operator = await api.client("operator")
    response = await operator.post(path, content=content, headers={"Content-Type": kind})
    assert "Content-Type: application/json" in _is_problem(response, 422, "invalid_request")["detail"]


async def test_body_faults_have_pointers(api: Any) -> None:
    operator = await api.client("operator")
    body = _is_problem(await operator.post("/v1/workspaces", json={"a/b~c": 1}), 422, "invalid_request")
    assert {error["pointer"]: error["detail"] for error in body["errors"]} == {
        "/name": "Field required",
        "/a~1b~0c": "unknown field",
    }


async def test_json_body_has_a_limit(make_api: Any) -> None:
    api = await make_api(max_body_bytes=1000)
    operator = await api.client("operator")
    for headers in ({}, {"Idempotency-Key": "k"}):
        response = await operator.post("/v1/workspaces", json={"name": "x" * 2000}, headers=headers)
        _is_problem(response, 413, "payload_too_large")


async def test_fault_of_the_server_is_a_500_without_its_inside(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    router = APIRouter(route_class=WorkspaceRoute)

    @router.get("/v1/broken/{name}")
    async def broken(name: str, session: SessionDep) -> None:
        raise RuntimeError("secret inside")

    api.app.include_router(router)
    client = api.client_with({"X-Request-Id": "asked-for.1"})
    with caplog.at_level(logging.ERROR):
        response = await client.get("/v1/broken/a%0AERROR forged")
    body = _is_problem(response, 500, "internal_error")
    assert "secret" not in response.text
    assert body["instance"] == "urn:modelpress:request:asked-for.1"
    assert "asked-for.1" in caplog.text
    assert "secret inside" in caplog.text
    assert "\nERROR forged" not in caplog.text


async def test_database_that_is_away_is_a_503(make_api: Any) -> None:
    api = await make_api(database_url="postgresql+psycopg://nobody@127.0.0.1:1/none")
    client = api.client_with({"Authorization": "Bearer mpk_000000000000_00000000000000000000000000000000"})
    response = await client.get("/v1/models")
    _is_problem(response, 503, "database_unavailable")
    assert response.headers["retry-after"]


@pytest.mark.parametrize(("sent", "kept"), [("abc-1", True), ("x" * 65, False), ("a b", False), ("", False)])
async def test_request_id(client: httpx2.AsyncClient, sent: str, kept: bool) -> None:
    response = await client.get("/healthz", headers={"X-Request-Id": sent})
    assert (response.headers["x-request-id"] == sent) is kept
    assert response.headers["x-request-id"]


async def test_openapi_tells_every_error(api: Any) -> None:
    document = (await api.client_with({}).get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert "code" in document["components"]["schemas"]["Problem"]["required"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            statuses = {int(status) for status in operation["responses"]}
            if path.startswith("/v1/"):
                assert statuses >= {400, 401, 403, 422, 500, 503}, (method, path)
                assert operation["security"], (method, path)
            for status in statuses:
                if status >= 400:
                    content = operation["responses"][str(status)]["content"]
                    assert list(content) == ["application/problem+json"], (method, path, status)


def test_responses_can_be_extended() -> None:
    assert set(responses(404)) == {400, 401, 403, 404, 422, 429, 500, 503}
    assert set(responses(503, always=())) == {503}
