"""A finished resumable upload becomes one file: its parts are put together when something is first made of it.

Several requests may do so at once, and a copy of 64 GiB takes a while. So until its copy is there, each keeps the
upload from expiring, and its parts from the collector: the first to end drops the rows that refer to them.
"""

from collections.abc import AsyncIterator, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.renewal import renewed
from app.errors import Conflict, FieldError, Gone, Invalid, NotFound
from app.storage import ObjectMissing, Stored
from app.tables import ResumableUpload
from app.uploads import repository
from app.uploads.keep import publish
from app.uploads.receive import receive_file
from app.uploads.resumable import find, kept
from app.web.services import Services

#: How often parts are kept from the collector while they are read, in seconds; it leaves blobs alone for an hour.
_TOUCH_EVERY_S = 600.0


async def finished(services: Services, workspace_id: str, upload_id: str) -> tuple[str, Stored]:
    """Name and bytes of a finished upload, put together where nobody has done so before.

    Raises:
        Invalid: ``upload_not_found``, ``upload_incomplete``.
        Conflict: ``upload_bytes_missing``.
        UnsupportedMedia, InsufficientStorage.
    """
    try:
        upload = await find(services, workspace_id, upload_id)
    except (NotFound, Gone) as error:
        raise _unusable("upload_not_found", f"{error.detail} Or send the file as multipart/form-data.") from error
    if upload.received_bytes < upload.size_bytes:
        have = f"{upload.received_bytes} of {upload.size_bytes} bytes"
        raise _unusable("upload_incomplete", f"{upload.id} has {have}; send the rest first.")
    async with kept(services, upload.id):
        async with services.database.transaction() as session:
            whole, parts = await _hold(session, upload)
        if whole is None:
            whole = await _put_together(services, upload, parts)
    return upload.filename, whole


async def _hold(session: AsyncSession, upload: ResumableUpload) -> tuple[Stored | None, Sequence[str]]:
    """The whole file, or the digests of its parts; the collector leaves either alone for a while."""
    row = await repository.lock_upload(session, upload.id)
    if row is None:
        raise _unusable("upload_not_found", f"{upload.id} was given up meanwhile; begin a new upload.")
    if row.sha256 is not None:
        whole = Stored(row.sha256, upload.size_bytes)
        await repository.touch_blob(session, upload.workspace_id, whole)
        return whole, ()
    parts = await repository.part_digests(session, upload.id)
    await session.execute(repository.touch_blobs(upload.workspace_id, parts))
    return None, parts


async def _put_together(services: Services, upload: ResumableUpload, parts: Sequence[str]) -> Stored:
    again = repository.touch_blobs(upload.workspace_id, parts)
    chunks = _read(services, upload, parts)
    async with (
        renewed(services.database, again, again, _TOUCH_EVERY_S),
        receive_file(services, upload.workspace_id, upload.filename, upload.size_bytes, chunks) as received,
    ):
        stored = await publish(services.database, received.staged, upload.workspace_id)
    async with services.database.transaction() as session:
        await repository.complete_upload(session, upload.id, stored.sha256)
    return stored


async def _read(services: Services, upload: ResumableUpload, parts: Sequence[str]) -> AsyncIterator[bytes]:
    try:
        for digest in parts:
            async for data in services.store.read(upload.workspace_id, digest):
                yield data
    except ObjectMissing as error:
        detail = f"The store has lost bytes of {upload.id}; begin a new upload."
        raise Conflict(detail, code="upload_bytes_missing") from error


def _unusable(code: str, detail: str) -> Invalid:
    return Invalid(detail, code=code, errors=[FieldError(pointer="/upload_id", detail=detail)])
