"""What both stores promise, on a real disk and against a real S3 server."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.config import Settings
from app.storage import (
    CHUNK,
    LocalStore,
    ObjectMissing,
    ObjectStore,
    StorageUnavailable,
    StoreFull,
    open_store,
    send_file,
)
from app.storage.local import LocalStaged
from tests.support.loopback import Handler, answering

pytestmark = pytest.mark.anyio
DATA = os.urandom(3 * CHUNK + 17)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    if request.param == "local":
        return open_store(Settings(_env_file=None, store_url=f"file://{tmp_path}/st%20ore"))
    request.getfixturevalue("s3")
    return open_store(Settings(_env_file=None, store_url=f"s3://bucket/{tmp_path.name}", s3_allow_http=True))


async def _put(store: ObjectStore, data: bytes, workspace: str = "wsp_a", piece: int = 65536) -> str:
    async with store.stage(workspace) as staged:
        for start in range(0, len(data), piece):
            await staged.write(data[start : start + piece])
        stored = await staged.finish()
        await staged.publish()
    assert stored.size_bytes == len(data)
    return stored.sha256


async def _get(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def test_bytes_come_back(store: ObjectStore) -> None:
    assert await _put(store, DATA) == DIGEST
    assert await store.size("wsp_a", DIGEST) == len(DATA)
    assert await _get(store.read("wsp_a", DIGEST)) == DATA
    await store.check()


async def test_empty_object(store: ObjectStore) -> None:
    digest = await _put(store, b"")
    assert await store.size("wsp_a", digest) == 0
    assert await _get(store.read("wsp_a", digest)) == b""


@pytest.mark.parametrize(("start", "end"), [(0, 1), (5, None), (CHUNK - 1, 2 * CHUNK + 1), (7, 7), (0, len(DATA))])
async def test_ranges(store: ObjectStore, start: int, end: int | None) -> None:
    await _put(store, DATA)
    assert await _get(store.read("wsp_a", DIGEST, start, end)) == DATA[start:end]


async def test_workspaces_are_kept_apart(store: ObjectStore) -> None:
    await _put(store, DATA)
    with pytest.raises(ObjectMissing):
        await store.size("wsp_b", DIGEST)
    with pytest.raises(ObjectMissing):
        await _get(store.read("wsp_b", DIGEST))
    await store.delete("wsp_b", DIGEST)
    assert await store.size("wsp_a", DIGEST) == len(DATA)


async def test_delete_and_again(store: ObjectStore) -> None:
    await _put(store, b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    for _ in range(2):
        await store.delete("wsp_a", digest)
        with pytest.raises(ObjectMissing):
            await store.size("wsp_a", digest)


async def test_what_is_not_published_is_gone(store: ObjectStore) -> None:
    class Interrupted(Exception):
        pass

    with pytest.raises(Interrupted):
        async with store.stage("wsp_a") as staged:
            await staged.write(DATA)
            raise Interrupted
    async with store.stage("wsp_a") as staged:
        await staged.write(DATA)
        await staged.finish()
    with pytest.raises(ObjectMissing):
        await store.size("wsp_a", DIGEST)


async def test_same_bytes_at_once(store: ObjectStore) -> None:
    assert set(await asyncio.gather(*(_put(store, DATA) for _ in range(4)))) == {DIGEST}
    assert await _get(store.read("wsp_a", DIGEST)) == DATA


async def test_files_of_workers(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(DATA)
    async with store.stage("wsp_a") as staged:
        stored = await send_file(tmp_path / "in", staged)
        await staged.publish()
    assert (stored.sha256, stored.size_bytes) == (DIGEST, len(DATA))
    await store.get_file("wsp_a", DIGEST, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA
    with pytest.raises(ObjectMissing):
        await store.get_file("wsp_a", "0" * 64, tmp_path / "none")


async def test_s3_signs_urls_that_work(request: pytest.FixtureRequest, store: ObjectStore) -> None:
    await _put(store, DATA)
    url = await store.signed_url("wsp_a", DIGEST)
    if isinstance(store, LocalStore):
        assert url is None
        return
    assert url is not None
    assert "X-Amz-Expires=900" in url
    async with httpx2.AsyncClient() as client:
        assert (await client.get(url)).content == DATA


class _Refusing(Handler):
    """An S3 service that takes no request; unlike one that is away, it is not asked again and again."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.close_connection = True

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET


async def test_s3_that_refuses_is_told_in_our_words(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with answering(_Refusing) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        store = open_store(Settings(_env_file=None, store_url="s3://bucket/x", s3_allow_http=True))
        asked = [
            _put(store, b"short"),
            _put(store, bytes(9 * CHUNK)),
            store.size("wsp_a", DIGEST),
            _get(store.read("wsp_a", DIGEST)),
            store.delete("wsp_a", DIGEST),
            store.get_file("wsp_a", DIGEST, tmp_path / "out"),
            store.check(),
        ]
        for asking in asked:
            with pytest.raises(StorageUnavailable, match="the bucket cannot be used"):
                await asking
    assert issubclass(StorageUnavailable, OSError), "as workers expect of a store that they cannot use"


async def test_corrupt_bytes_are_not_handed_out(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    await _put(store, DATA)
    (path,) = (tmp_path / "store" / "wsp_a").rglob(DIGEST)
    path.write_bytes(DATA[:-1])
    with pytest.raises(OSError, match="other bytes"):
        await store.get_file("wsp_a", DIGEST, tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_staging_folder_is_left_empty(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    await _put(store, DATA)
    async with store.stage("wsp_a") as staged:
        await staged.write(DATA)
    assert list((tmp_path / "store" / ".staging").iterdir()) == []


async def test_what_killed_processes_leave_is_removed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    await store.remove_leftovers()  # before anything was there
    left = LocalStaged(tmp_path / "store" / ".staging", tmp_path / "store" / "wsp_a")  # and its process was killed
    await store.remove_leftovers()
    (path,) = (tmp_path / "store" / ".staging").iterdir()
    day_ago = time.time() - 25 * 3600
    os.utime(path, (day_ago, day_ago))
    async with store.stage("wsp_a") as staged:
        await staged.write(DATA)
        await store.remove_leftovers()
        assert not path.exists()
        await staged.publish()
    assert await store.size("wsp_a", DIGEST) == len(DATA)
    await left.close()


async def test_full_disk_is_told_as_such(tmp_path: Path) -> None:
    """/dev/full is a device without room."""
    staged = LocalStaged(tmp_path, tmp_path / "wsp_a")
    staged._file.close()
    staged._file = os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0)
    with pytest.raises(StoreFull):
        await staged.write(DATA)
        await staged.write(DATA)
        await staged.finish()
    await staged.close()


async def test_free_bytes(store: ObjectStore) -> None:
    free = await store.free_bytes()
    assert free is None or free > 0


@given(pieces=st.lists(st.binary(max_size=3000), max_size=20))
@hypothesis_settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_pieces_of_any_size(tmp_path: Path, pieces: list[bytes]) -> None:
    async def round_trip() -> None:
        store = LocalStore(tmp_path / "store")
        async with store.stage("w") as staged:
            for piece in pieces:
                await staged.write(piece)
            stored = await staged.finish()
            await staged.publish()
        assert stored.sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()
        assert await _get(store.read("w", stored.sha256)) == b"".join(pieces)

    asyncio.run(round_trip())


@pytest.mark.parametrize("url", ["", "/var/store", "file://", "file://host/dir", "s3://", "http://x"])
def test_urls_that_name_no_store(url: str) -> None:
    with pytest.raises(ValueError, match="store_url must be"):
        open_store(Settings(_env_file=None, store_url=url))
