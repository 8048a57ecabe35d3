"""``/v1/artifacts`` and how bytes come down."""

import base64
import hashlib
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from app.errors import RangeNotSatisfiable
from app.tables import Artifact
from app.web.content import _part
from tests.support.artifacts import DATA, MANIFEST

pytestmark = pytest.mark.anyio
DIGEST = hashlib.sha256(DATA).digest()
ETAG = f'"{DIGEST.hex()}"'


async def test_show(client: httpx2.AsyncClient, artifact: Artifact) -> None:
    shown = (await client.get(f"/v1/artifacts/{artifact.id}")).json()
    assert shown == {
        "id": artifact.id,
        "job_id": artifact.job_id,
        "target": "onnxruntime",
        "format": "onnx",
        "filename": 'we"ird ñ.onnx',
        "size_bytes": len(DATA),
        "sha256": DIGEST.hex(),
        "download_url": f"http://testserver/v1/artifacts/{artifact.id}/content",
        "manifest": MANIFEST,
    }
    assert (await client.get(shown["download_url"])).content == DATA


async def test_manifest(client: httpx2.AsyncClient, artifact: Artifact) -> None:
    assert (await client.get(f"/v1/artifacts/{artifact.id}/manifest")).json() == MANIFEST


async def test_whole(client: httpx2.AsyncClient, artifact: Artifact) -> None:
    response = await client.get(f"/v1/artifacts/{artifact.id}/content")
    assert (response.status_code, response.content) == (200, DATA)
    assert response.headers["etag"] == ETAG
    assert response.headers["content-length"] == str(len(DATA))
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-digest"] == f"sha-256=:{base64.b64encode(DIGEST).decode()}:"
    assert response.headers["content-disposition"] == (
        "attachment; filename=\"we_ird _.onnx\"; filename*=UTF-8''we%22ird%20%C3%B1.onnx"
    )


async def test_head(client: httpx2.AsyncClient, artifact: Artifact) -> None:
    url = f"/v1/artifacts/{artifact.id}/content"
    head, get = await client.head(url), await client.get(url)
    assert (head.status_code, head.content) == (200, b"")
    differing = {"x-request-id", "date"}
    assert {k: v for k, v in head.headers.items() if k not in differing} == {
        k: v for k, v in get.headers.items() if k not in differing
    }


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=1000000-1100000", 1_000_000, 1_100_001),
        ("bytes=1279990-", 1_279_990, 1_280_000),
        ("bytes=-10", 1_279_990, 1_280_000),
        ("bytes=-9999999", 0, 1_280_000),
        ("bytes=1279999-9999999999", 1_279_999, 1_280_000),
    ],
)
async def test_range(client: httpx2.AsyncClient, artifact: Artifact, asked: str, start: int, end: int) -> None:
    response = await client.get(f"/v1/artifacts/{artifact.id}/content", headers={"Range": asked})
    assert (response.status_code, response.content) == (206, DATA[start:end])
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
    assert response.headers["content-length"] == str(end - start)
    assert "content-digest" not in response.headers


@pytest.mark.parametrize("asked", ["bytes=1280000-", "bytes=9999999-99999999", "bytes=-0"])
async def test_range_outside(client: httpx2.AsyncClient, artifact: Artifact, asked: str) -> None:
    response = await client.get(f"/v1/artifacts/{artifact.id}/content", headers={"Range": asked})
    assert (response.status_code, response.json()["code"]) == (416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{len(DATA)}"


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=-", "bytes=0-1,4-5", "lines=0-1", "bytes=a-b", "bytes 0-1"])
async def test_range_that_is_ignored(client: httpx2.AsyncClient, artifact: Artifact, asked: str) -> None:
    response = await client.get(f"/v1/artifacts/{artifact.id}/content", headers={"Range": asked})
    assert (response.status_code, response.content) == (200, DATA)


@pytest.mark.parametrize(("condition", "status"), [(ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200)])
async def test_if_range(client: httpx2.AsyncClient, artifact: Artifact, condition: str, status: int) -> None:
    headers = {"Range": "bytes=0-9", "If-Range": condition}
    response = await client.get(f"/v1/artifacts/{artifact.id}/content", headers=headers)
    assert response.status_code == status


@pytest.mark.parametrize(
    ("condition", "status"), [(ETAG, 304), (f'"x", W/{ETAG}', 304), ("*", 304), ('"x"', 200), ("", 200)]
)
async def test_if_none_match(client: httpx2.AsyncClient, artifact: Artifact, condition: str, status: int) -> None:
    response = await client.get(f"/v1/artifacts/{artifact.id}/content", headers={"If-None-Match": condition})
    assert response.status_code == status
    assert response.headers["etag"] == ETAG


async def test_resumed_download_is_whole(client: httpx2.AsyncClient, artifact: Artifact) -> None:
    url = f"/v1/artifacts/{artifact.id}/content"
    got = b""
    while len(got) < len(DATA):
        end = len(got) + 300_000
        headers = {"Range": f"bytes={len(got)}-{end}", "If-Range": ETAG}
        got += (await client.get(url, headers=headers)).content
    assert got == DATA


async def test_lost_bytes_are_told(api: Any, client: httpx2.AsyncClient, artifact: Artifact) -> None:
    await api.services.store.delete(artifact.workspace_id, artifact.sha256)
    response = await client.get(f"/v1/artifacts/{artifact.id}/content")
    assert (response.status_code, response.json()["code"]) == (404, "content_missing")


async def test_from_s3(make_api: Any, make_artifact: Any, s3: str) -> None:
    """The bucket itself hands out the bytes, and this service all that it knows of them."""
    api = await make_api(store_url="s3://bucket/artifacts", s3_allow_http=True)
    client = await api.client()
    url = f"/v1/artifacts/{(await make_artifact(api)).id}/content"
    get, head = await client.get(url), await client.head(url)
    assert get.status_code == 307
    async with httpx2.AsyncClient() as anybody:
        assert (await anybody.get(get.headers["location"])).content == DATA
    assert (head.status_code, head.headers["etag"], head.headers["content-length"]) == (200, ETAG, str(len(DATA)))
    assert "we_ird" in head.headers["content-disposition"]


@given(
    header=st.one_of(st.text(max_size=20), st.from_regex(r"bytes=\d{0,4}-\d{0,4}", fullmatch=True)),
    size=st.integers(0, 500),
)
def test_any_range_header_is_a_range_of_the_content_or_none(header: str, size: int) -> None:
    scope = {"type": "http", "method": "GET", "headers": [(b"range", header.encode("latin-1", "replace"))]}
    try:
        part = _part(Request(scope), ETAG, size)
    except RangeNotSatisfiable:
        return
    assert part is None or 0 <= part[0] < part[1] <= size
