"""What can go wrong with an upload; nothing of a refused one stays."""

import asyncio
import io
import json
import pickle
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select

from app.tables import Blob, Model

pytestmark = pytest.mark.anyio
BOUNDARY = "xxBOUNDARYxx"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def _part(name: str, data: bytes, filename: str | None = None) -> bytes:
    suffix = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{suffix}\r\n\r\n'
    return head.encode() + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
NAME = _part("name", b"n")
FILE = _part("file", b"some bytes", "m.pt2")


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 50)
    return buffer.getvalue()


def _left(settings: Any) -> list[Path]:
    return [path for path in Path(settings.store_url.removeprefix("file://")).rglob("*") if path.is_file()]


async def _refused(api: Any, response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert _left(api.services.settings) == []
    async with api.services.database.transaction() as session:
        assert await session.scalar(select(func.count()).select_from(Model)) == 0
        assert await session.scalar(select(func.count()).select_from(Blob)) == 0
    body: dict[str, Any] = response.json()
    return body


@pytest.mark.parametrize("parts", [NAME + FILE, FILE + NAME])
async def test_fields_may_stand_on_either_side_of_the_file(client: httpx2.AsyncClient, parts: bytes) -> None:
    response = await client.post("/v1/models", content=parts + END, headers=HEADERS)
    assert response.status_code == 201
    assert (response.json()["name"], response.json()["size_bytes"]) == ("n", 10)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (NAME + _part("file", b"", "m.pt2") + END, 422, "empty_file"),
        (NAME + END, 422, "file_missing"),
        (NAME + _part("file", b"abc") + END, 422, "file_missing"),
        (NAME + FILE + FILE + END, 422, "duplicate_field"),
        (NAME + NAME + FILE + END, 422, "duplicate_field"),
        (NAME + _part("extra", b"x", "x.txt") + FILE + END, 422, "unexpected_file"),
        (FILE + END, 422, "invalid_request"),
        (_part("name", b"") + FILE + END, 422, "invalid_request"),
        (NAME + _part("colour", b"red") + FILE + END, 422, "invalid_request"),
        (NAME + _part("format", b"gguf") + FILE + END, 422, "invalid_request"),
        (NAME + _part("metadata", b"nonsense") + FILE + END, 422, "invalid_request"),
        (NAME + _part("metadata", b"[1]") + FILE + END, 422, "invalid_request"),
        (NAME + _part("metadata", b'{"a": NaN}') + FILE + END, 422, "invalid_request"),
        (NAME + _part("metadata", b'{"a": "\\u0000"}') + FILE + END, 422, "invalid_request"),
        (NAME + _part("metadata", b"x" * 300_000) + FILE + END, 422, "field_too_long"),
        (b"".join(_part(f"f{n}", b"x") for n in range(40)) + END, 422, "too_many_fields"),
        (_part("name", b"a\0b") + FILE + END, 400, "invalid_multipart"),
        (_part("name", b"\xff") + FILE + END, 400, "invalid_multipart"),
        (NAME + FILE, 400, "body_truncated"),
        ((NAME + FILE)[:-20], 400, "body_truncated"),
        (b"", 400, "body_truncated"),
        (b"no form at all", 400, "invalid_multipart"),
        (f"--{BOUNDARY}\r\nX: y\r\n\r\nabc\r\n".encode() + END, 400, "invalid_multipart"),
        (f"--{BOUNDARY}\r\nX: {'y' * 9000}\r\n\r\nabc\r\n".encode() + END, 400, "invalid_multipart"),
    ],
)
async def test_bad_form(api: Any, client: httpx2.AsyncClient, body: bytes, status: int, code: str) -> None:
    await _refused(api, await client.post("/v1/models", content=body, headers=HEADERS), status, code)


async def test_fault_in_a_field_has_a_pointer(client: httpx2.AsyncClient) -> None:
    body = NAME + _part("colour", b"red") + _part("task", b"dreaming") + _part("metadata", b"{") + FILE + END
    response = await client.post("/v1/models", content=body, headers=HEADERS)
    assert {error["pointer"] for error in response.json()["errors"]} == {"/colour", "/task", "/metadata"}


@pytest.mark.parametrize(
    ("content_type", "status", "code"),
    [
        ("multipart/form-data", 400, "invalid_multipart"),
        ("multipart/form-data; boundary=" + "x" * 300, 400, "invalid_multipart"),
        ("multipart/mixed; boundary=x", 415, "unsupported_media_type"),
        ("application/octet-stream", 415, "unsupported_media_type"),
        ("text/plain", 415, "unsupported_media_type"),
    ],
)
async def test_bad_content_type(
    api: Any, client: httpx2.AsyncClient, content_type: str, status: int, code: str
) -> None:
    response = await client.post("/v1/models", content=NAME + FILE + END, headers={"Content-Type": content_type})
    await _refused(api, response, status, code)


@pytest.mark.parametrize(
    ("filename", "data"),
    [
        ("model.pt2", pickle.dumps({"a": 1}, protocol=2)),
        ("model.onnx", pickle.dumps([1, 2], protocol=5)),
        ("model.zip", _zip("archive/data.pkl", "archive/version")),
        ("model.pt2", _zip("net/code/__torch__.py", "net/constants.pkl")),
        ("model.pt2", _zip("net/version", "net/constants.pkl")),
        ("model.pt", b"anything"),
        ("MODEL.PTH", b"anything"),
        ("pytorch_model.bin", b"anything"),
        ("model.pkl", b"anything"),
    ],
)
@pytest.mark.parametrize("size", [0, 100_000])
async def test_pickles_and_torchscript(
    api: Any, client: httpx2.AsyncClient, filename: str, data: bytes, size: int
) -> None:
    response = await client.post("/v1/models", data={"name": "n"}, files={"file": (filename, data + bytes(size))})
    problem = await _refused(api, response, 415, "unsafe_format")
    assert "torch.export.export(model.eval()" in problem["detail"]
    assert 'torch.export.save(program, "model.pt2")' in problem["detail"]


async def test_a_pt2_with_pickled_sample_inputs_is_no_pickle(client: httpx2.AsyncClient) -> None:
    data = _zip("m/archive_format", "m/models/model.json", "m/data/sample_inputs/model.pt", "m/data/weights/w0")
    response = await client.post("/v1/models", data={"name": "n"}, files={"file": ("m.pt2", data)})
    assert response.status_code == 201


@pytest.mark.parametrize("noun", ["models", "datasets"])
@pytest.mark.parametrize(
    ("source", "code"),
    [({"upload_id": "upl_1"}, "upload_not_found"), ({"source": "s3://bucket/key"}, "source_not_allowed")],
)
async def test_json_form_names_nothing_yet(
    api: Any, client: httpx2.AsyncClient, noun: str, source: dict[str, str], code: str
) -> None:
    fields = {"name": "n", "kind": "tensors"} if noun == "datasets" else {"name": "n"}
    await _refused(api, await client.post(f"/v1/{noun}", json={**fields, **source}), 422, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b"[]", 422, "invalid_request"),
        (b"{}", 422, "invalid_request"),
        (b'{"name": "n"}', 422, "invalid_request"),
        (b'{"name": "n", "upload_id": "u", "source": "s"}', 422, "invalid_request"),
        (b'{"name": "n", "upload_id": "u", "colour": 1}', 422, "invalid_request"),
        (b'{"name": "\\u0000", "upload_id": "u"}', 422, "invalid_request"),
    ],
)
async def test_bad_json_form(api: Any, client: httpx2.AsyncClient, body: bytes, status: int, code: str) -> None:
    response = await client.post("/v1/models", content=body, headers={"Content-Type": "application/json"})
    await _refused(api, response, status, code)


async def test_too_large_by_content_length_reads_nothing(make_api: Any) -> None:
    api = await make_api(max_upload_bytes=1000)
    client = await api.client()
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"x"

    headers = {**HEADERS, "Content-Length": str(100 * 1024**2)}
    await _refused(api, await client.post("/v1/models", content=body(), headers=headers), 413, "payload_too_large")
    assert read <= 1  # the client's first piece; ASGI hands it over before the application asks


async def test_too_large_while_it_streams(make_api: Any) -> None:
    api = await make_api(max_upload_bytes=1000)
    client = await api.client()
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        yield NAME + _part("file", b"", "m.pt2")[:-2]
        for _ in range(1000):
            sent += 1
            yield bytes(100_000)

    await _refused(api, await client.post("/v1/models", content=body(), headers=HEADERS), 413, "payload_too_large")
    assert sent < 20


async def test_no_free_disk(make_api: Any) -> None:
    api = await make_api(min_free_disk_bytes=1 << 60)
    client = await api.client()
    response = await client.post("/v1/models", content=NAME + FILE + END, headers=HEADERS)
    await _refused(api, response, 507, "insufficient_storage")


async def test_client_that_goes_away_leaves_nothing(api: Any, client: httpx2.AsyncClient) -> None:
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": NAME + _part("file", bytes(3_000_000), "m.pt2"), "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = {**HEADERS, "Authorization": client.headers["authorization"]}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/models",
        "raw_path": b"/v1/models",
        "query_string": b"",
        "root_path": "",
        "server": ("testserver", 80),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    await api.app(scope, receive, send)
    assert sent == []
    assert _left(api.services.settings) == []


async def test_same_bytes_are_kept_once_per_workspace(api: Any, client: httpx2.AsyncClient) -> None:
    first, second = [await api.upload(client) for _ in range(2)]
    theirs = await api.upload(await api.client(workspace="theirs"))
    assert first["sha256"] == second["sha256"] == theirs["sha256"]
    assert first["id"] != second["id"]
    assert len(_left(api.services.settings)) == 2


async def test_uploads_at_once(api: Any, client: httpx2.AsyncClient) -> None:
    """More of them than the pool has connections: a stream holds none."""
    made = await asyncio.gather(*(api.upload(client, name=f"n{number}") for number in range(20)))
    assert len({model["id"] for model in made}) == 20


async def test_metadata_comes_back(client: httpx2.AsyncClient) -> None:
    metadata = {"a": [1, {"b": "ü"}], "c": None}
    body = NAME + _part("metadata", json.dumps(metadata).encode()) + FILE + END
    response = await client.post("/v1/models", content=body, headers=HEADERS)
    assert response.json()["metadata"] == metadata
