"""A multipart/form-data body with one file, read from disk piece by piece while it is sent."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import httpx

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""

PIECE = 1 << 20


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that is read while it is sent, on either wire, with the headers that go with it."""

    headers: Mapping[str, str]


class MultipartFile(Body):
    """The body of an upload. It can be iterated again: a retry sends it from the start.

    Fields go before the file, so that the service knows them when the bytes arrive.
    """

    def __init__(self, path: Path, fields: Mapping[str, str], progress: Progress | None = None) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._progress = progress
        boundary = secrets.token_hex(16)
        self._head = b"".join(_part(boundary, name) + value.encode() + b"\r\n" for name, value in fields.items())
        self._head += _part(boundary, "file", path.name)
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._head) + self._size + len(self._tail)),
        }

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        for piece in self._pieces():
            yield piece
            sent = self._report(sent + len(piece))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces, sent = self._pieces(), 0
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece
            sent = self._report(sent + len(piece))

    def _pieces(self) -> Iterator[bytes]:
        yield self._head
        left = self._size
        with self._path.open("rb") as file:
            # Exactly the announced bytes: a file that grows meanwhile must not break the framing.
            while piece := file.read(min(PIECE, left)):
                yield piece
                left -= len(piece)
        yield self._tail

    def _report(self, sent: int) -> int:
        if self._progress is not None:
            self._progress(max(0, min(sent - len(self._head), self._size)), self._size)
        return sent


def _part(boundary: str, name: str, filename: str | None = None) -> bytes:
    disposition = f'form-data; name="{_escaped(name)}"'
    kind = ""
    if filename is not None:
        disposition += f'; filename="{_escaped(filename)}"'
        kind = "\r\nContent-Type: application/octet-stream"
    return f"--{boundary}\r\nContent-Disposition: {disposition}{kind}\r\n\r\n".encode()


def _escaped(text: str) -> str:
    """As browsers do (HTML, multipart/form-data encoding algorithm): quotes and line ends in percent form."""
    encoded = os.fsencode(text).decode(errors="replace")
    return "".join(quote(char) if char in '"\r\n' else char for char in encoded)
