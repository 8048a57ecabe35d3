"""A file on its way into the store: limits, first bytes, digest. Nothing of it is held in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import Request

from app.errors import Invalid
from app.storage import Staged, Stored, StoreFull
from app.uploads.multipart import Event, Field, FileData, FileStart, FormParser, boundary_of
from app.uploads.room import Room, no_room
from app.uploads.sniff import HEAD, refuse_code
from app.web.services import Services

#: What boundaries and fields may add to the file's size in Content-Length.
_FORM_OVERHEAD = 16 * 1024**2


@dataclass
class Received:
    """A file that is staged, with the fields beside it: publish it, or leave the block and it is gone."""

    staged: Staged
    fields: dict[str, str] = field(default_factory=dict)
    filename: str = ""
    file: Stored = field(default=Stored("", 0))


def least_size(request: Request) -> int:
    """Bytes that the file in the form of `request` has at least, by its Content-Length; 0 where there is none."""
    return max(0, _length(request) - _FORM_OVERHEAD)


@asynccontextmanager
async def receive_form(request: Request, services: Services, workspace_id: str) -> AsyncIterator[Received]:
    """Reads the whole form of `request`.

    Raises `BadRequest`, `Invalid`, `UnsupportedMedia`, `PayloadTooLarge`, `InsufficientStorage`, and ClientDisconnect.
    """
    parser = FormParser(boundary_of(request.headers.get("content-type", "")))

    async def events() -> AsyncIterator[Event]:
        async for chunk in request.stream():
            for event in parser.feed(chunk):
                yield event
        parser.finish()

    async with _receive(services, workspace_id, events(), _length(request), _FORM_OVERHEAD) as received:
        yield received


@asynccontextmanager
async def receive_file(
    services: Services, workspace_id: str, filename: str, size: int, chunks: AsyncIterator[bytes]
) -> AsyncIterator[Received]:
    """Takes a file of `size` bytes that is elsewhere.

    Raises `Invalid`, `UnsupportedMedia`, `PayloadTooLarge`, `InsufficientStorage`, and what `chunks` raises.
    """

    async def events() -> AsyncIterator[Event]:
        yield FileStart(filename)
        async for chunk in chunks:
            yield FileData(chunk)

    async with _receive(services, workspace_id, events(), size) as received:
        yield received


def _length(request: Request) -> int:
    header = request.headers.get("content-length", "0")
    return int(header) if header.isdecimal() else 0


@asynccontextmanager
async def _receive(
    services: Services, workspace_id: str, events: AsyncIterator[Event], length: int, overhead: int = 0
) -> AsyncIterator[Received]:
    room = Room(services.store, services.settings)
    await room.for_length(length, overhead)
    async with services.store.stage(workspace_id) as staged:
        received = Received(staged)
        sink = _Sink(received, room)
        try:
            async for event in events:
                await sink.take(event)
            received.file = await staged.finish()
        except StoreFull as error:
            raise no_room() from error
        sink.end()
        yield received


class _Sink:
    """Puts events where they belong, and looks at the first bytes as soon as they are there."""

    def __init__(self, received: Received, room: Room) -> None:
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
