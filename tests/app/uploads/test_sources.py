"""Files that the service takes from a bucket itself, on a real S3 server."""

import hashlib
from typing import Any

import httpx2
import obstore
import pytest
from obstore.store import S3Store
from sqlalchemy import func, select

from app.tables import Blob

pytestmark = pytest.mark.anyio
DATA = b"PK\x03\x04" + bytes(range(256)) * 9000


@pytest.fixture
async def client(make_api: Any, s3: str) -> httpx2.AsyncClient:
    for key in ("models/resnet.pt2", "models/bad.bin", "private/secret.pt2", "models/empty.pt2"):
        _put(key, b"" if "empty" in key else DATA)
    api = await make_api(sources=["s3://bucket/models/", "s3://gone"], s3_allow_http=True, max_upload_bytes=len(DATA))
    client: httpx2.AsyncClient = await api.client()
    return client


def _put(key: str, data: bytes) -> None:
    obstore.put(S3Store("bucket", client_options={"allow_http": True}), key, data)


async def _post(client: httpx2.AsyncClient, source: str) -> httpx2.Response:
    return await client.post("/v1/models", json={"name": "n", "source": source})


async def test_a_model_from_a_bucket(client: httpx2.AsyncClient) -> None:
    response = await _post(client, "s3://bucket/models/resnet.pt2")
    assert response.status_code == 201, response.text
    model = response.json()
    assert (model["filename"], model["sha256"]) == ("resnet.pt2", hashlib.sha256(DATA).hexdigest())
    assert (await client.get(f"/v1/models/{model['id']}/content")).content == DATA


@pytest.mark.parametrize(
    ("source", "status", "code"),
    [
        ("s3://bucket/models/none.pt2", 422, "source_not_found"),
        ("s3://gone/models/none.pt2", 422, "source_not_found"),
        ("s3://bucket/private/secret.pt2", 422, "source_not_allowed"),
        ("s3://bucket/models/../private/secret.pt2", 422, "source_not_allowed"),
        ("s3://bucket/models", 422, "source_not_allowed"),
        ("s3://bucket/modelsx/a", 422, "source_not_allowed"),
        ("s3://other/a", 422, "source_not_allowed"),
        ("https://bucket/models/resnet.pt2", 422, "source_not_allowed"),
        ("file:///etc/passwd", 422, "source_not_allowed"),
        ("s3://bucket/models/bad.bin", 415, "unsafe_format"),
        ("s3://bucket/models/empty.pt2", 422, "empty_file"),
    ],
)
async def test_what_cannot_be_taken(client: httpx2.AsyncClient, source: str, status: int, code: str) -> None:
    response = await _post(client, source)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text


async def test_too_large(client: httpx2.AsyncClient) -> None:
    _put("models/large.pt2", DATA + b"x")
    response = await _post(client, "s3://bucket/models/large.pt2")
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")


async def test_no_room_for_it(make_api: Any, s3: str) -> None:
    _put("models/resnet.pt2", DATA)
    api = await make_api(sources=["s3://bucket/models/"], s3_allow_http=True, quota_stored_bytes=len(DATA) - 1)
    response = await _post(await api.client(), "s3://bucket/models/resnet.pt2")
    assert (response.status_code, response.json()["code"]) == (403, "storage_quota_exceeded")
    async with api.services.database.transaction() as session:
        assert await session.scalar(select(func.count()).select_from(Blob)) == 0, "it was not copied first"


async def test_a_store_that_is_away(client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    response = await _post(client, "s3://bucket/models/resnet.pt2")
    assert (response.status_code, response.json()["code"]) == (422, "source_unreadable")


async def test_our_own_store_that_is_away(make_api: Any, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the source's fault nor one of the request: it is not remembered, and worth another try."""
    _put("models/resnet.pt2", DATA)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    api = await make_api(sources=["s3://bucket/models/"], s3_allow_http=True, store_url="s3://bucket/store")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    client = await api.client()
    body = {"name": "n", "source": "s3://bucket/models/resnet.pt2"}
    for _ in range(2):
        answer = await client.post("/v1/models", json=body, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert "idempotency-replayed" not in answer.headers
        assert int(answer.headers["retry-after"]) > 0
    form = await client.post("/v1/models", data={"name": "n"}, files={"file": ("m.pt2", DATA)})
    assert (form.status_code, form.json()["code"]) == (503, "store_unavailable")
