"""Whoever asks is known before anything is read; polled reads have the same proofs, errors and figures as all else."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

pytestmark = pytest.mark.anyio

POLLED = "/v1/jobs/job_x"


async def test_no_body_of_a_stranger_is_read(api: Any) -> None:
    async def body() -> AsyncIterator[bytes]:
        read.append(path)
        yield b"{}"

    read: list[str] = []
    stranger, asked = api.client_with({}), 0
    for path, operations in api.app.openapi()["paths"].items():
        for method, operation in operations.items():
            if "requestBody" in operation and operation.get("security"):
                headers = {"Content-Type": next(iter(operation["requestBody"]["content"]))}
                refused = await stranger.request(method, path, content=body(), headers=headers)
                assert (refused.status_code, refused.json()["code"]) == (401, "key_missing"), path
                asked += 1
    assert asked >= 10
    assert read == []


async def test_who_asks_is_proved(api: Any) -> None:
    refused = await api.client_with({}).get(POLLED)
    assert (refused.status_code, refused.json()["code"]) == (401, "key_missing")
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert refused.headers["x-request-id"] in refused.json()["instance"]


async def test_what_is_not_there_is_told_as_everywhere(api: Any) -> None:
    client = await api.client()
    missing = await client.get(POLLED)
    assert (missing.status_code, missing.json()["code"]) == (404, "job_not_found")
    assert missing.headers["ratelimit-policy"]
    assert (await client.head(POLLED)).status_code == 405
    assert (await client.get(f"{POLLED}/")).status_code == 307


async def test_a_fault_is_told_without_its_cause(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> bytes:
        raise RuntimeError("secret inside")

    client = await api.client()
    monkeypatch.setattr(api.app.state.rendered, "json", broken)
    failed = await client.get(POLLED)
    assert (failed.status_code, failed.json()["code"]) == (500, "internal_error")
    assert "secret" not in failed.text
