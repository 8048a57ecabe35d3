"""Resumable uploads: bytes are kept part by part while they arrive.

A killed server loses at most the part that was under way; a dropped connection not even that.

Parts are blobs like any others, so this works alike on a disk and in S3, and with any number of API processes: of two
requests that send the same bytes at once, the one whose part is counted first goes on, the other is told the new
offset. They are put together when something is made of the upload (`app.uploads.assembly`).

A body with a checksum is one part, however long it is: it is staged until its last byte has proved it, so that bytes
which are refused leave nothing behind.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import ClientDisconnect

from app.accounts import quotas
from app.accounts.renewal import renewed
from app.errors import Conflict, Gone, Invalid, NotFound, PayloadTooLarge
from app.storage import Staged, StoreFull
from app.tables import ResumableUpload, UploadPart
from app.uploads import repository
from app.uploads.keep import publish
from app.uploads.room import Room, no_room
from app.uploads.sniff import refuse_code
from app.uploads.tus import Checksum
from app.web.fields import is_storable
from app.web.services import Services


async def create(
    session: AsyncSession, services: Services, workspace_id: str, size: int, filename: str, meta: str
) -> ResumableUpload:
    """Announces a file of `size` bytes.

    Raises `Invalid` (``empty_file``), `UnsupportedMedia` (``unsafe_format``, by the filename), `PayloadTooLarge`,
    `InsufficientStorage`, `Forbidden` (``storage_quota_exceeded``).
    """
    if size == 0:
        raise Invalid("Upload-Length is 0: an empty file is neither a model nor a dataset.", code="empty_file")
    refuse_code(filename, b"")
    await Room(services.store, services.settings).for_length(size)
    values = {"workspace_id": workspace_id, "filename": filename, "meta": meta, "size_bytes": size}
    upload = await repository.insert_upload(session, _ttl(services), **values)
    await quotas.hold_announced(session, services.settings, workspace_id)
    return upload


async def find(services: Services, workspace_id: str, upload_id: str) -> ResumableUpload:
    """The upload of this workspace. Raises `NotFound`, `Gone`."""
    async with services.database.transaction() as session:
        row = await repository.find_upload(session, workspace_id, upload_id) if is_storable(upload_id) else None
    if row is None:
        raise NotFound(f"There is no upload {upload_id[:100]!r} in this workspace.", code="upload_not_found")
    upload, expired = row
    if expired:
        raise Gone("This upload has expired; begin a new one.", code="upload_expired")
    return upload


async def append(
    services: Services,
    upload: ResumableUpload,
    offset: int,
    chunks: AsyncIterator[bytes],
    checksum: Checksum | None,
) -> ResumableUpload:
    """Takes the bytes of `chunks` from `offset` on; with a checksum all of them or none. Returns the upload.

    Raises:
        Conflict: ``upload_offset_mismatch``, others have come this far already, or nobody.
        ChecksumMismatch, PayloadTooLarge, InsufficientStorage, TooManyRequests.
        ClientDisconnect: after what arrived without a checksum was kept.
    """
    if offset != upload.received_bytes:
        raise _other_offset(upload.received_bytes)
    async with quotas.upload_slot(services, upload.workspace_id), kept(services, upload.id):
        await _take(services, upload, offset, _Body(chunks, checksum))
    return await find(services, upload.workspace_id, upload.id)


@asynccontextmanager
async def kept(services: Services, upload_id: str) -> AsyncIterator[None]:
    """The upload does not expire while the block runs, nor soon after."""
    ttl = _ttl(services)
    longer = repository.prolong_upload(upload_id, ttl)
    async with services.database.transaction() as session:
        await session.execute(longer)
    async with renewed(services.database, longer, longer, ttl.total_seconds() / 3):
        yield


async def _take(services: Services, upload: ResumableUpload, offset: int, body: "_Body") -> None:
    end = offset
    while not body.ended:
        part = await _keep(services, upload, end, body)
        if part is None:
            break
        await _count(services, part)
        end += part.size_bytes
    if body.lost is not None:
        raise body.lost


async def discard(session: AsyncSession, services: Services, workspace_id: str, upload_id: str) -> None:
    """Forgets an upload; its bytes go with the last reference to them. Raises as `find` does."""
    upload = await find(services, workspace_id, upload_id)
    await repository.delete_upload(session, upload.id)


@dataclass
class _Body:
    """The bytes of a request, cut into parts."""

    chunks: AsyncIterator[bytes]
    checksum: Checksum | None
    ended: bool = False
    #: Why they ended early.
    lost: ClientDisconnect | None = None
    rest: bytes = b""

    async def part(self, size: int) -> AsyncIterator[bytes]:
        """The next `size` bytes, or as many as there are."""
        while size:
            data = self.rest or await self._next()
            if not data:
                return
            self.rest, data = data[size:], data[:size]
            size -= len(data)
            if self.checksum is not None:
                self.checksum.digest.update(data)
            yield data

    def prove(self) -> None:
        """Raises `ChecksumMismatch`, or what cut the body, where its bytes cannot have their checksum."""
        if self.checksum is None:
            return
        if self.lost is not None:
            raise self.lost
        self.checksum.verify()

    async def _next(self) -> bytes:
        try:
            async for data in self.chunks:
                if data:
                    return data
        except ClientDisconnect as lost:
            self.lost = lost
        self.ended = True
        return b""


async def _keep(services: Services, upload: ResumableUpload, start: int, body: _Body) -> UploadPart | None:
    """Stores the next part of `body`, which begins at `start`, without counting it yet; None: no bytes are left."""
    try:
        async with services.store.stage(upload.workspace_id) as staged:
            size = await _fill(staged, services, upload, start, body)
            if size == 0:
                return None
            await _still_at(services, upload, start)
            stored = await publish(services.database, staged, upload.workspace_id)
    except StoreFull as error:
        raise no_room() from error
    return UploadPart(
        upload_id=upload.id, start=start, workspace_id=upload.workspace_id, size_bytes=size, sha256=stored.sha256
    )


async def _fill(staged: Staged, services: Services, upload: ResumableUpload, start: int, body: _Body) -> int:
    """Writes a part; the number of its bytes, which are those of their checksum where there is one."""
    room = Room(services.store, services.settings)
    missing = upload.size_bytes - start
    most = services.settings.upload_part_bytes
    if missing:
        await room.for_length(min(most, missing))
    size = 0
    async for data in body.part(most if body.checksum is None else missing + 1):
        size += len(data)
        if size > missing:
            raise PayloadTooLarge(f"The body goes beyond the {upload.size_bytes} bytes of Upload-Length.")
        await room.for_file(size, len(data))
        await staged.write(data)
    body.prove()
    return size


async def _still_at(services: Services, upload: ResumableUpload, offset: int) -> None:
    """Before bytes are published: once another request was faster, nothing would refer to them.

    Raises `Conflict`, `NotFound`, `Gone`.
    """
    now = await find(services, upload.workspace_id, upload.id)
    if now.received_bytes != offset:
        raise _other_offset(now.received_bytes)


async def _count(services: Services, part: UploadPart) -> None:
    """Makes `part` one of its upload. Raises `Conflict` where another request was faster."""
    async with services.database.transaction() as session:
        advanced = await repository.advance_upload(session, part, _ttl(services))
    if not advanced:
        raise _other_offset((await find(services, part.workspace_id, part.upload_id)).received_bytes)


def _ttl(services: Services) -> timedelta:
    return timedelta(seconds=services.settings.upload_ttl_s)


def _other_offset(offset: int) -> Conflict:
    return Conflict(
        f"This upload has {offset} bytes; go on from there.",
        code="upload_offset_mismatch",
        headers={"Upload-Offset": str(offset)},
    )
