"""Zips that are made while they are sent: bytes of the store and small files, stored, nothing kept in memory."""

import hashlib
import io
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.errors import NotFound
from app.storage import ObjectMissing, ObjectStore
from app.web.content import disposition, matches
from app.web.problems import responses

MEDIA_TYPE = "application/zip"
#: From here on entries need Zip64, whose records are longer.
_ZIP64: Final = 1 << 31
_ZIP: dict[str, Any] = {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}

#: For OpenAPI: what the download of an archive can answer.
ARCHIVE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The zip", "content": _ZIP},
    304: {"description": "The client's copy is the same"},
    **responses(404),
}


@dataclass(frozen=True)
class Piece:
    """Bytes `start` up to, not including, `end` of what the archive is made of."""

    start: int
    end: int


@dataclass(frozen=True)
class Entry:
    """A file in an archive."""

    path: str
    content: bytes | Piece

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.content.end - self.content.start if isinstance(self.content, Piece) else len(self.content)


@dataclass(frozen=True)
class Archive:
    """Files around bytes in the store; the same content gives the same zip, byte for byte."""

    workspace_id: str
    sha256: str
    made_at: datetime
    filename: str
    entries: Sequence[Entry]

    @property
    def etag(self) -> str:
        """A strong validator: over everything that the zip is made of."""
        rows = [
            [entry.path, [entry.content.start, entry.content.end]]
            if isinstance(entry.content, Piece)
            else [entry.path, hashlib.sha256(entry.content).hexdigest()]
            for entry in self.entries
        ]
        told = json.dumps([self.sha256, self.made_at.isoformat(), rows])
        return f'"{hashlib.sha256(told.encode()).hexdigest()}"'


async def send_archive(request: Request, store: ObjectStore, archive: Archive) -> Response:
    """The answer to a GET or HEAD of `archive`. Raises `NotFound` where the store has lost the bytes."""
    if matches(request.headers.get("if-none-match", ""), archive.etag):
        return Response(status_code=304, headers={"ETag": archive.etag})
    try:
        # A lost object must be an error, not a cut answer.
        await store.size(archive.workspace_id, archive.sha256)
    except ObjectMissing as error:
        raise NotFound("The bytes are no longer in the store.", code="content_missing") from error
    headers = {
        "ETag": archive.etag,
        "Content-Disposition": disposition(archive.filename),
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    length = _length(archive)
    if length is not None:
        headers["Content-Length"] = str(length)
    if request.method == "HEAD":
        return Response(headers=headers, media_type=MEDIA_TYPE)
    return StreamingResponse(_zip(archive, store), 200, headers, media_type=MEDIA_TYPE)


class _Sink(io.RawIOBase):
    """Takes what a `ZipFile` writes, and cannot seek: sizes and checksums follow the bytes that they are of."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._held += data
        return len(data)

    def take(self) -> bytes:
        """What was written since the last call."""
        held, self._held = bytes(self._held), bytearray()
        return held


async def _zip(archive: Archive, store: ObjectStore) -> AsyncIterator[bytes]:
    sink = _Sink()
    with ZipFile(sink, "w", ZIP_STORED) as out:
        for entry in archive.entries:
            with out.open(_info(archive, entry), "w", force_zip64=entry.size >= _ZIP64) as file:
                if isinstance(entry.content, bytes):
                    file.write(entry.content)
                else:
                    start, end = entry.content.start, entry.content.end
                    async for data in store.read(archive.workspace_id, archive.sha256, start, end):
                        file.write(data)
                        yield sink.take()
    yield sink.take()


def _info(archive: Archive, entry: Entry) -> ZipInfo:
    made = archive.made_at
    info = ZipInfo(entry.path, (made.year, made.month, made.day, made.hour, made.minute, made.second))
    info.external_attr = 0o644 << 16
    return info


def _length(archive: Archive) -> int | None:
    """Bytes of the zip: those of its files, and of a zip of as many empty ones; None where Zip64 adds records."""
    content = sum(entry.size for entry in archive.entries)
    if content >= _ZIP64:
        return None
    sink = _Sink()
    with ZipFile(sink, "w", ZIP_STORED) as out:
        for entry in archive.entries:
            with out.open(_info(archive, entry), "w"):
                pass
    return len(sink.take()) + content
