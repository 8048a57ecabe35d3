"""A multipart upload on its way into the store: limits, first bytes, digest. Nothing of it is held in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import Request

from app.config import Settings
from app.errors import InsufficientStorage, Invalid, PayloadTooLarge
from app.storage import ObjectStore, Staged, Stored, StoreFull
from app.uploads.multipart import Event, Field, FileData, FileStart, FormParser, boundary_of
from app.uploads.sniff import HEAD, refuse_code

#: What boundaries and fields may add to the file's size in Content-Length.
_FORM_OVERHEAD = 16 * 1024**2
#: How often the free disk is looked at while bytes arrive.
_LOOK_EVERY = 64 * 1024**2


@dataclass
class Received:
    """A form whose file is staged: publish it, or leave the block and it is gone."""

    staged: Staged
    fields: dict[str, str] = field(default_factory=dict)
    filename: str = ""
    file: Stored = field(default=Stored("", 0))


@asynccontextmanager
async def receive_form(
    request: Request, store: ObjectStore, settings: Settings, workspace_id: str
) -> AsyncIterator[Received]:
    """Reads the whole form of `request`.

    Raises `BadRequest`, `Invalid`, `UnsupportedMedia`, `PayloadTooLarge`, `InsufficientStorage`, and ClientDisconnect.
    """
    parser = FormParser(boundary_of(request.headers.get("content-type", "")))
    room = _Room(store, settings)
    await room.for_request(request)
    async with store.stage(workspace_id) as staged:
        received = Received(staged)
        sink = _Sink(received, room)
        try:
            async for chunk in request.stream():
                for event in parser.feed(chunk):
                    await sink.take(event)
            parser.finish()
            received.file = await staged.finish()
        except StoreFull as error:
            raise _no_room() from error
        sink.end()
        yield received


class _Room:
    """How much more may arrive."""

    def __init__(self, store: ObjectStore, settings: Settings) -> None:
        self._store = store
        self._limit = settings.max_upload_bytes
        self._reserve = settings.min_free_disk_bytes

    async def for_request(self, request: Request) -> None:
        """Refuses by Content-Length what cannot be taken, before the first byte."""
        header = request.headers.get("content-length", "0")
        length = int(header) if header.isdecimal() else 0
        if length > self._limit + _FORM_OVERHEAD:
            raise self._too_large()
        await self._look(length)

    async def for_file(self, size: int, added: int) -> None:
        """The file has reached `size` bytes, of which `added` are new."""
        if size > self._limit:
            raise self._too_large()
        if size // _LOOK_EVERY != (size - added) // _LOOK_EVERY:
            await self._look(0)

    async def _look(self, needed: int) -> None:
        free = await self._store.free_bytes()
        if free is not None and free - needed < self._reserve:
            raise _no_room()

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"An upload may have at most {self._limit} bytes here (MODELPRESS_MAX_UPLOAD_BYTES).")


class _Sink:
    """Puts events where they belong, and looks at the first bytes as soon as they are there."""

    def __init__(self, received: Received, room: _Room) -> None:
        self._received = received
        self._room = room
        self._head = bytearray()
        self._size = 0

    async def take(self, event: Event) -> None:
        """One event of the form."""
        match event:
            case Field(name, value):
                self._received.fields[name] = value
            case FileStart(filename):
                self._received.filename = filename
            case FileData(data):
                self._size += len(data)
                await self._room.for_file(self._size, len(data))
                if len(self._head) < HEAD:
                    self._head += data[: HEAD - len(self._head)]
                    if len(self._head) == HEAD:
                        self._look()
                await self._received.staged.write(data)

    def end(self) -> None:
        """The form is complete."""
        if self._size == 0:
            raise Invalid(f"The file {self._received.filename!r} is empty.", code="empty_file")
        if self._size < HEAD:
            self._look()

    def _look(self) -> None:
        refuse_code(self._received.filename, bytes(self._head))


def _no_room() -> InsufficientStorage:
    return InsufficientStorage("The store has too little free space for this upload; try again when room was made.")
