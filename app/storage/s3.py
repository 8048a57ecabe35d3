"""The object store in S3 or a service that speaks its protocol; credentials and endpoint from ``AWS_*``.

The name of an object is its digest, which is known only when the last byte is there: bytes are received under a staging
name and moved by a copy within the store. What a crash leaves is removed by a lifecycle rule of the bucket
(docs/operations.md).
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store as Bucket

from app.config import Settings
from app.storage.base import CHUNK, ObjectMissing, StorageUnavailable, Stored
from app.storage.files import copy_verified

if TYPE_CHECKING:
    from obstore import AsyncWritableFile, GetOptions

#: S3 copies an object of at most 5 GiB in one call; a larger one is read and written again.
_COPY_LIMIT = 5 * 1024**3
#: Two parts in flight bound the memory of an upload; parts grow with none of this, so 10 000 parts reach 80 GiB.
_PART = 8 * 1024**2
_PARTS_IN_FLIGHT = 2


class S3Store:
    """An `app.storage.base.ObjectStore`."""

    def __init__(self, bucket: str, prefix: str, settings: Settings) -> None:
        self._url_life = timedelta(seconds=settings.signed_url_s)
        self._bucket = Bucket(
            bucket, prefix=prefix or None, client_options={"allow_http": settings.s3_allow_http, "timeout": "1h"}
        )

    @asynccontextmanager
    async def stage(self, workspace_id: str) -> AsyncIterator["S3Staged"]:
        """Receives bytes under a staging name."""
        staged = S3Staged(self._bucket, workspace_id)
        try:
            yield staged
        finally:
            await staged.close()

    async def size(self, workspace_id: str, sha256: str) -> int:
        """Number of bytes."""
        with _faults(sha256):
            return (await obstore.head_async(self._bucket, _name(workspace_id, sha256)))["size"]

    async def read(
        self, workspace_id: str, sha256: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes of a range."""
        if end is not None and end <= start:
            return
        options: GetOptions | None = None  # an empty object has no satisfiable range
        if end is not None:
            options = {"range": (start, end)}
        elif start > 0:
            options = {"range": {"offset": start}}
        with _faults(sha256):
            result = await obstore.get_async(self._bucket, _name(workspace_id, sha256), options=options)
            async for chunk in result.stream(min_chunk_size=CHUNK):
                yield bytes(chunk)

    async def delete(self, workspace_id: str, sha256: str) -> None:
        """Removes an object."""
        await _remove(self._bucket, _name(workspace_id, sha256))

    async def signed_url(self, workspace_id: str, sha256: str) -> str | None:
        """A URL that works for ``signed_url_s`` seconds.

        It names no file: the library signs no ``response-content-disposition``.
        """
        return await obstore.sign_async(self._bucket, "GET", _name(workspace_id, sha256), self._url_life)

    async def free_bytes(self) -> int | None:
        """None: a bucket has no limit."""
        return None

    async def check(self) -> None:
        """Whether the bucket takes an object: an empty one, always of the same name."""
        with _faults():
            await obstore.put_async(self._bucket, ".staging/ready", b"")

    async def remove_leftovers(self) -> None:
        """Nothing: the bucket's lifecycle rule does it, without a listing that somebody pays for."""

    async def get_file(self, workspace_id: str, sha256: str, path: Path) -> None:
        """Copies an object out."""
        await copy_verified(self.read(workspace_id, sha256), sha256, path)


class S3Staged:
    """An `app.storage.base.Staged`: a multipart upload under a staging name."""

    def __init__(self, bucket: Bucket, workspace_id: str) -> None:
        self._bucket = bucket
        self._workspace_id = workspace_id
        self._name = f".staging/{workspace_id}-{secrets.token_hex(16)}"
        self._writer: AsyncWritableFile | None = self._open(self._name)
        self._digest = hashlib.sha256()
        self._size = 0
        self._batch = bytearray()
        self._stored: Stored | None = None

    async def write(self, data: bytes) -> None:
        """Takes more bytes."""
        self._batch += data
        if len(self._batch) >= CHUNK:
            await self._flush()

    async def finish(self) -> Stored:
        """Completes the upload."""
        if self._stored is None:
            await self._flush()
            if self._writer is not None:
                with _faults():
                    await self._writer.close()
                self._writer = None
            self._stored = Stored(self._digest.hexdigest(), self._size)
        return self._stored

    async def publish(self) -> None:
        """Copies the object to its name."""
        stored = await self.finish()
        with _faults():
            await self._copy(_name(self._workspace_id, stored.sha256), stored.size_bytes)

    async def close(self) -> None:
        """Removes the staging object; an upload that was not finished never becomes an object."""
        self._writer = None
        if self._stored is not None:
            with suppress(StorageUnavailable):  # the bucket's lifecycle rule does it then
                await _remove(self._bucket, self._name)

    async def _copy(self, name: str, size: int) -> None:
        if size <= _COPY_LIMIT:
            await obstore.copy_async(self._bucket, self._name, name)
            return
        writer = self._open(name)
        result = await obstore.get_async(self._bucket, self._name)
        async for chunk in result.stream(min_chunk_size=_PART):
            await writer.write(chunk)
        await writer.close()

    async def _flush(self) -> None:
        batch, self._batch = bytes(self._batch), bytearray()
        await asyncio.to_thread(self._digest.update, batch)
        self._size += len(batch)
        if self._writer is not None:
            with _faults():
                await self._writer.write(batch)

    def _open(self, name: str) -> "AsyncWritableFile":
        return obstore.open_writer_async(self._bucket, name, buffer_size=_PART, max_concurrency=_PARTS_IN_FLIGHT)


def _name(workspace_id: str, sha256: str) -> str:
    return f"{workspace_id}/{sha256}"


async def _remove(bucket: Bucket, name: str) -> None:
    with suppress(ObjectMissing), _faults(name):
        await obstore.delete_async(bucket, name)


@contextmanager
def _faults(wanted: str = "") -> Iterator[None]:
    """Tells what the bucket says in the words of every store; `wanted`: what may not be there.

    The library has a tree of errors of its own, but its writers raise OSError.
    """
    try:
        yield
    except (BaseError, OSError) as error:
        if wanted and isinstance(error, NotFoundError | FileNotFoundError):
            raise ObjectMissing(wanted) from error
        said = str(error).partition("\n")[0]
        raise StorageUnavailable(f"the bucket cannot be used: {said}") from error
