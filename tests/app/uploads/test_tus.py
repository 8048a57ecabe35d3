"""Resumable uploads as tus 1.0 says, over ASGI; stock clients drive them in test_tus_clients."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, update
from starlette.requests import ClientDisconnect

from app.errors import ApiError, Conflict
from app.jobs.maintenance import Maintenance, collect_blobs
from app.tables import Blob, ResumableUpload, UploadPart
from app.uploads import resumable, tus
from app.uploads.repository import forget_expired_uploads

pytestmark = pytest.mark.anyio
TUS = {"Tus-Resumable": "1.0.0"}
DATA = bytes(range(256)) * 40
PART = 1000


@pytest.fixture
async def api(make_api: Any) -> Any:
    return await make_api(upload_part_bytes=PART)


def _pairs(**values: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


async def _begin(client: httpx2.AsyncClient, size: int = len(DATA), **headers: str) -> str:
    headers = {"Upload-Length": str(size), "Upload-Metadata": _pairs(filename="m.pt2"), **TUS, **headers}
    response = await client.post("/v1/uploads", headers=headers)
    assert response.status_code == 201, response.text
    assert response.headers["tus-resumable"] == "1.0.0"
    assert parsedate_to_datetime(response.headers["upload-expires"]).utcoffset() == timedelta(0)
    return str(response.headers["location"].rpartition("/")[2])


async def _send(client: httpx2.AsyncClient, upload: str, offset: int, data: Any, **headers: str) -> httpx2.Response:
    headers = {"Upload-Offset": str(offset), "Content-Type": tus.MEDIA_TYPE, **TUS, **headers}
    return await client.patch(f"/v1/uploads/{upload}", content=data, headers=headers)


async def _offset(client: httpx2.AsyncClient, upload: str) -> int:
    response = await client.head(f"/v1/uploads/{upload}", headers=TUS)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    return int(response.headers["upload-offset"])


async def _use(client: httpx2.AsyncClient, upload: str, **headers: str) -> httpx2.Response:
    return await client.post("/v1/models", json={"name": "n", "upload_id": upload}, headers=headers)


def _code(response: httpx2.Response) -> tuple[int, str]:
    assert response.headers["tus-resumable"] == "1.0.0"
    return response.status_code, response.json()["code"]


async def test_in_pieces(client: httpx2.AsyncClient) -> None:
    upload = await _begin(client)
    for start in range(0, len(DATA), 3333):
        assert await _offset(client, upload) == start
        piece = DATA[start : start + 3333]
        response = await _send(client, upload, start, piece)
        assert (response.status_code, response.headers["upload-offset"]) == (204, str(start + len(piece)))
    used = await _use(client, upload)
    assert used.status_code == 201, used.text
    model = used.json()
    assert (model["filename"], model["size_bytes"]) == ("m.pt2", len(DATA))
    assert model["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert (await client.get(f"/v1/models/{model['id']}/content")).content == DATA
    again = await _use(client, upload)
    assert again.json()["sha256"] == model["sha256"]


async def test_options_and_metadata(client: httpx2.AsyncClient, api: Any) -> None:
    said = (await client.options("/v1/uploads")).headers
    assert said["tus-version"] == "1.0.0"
    assert said["tus-extension"] == "creation,checksum,expiration,termination"
    assert said["tus-max-size"] == str(api.services.settings.max_upload_bytes)
    assert said["tus-checksum-algorithm"] == "sha1,sha256,sha512"
    meta = _pairs(filename="../a/b.onnx", colour="blue") + ",empty"
    upload = await _begin(client, **{"Upload-Metadata": meta})
    shown = await client.head(f"/v1/uploads/{upload}", headers=TUS)
    assert shown.headers["upload-metadata"] == meta
    assert shown.headers["upload-length"] == str(len(DATA))


@pytest.mark.parametrize("algorithm", tus.ALGORITHMS)
async def test_checksum(client: httpx2.AsyncClient, api: Any, algorithm: str) -> None:
    upload = await _begin(client)
    half = len(DATA) // 2
    digest = base64.b64encode(hashlib.new(algorithm, DATA[:half]).digest()).decode()
    wrong = await _send(client, upload, 0, DATA[1 : half + 1], **{"Upload-Checksum": f"{algorithm} {digest}"})
    assert _code(wrong) == (460, "checksum_mismatch")
    assert await _offset(client, upload) == 0
    right = await _send(client, upload, 0, DATA[:half], **{"Upload-Checksum": f"{algorithm} {digest}"})
    assert (right.status_code, await _offset(client, upload)) == (204, half)


async def test_a_cut_connection_loses_nothing(api: Any, client: httpx2.AsyncClient) -> None:
    upload = await _begin(client)
    row = await resumable.find(api.services, await api.workspace("ours"), upload)

    async def cut() -> AsyncIterator[bytes]:
        yield DATA[:2500]
        raise ClientDisconnect

    with pytest.raises(ClientDisconnect):
        await resumable.append(api.services, row, 0, cut(), None)
    assert await _offset(client, upload) == 2500
    assert (await _send(client, upload, 2500, DATA[2500:])).status_code == 204
    assert (await _use(client, upload)).json()["sha256"] == hashlib.sha256(DATA).hexdigest()


async def test_a_cut_connection_with_a_checksum_keeps_nothing(api: Any, client: httpx2.AsyncClient) -> None:
    upload = await _begin(client)
    row = await resumable.find(api.services, await api.workspace("ours"), upload)

    async def cut() -> AsyncIterator[bytes]:
        yield DATA[:2500]
        raise ClientDisconnect

    checksum = tus.Checksum.of("sha1 " + base64.b64encode(hashlib.sha1(DATA[:2500]).digest()).decode())
    with pytest.raises(ClientDisconnect):
        await resumable.append(api.services, row, 0, cut(), checksum)
    assert await _offset(client, upload) == 0


async def test_two_at_once(client: httpx2.AsyncClient) -> None:
    """Both send the whole file slowly: nothing is torn, and whoever is late is told where to go on."""
    upload = await _begin(client)

    async def slowly() -> AsyncIterator[bytes]:
        for start in range(0, len(DATA), 700):
            await asyncio.sleep(0)
            yield DATA[start : start + 700]

    answers = await asyncio.gather(*(_send(client, upload, 0, slowly()) for _ in range(4)))
    for answer in answers:
        if answer.status_code != 204:
            assert _code(answer) == (409, "upload_offset_mismatch")
            assert int(answer.headers["upload-offset"]) > 0
    assert sum(answer.status_code == 204 for answer in answers) <= 1
    at = await _offset(client, upload)
    if at < len(DATA):
        assert (await _send(client, upload, at, DATA[at:])).status_code == 204
    assert (await _use(client, upload)).json()["sha256"] == hashlib.sha256(DATA).hexdigest()


async def test_wrong_requests(client: httpx2.AsyncClient) -> None:
    upload = await _begin(client)
    assert _code(await _send(client, upload, 5, DATA)) == (409, "upload_offset_mismatch")
    assert _code(await _send(client, upload, 0, DATA + b"x")) == (413, "payload_too_large")
    at = await _offset(client, upload)
    assert at == len(DATA) // PART * PART  # what came before was right
    assert _code(await _send(client, upload, at, b"", **{"Content-Type": "text/plain"})) == (
        415,
        "unsupported_media_type",
    )
    assert _code(await _send(client, upload, at, b"", **{"Tus-Resumable": "0.2.2"})) == (412, "tus_version_unsupported")
    assert _code(await _send(client, upload, at, b"", **{"Upload-Offset": "-1"})) == (400, "invalid_header")
    assert _code(await _send(client, upload, at, b"", **{"Upload-Checksum": "md4 aa"})) == (400, "checksum_unsupported")
    assert _code(await _send(client, "upl_none", 0, b"")) == (404, "upload_not_found")
    unfinished = await _use(client, upload)
    assert (unfinished.status_code, unfinished.json()["code"]) == (422, "upload_incomplete")
    assert unfinished.json()["errors"][0]["pointer"] == "/upload_id"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Upload-Length": "0"}, 422, "empty_file"),
        ({"Upload-Length": "1e3"}, 400, "invalid_header"),
        ({"Upload-Length": str(2**50)}, 413, "payload_too_large"),
        ({"Upload-Metadata": "filename !"}, 400, "invalid_header"),
        ({"Upload-Metadata": "a " + "A" * 9000}, 400, "invalid_header"),
        ({"Upload-Metadata": "filename " + base64.b64encode(b"model.pth").decode()}, 415, "unsafe_format"),
        ({"Tus-Resumable": ""}, 412, "tus_version_unsupported"),
    ],
)
async def test_wrong_beginnings(client: httpx2.AsyncClient, headers: dict[str, str], status: int, code: str) -> None:
    response = await client.post("/v1/uploads", headers={"Upload-Length": "5", **TUS, **headers})
    assert _code(response) == (status, code)


async def test_a_pickle_is_refused_when_it_is_used(client: httpx2.AsyncClient) -> None:
    upload = await _begin(client, 100, **{"Upload-Metadata": ""})
    await _send(client, upload, 0, b"\x80\x04" + bytes(98))
    response = await _use(client, upload)
    assert (response.status_code, response.json()["code"]) == (415, "unsafe_format")


async def test_termination_and_collection(api: Any, client: httpx2.AsyncClient) -> None:
    kept, dropped = await _begin(client), await _begin(client)
    await _send(client, kept, 0, DATA)
    await _send(client, dropped, 0, DATA[::-1])
    response = await client.delete(f"/v1/uploads/{dropped}", headers=TUS)
    assert response.status_code == 204
    assert _code(await client.delete(f"/v1/uploads/{dropped}", headers=TUS)) == (404, "upload_not_found")
    await collect_blobs(api.services.database, api.services.store, grace_s=-1)
    async with api.services.database.transaction() as session:
        parts = await session.scalar(select(func.count(func.distinct(UploadPart.sha256))))
        assert await session.scalar(select(func.count()).select_from(Blob)) == parts
    assert (await _use(client, kept)).json()["sha256"] == hashlib.sha256(DATA).hexdigest()
    await collect_blobs(api.services.database, api.services.store, grace_s=-1)
    async with api.services.database.transaction() as session:
        assert await session.scalar(select(func.count()).select_from(Blob)) == 1


async def test_expiration(api: Any, client: httpx2.AsyncClient) -> None:
    upload = await _begin(client)
    async with api.services.database.transaction() as session:
        past = func.clock_timestamp() - timedelta(seconds=1)
        await session.execute(update(ResumableUpload).values(expires_at=past))
    assert _code(await _send(client, upload, 0, DATA)) == (410, "upload_expired")
    used = await _use(client, upload)
    assert (used.status_code, used.json()["code"]) == (422, "upload_not_found")
    services = api.services
    await Maintenance(services.settings, services.database, services.store, None).round()  # type: ignore[arg-type]
    assert _code(await _send(client, upload, 0, DATA)) == (404, "upload_not_found")


async def test_repeated_beginnings(client: httpx2.AsyncClient) -> None:
    key = {"Idempotency-Key": "k"}
    assert await _begin(client, **key) == await _begin(client, **key)
    headers = {"Upload-Length": "7", **TUS, **key}
    assert _code(await client.post("/v1/uploads", headers=headers)) == (422, "idempotency_key_reused")


async def test_method_override(client: httpx2.AsyncClient) -> None:
    upload = await _begin(client)
    headers = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0", "Content-Type": tus.MEDIA_TYPE, **TUS}
    assert (await client.post(f"/v1/uploads/{upload}", content=DATA, headers=headers)).status_code == 204
    assert await _offset(client, upload) == len(DATA)
    for named in ({}, {"X-HTTP-Method-Override": "PUT"}):
        plain = await client.post(f"/v1/uploads/{upload}", headers={**TUS, **named})
        assert (plain.status_code, plain.json()["code"]) == (405, "method_not_allowed")
    shown = await client.head(f"/v1/uploads/{upload}", headers={**TUS, "X-HTTP-Method-Override": "DELETE"})
    assert shown.status_code == 200, "only a POST can mean another method"
    headers = {"X-HTTP-Method-Override": "DELETE", **TUS}
    assert (await client.post(f"/v1/uploads/{upload}", headers=headers)).status_code == 204
    assert _code(await client.post(f"/v1/uploads/{upload}", headers=headers)) == (404, "upload_not_found")


async def test_an_overridden_method_takes_no_idempotency_key(client: httpx2.AsyncClient) -> None:
    """It is no POST: a repetition is told where the upload stands, and is refused for nothing that another call did."""
    one, other = await _begin(client), await _begin(client)
    key = {"Idempotency-Key": "k", **TUS}
    patch = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0", "Content-Type": tus.MEDIA_TYPE, **key}
    assert (await client.post(f"/v1/uploads/{one}", content=DATA, headers=patch)).status_code == 204
    again = await client.post(f"/v1/uploads/{one}", content=DATA, headers=patch)
    assert (_code(again), again.headers["upload-offset"]) == ((409, "upload_offset_mismatch"), str(len(DATA)))
    delete = {"X-HTTP-Method-Override": "DELETE", **key}
    assert (await client.post(f"/v1/uploads/{other}", headers=delete)).status_code == 204
    assert _code(await client.post(f"/v1/uploads/{other}", headers=delete)) == (404, "upload_not_found")


async def test_others_see_nothing(api: Any, client: httpx2.AsyncClient) -> None:
    upload = await _begin(client)
    theirs = await api.client(workspace="theirs")
    assert _code(await _send(theirs, upload, 0, DATA)) == (404, "upload_not_found")
    assert (await _use(theirs, upload)).json()["code"] == "upload_not_found"
    reader = await api.client("reader")
    assert _code(await _send(reader, upload, 0, DATA)) == (403, "role_too_weak")


async def test_full_disk(make_api: Any) -> None:
    api = await make_api(min_free_disk_bytes=2**62)
    client = await api.client()
    response = await client.post("/v1/uploads", headers={"Upload-Length": "5", **TUS})
    assert _code(response) == (507, "insufficient_storage")


async def test_a_disk_that_fills_up_meanwhile(make_api: Any, api: Any, client: httpx2.AsyncClient) -> None:
    upload = await _begin(client)
    assert (await _send(client, upload, 0, DATA[:PART])).status_code == 204
    full = await make_api(min_free_disk_bytes=2**62, upload_part_bytes=PART)
    late = full.client_with(dict(client.headers))
    assert _code(await _send(late, upload, PART, DATA[PART:])) == (507, "insufficient_storage")
    assert await _offset(client, upload) == PART
    assert (await _send(client, upload, PART, DATA[PART:])).status_code == 204
    assert (await _send(late, upload, len(DATA), b"")).status_code == 204, "nothing is left that would need room"


async def test_refused_bytes_leave_nothing(api: Any, client: httpx2.AsyncClient) -> None:
    upload = await _begin(client)
    row = await resumable.find(api.services, await api.workspace("ours"), upload)
    checksum = "sha1 " + base64.b64encode(hashlib.sha1(b"").digest()).decode()
    answer = await _send(client, upload, 0, DATA, **{"Upload-Checksum": checksum})
    assert _code(answer) == (460, "checksum_mismatch")
    assert _code(await _send(client, upload, 0, DATA + b"x", **{"Upload-Checksum": checksum}))[0] == 413
    assert await _blobs(api) == 0

    async def overtaken() -> AsyncIterator[bytes]:
        yield DATA[: PART // 2]
        assert (await _send(client, upload, 0, b"x" * PART)).status_code == 204
        yield DATA[PART // 2 :]

    with pytest.raises(Conflict):
        await resumable.append(api.services, row, 0, overtaken(), None)
    assert await _blobs(api) == 1


async def test_a_long_body_with_a_checksum_outlives_the_collector(api: Any, client: httpx2.AsyncClient) -> None:
    upload = await _begin(client)
    row = await resumable.find(api.services, await api.workspace("ours"), upload)

    async def for_hours() -> AsyncIterator[bytes]:
        for start in range(0, len(DATA), PART):
            yield DATA[start : start + PART]
            await collect_blobs(api.services.database, api.services.store, grace_s=-1)

    checksum = tus.Checksum.of("sha1 " + base64.b64encode(hashlib.sha1(DATA).digest()).decode())
    assert (await resumable.append(api.services, row, 0, for_hours(), checksum)).received_bytes == len(DATA)
    assert (await _use(client, upload)).json()["sha256"] == hashlib.sha256(DATA).hexdigest()


async def test_an_upload_does_not_expire_while_its_bytes_arrive(api: Any, client: httpx2.AsyncClient) -> None:
    upload = await _begin(client)
    row = await resumable.find(api.services, await api.workspace("ours"), upload)
    soon = func.clock_timestamp() + timedelta(seconds=1)
    async with api.services.database.transaction() as session:
        await session.execute(update(ResumableUpload).values(expires_at=soon))

    async def slowly() -> AsyncIterator[bytes]:
        await asyncio.sleep(1.2)
        async with api.services.database.transaction() as session:
            await forget_expired_uploads(session)
        yield DATA

    assert (await resumable.append(api.services, row, 0, slowly(), None)).received_bytes == len(DATA)


async def _blobs(api: Any) -> int:
    async with api.services.database.transaction() as session:
        return int(await session.scalar(select(func.count()).select_from(Blob)))


@given(st.text(max_size=200))
async def test_metadata_never_fails_otherwise(sent: str) -> None:
    try:
        assert all(isinstance(value, str) for value in tus.metadata(sent).values())
    except ApiError as error:
        assert error.status == 400


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(max_size=20), max_size=5))
async def test_metadata_as_clients_write_it(values: dict[str, str]) -> None:
    values = {key: value for key, value in values.items() if "\0" not in value}
    assert tus.metadata(_pairs(**values)) == values
