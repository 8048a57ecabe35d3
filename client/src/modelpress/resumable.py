"""Uploads in chunks (tus 1.0) that go on where they were: after a broken connection, and after the process has died."""

import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, TypeVar

import httpx

from modelpress.errors import ConnectionFailed, IntegrityError, ModelpressError, ProblemError, ProtocolError
from modelpress.memory import Remembered, remembered
from modelpress.multipart import PIECE, Body, Progress
from modelpress.requests import Call, segment
from modelpress.retries import transient
from modelpress.session import Session

T = TypeVar("T")

CHUNK: Final = 16 << 20
TUS: Final = {"Tus-Resumable": "1.0.0"}
GONE: Final = (404, 410)
#: Refusals after which the service is asked how far the upload has come: another offset, a checksum that differs.
OUT_OF_STEP: Final = (409, 460)


@dataclass(frozen=True, slots=True)
class UploadState:
    """How far a resumable upload has come."""

    id: str
    offset: int
    size_bytes: int
    expires_at: datetime | None = None

    @property
    def complete(self) -> bool:
        """All bytes are there: a model or dataset can be made of it."""
        return self.offset == self.size_bytes


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What the service takes: bytes of one upload, and hashes of chunks."""

    max_size_bytes: int | None
    checksums: tuple[str, ...]
    extensions: tuple[str, ...]


class Chunk(Body):
    """The body of one PATCH; tells how far the file is while it is sent."""

    def __init__(self, data: bytes, offset: int, total: int, progress: Progress | None) -> None:
        self._data, self._offset, self._total, self._progress = data, offset, total, progress
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        self.headers = {
            **TUS,
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(len(data)),
            "Upload-Offset": str(offset),
            # What a broken network card or proxy changes on its way is noticed at once, and sent again.
            "Upload-Checksum": f"sha256 {checksum}",
        }

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), PIECE):
            yield self._data[start : start + PIECE]
            if self._progress is not None:
                self._progress(self._offset + min(start + PIECE, len(self._data)), self._total)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


class AsyncUploads:
    """`/v1/uploads`: bytes on their way to become a model or dataset."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def limits(self) -> UploadLimits:
        """What the service takes."""
        headers = (await self._session.respond(Call("OPTIONS", "uploads", headers=TUS))).headers
        size = headers.get("Tus-Max-Size", "")
        checksums, extensions = (
            tuple(filter(None, headers.get(name, "").split(",")))
            for name in ("Tus-Checksum-Algorithm", "Tus-Extension")
        )
        return UploadLimits(int(size) if size.isdigit() else None, checksums, extensions)

    async def get(self, id: str) -> UploadState:
        """How far it has come; `NotFound` where there is none such, `ProblemError` (410) where it has expired."""
        call = Call("HEAD", f"uploads/{segment(id)}", headers=TUS)
        return _state(id, (await self._session.respond(call)).headers)

    async def delete(self, id: str) -> None:
        """Gives it up."""
        await self._session.respond(Call("DELETE", f"uploads/{segment(id)}", headers=TUS))

    async def send(
        self, path: Path | str, *, upload_id: str | None = None, progress: Progress | None = None
    ) -> UploadState:
        """Sends a file, or the rest of it.

        A broken connection is gone on from where the service is. Where the process died, the same call in a new one
        goes on too: a small file in the user's cache folder remembers the upload until it is complete. Two processes
        that send the same file at once each make an upload of their own.

        Args:
            path: the file.
            upload_id: an upload of this very file to go on with, instead of the remembered one.
            progress: called with the bytes done and in all.

        Raises:
            IntegrityError: `upload_id` is of a file of another size.
            ConnectionFailed: the connection broke without any progress more often than the retries allow.
        """

        async def answer(state: UploadState) -> UploadState:
            return state

        return await self._use(Path(path), answer, upload_id=upload_id, progress=progress)

    async def _use(
        self,
        file: Path,
        use: Callable[[UploadState], Awaitable[T]],
        *,
        upload_id: str | None = None,
        progress: Progress | None = None,
    ) -> T:
        """As `send`, but the upload is remembered until `use` has made something of it."""
        with remembered(self._session.url, file) as memory:
            state = await (self._begin(file, memory) if upload_id is None else self._given(upload_id, file))
            return await use(await self._send_rest(file, state, progress))

    async def _given(self, id: str, file: Path) -> UploadState:
        state, size = await self.get(id), _size(file)
        if state.size_bytes != size:
            raise IntegrityError(f"upload {id} is of a file of {state.size_bytes} bytes; {file.name} has {size}")
        return state

    async def _begin(self, file: Path, memory: Remembered) -> UploadState:
        size = _size(file)
        if memory.upload_id is not None:
            with suppress(ProblemError):
                state = await self.get(memory.upload_id)
                if state.size_bytes == size:
                    return state
        name = base64.b64encode(file.name.encode(errors="replace")).decode()
        headers = {**TUS, "Upload-Length": str(size), "Upload-Metadata": f"filename {name}"}
        answer = await self._session.respond(Call("POST", "uploads", headers=headers))
        id = answer.headers.get("Location", "").rpartition("/")[2]
        if not id:
            raise ProtocolError("POST uploads: the answer has no Location")
        memory.keep(id)
        return UploadState(id, 0, size)

    async def _send_rest(self, file: Path, state: UploadState, progress: Progress | None) -> UploadState:
        failures = 0
        while not state.complete:
            body = await self._session.wire.offload(_chunk, file, state, progress)
            call = Call("PATCH", f"uploads/{segment(state.id)}", upload=body, once=True)
            try:
                answer = await self._session.respond(call)
                state, failures = _state(state.id, answer.headers, state.size_bytes), 0
            except (ConnectionFailed, ProblemError) as error:
                before = state.offset
                failures += 1
                await self._rest(error, failures)
                state = await self.get(state.id)
                failures = 0 if state.offset > before else failures
        if progress is not None:
            progress(state.size_bytes, state.size_bytes)
        return state

    async def _rest(self, error: ModelpressError, failures: int) -> None:
        """Waits before the next attempt; raises where none would help."""
        wait_s = None
        if isinstance(error, ProblemError):
            if not transient(error) and error.status not in OUT_OF_STEP:
                raise error
            wait_s = error.retry_after_s
        pause = self._session.retries.pause(failures, wait_s)
        if pause is None:
            raise error
        await self._session.wire.sleep(pause)


def _chunk(file: Path, state: UploadState, progress: Progress | None) -> Chunk:
    with file.open("rb") as opened:
        opened.seek(state.offset)
        data = opened.read(min(CHUNK, state.size_bytes - state.offset))
    if not data:
        raise IntegrityError(f"{file.name} has become shorter while it was sent")
    return Chunk(data, state.offset, state.size_bytes, progress)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _size(file: Path) -> int:
    return file.stat().st_size


def _state(id: str, headers: httpx.Headers, size: int | None = None) -> UploadState:
    expires = headers.get("Upload-Expires")
    try:
        length = int(headers["Upload-Length"]) if size is None else size
        ends = None if expires is None else parsedate_to_datetime(expires)
        return UploadState(id, int(headers["Upload-Offset"]), length, ends)
    except (KeyError, ValueError) as error:
        raise ProtocolError(f"upload {id}: the answer does not say how far it has come: {error}") from error
