"""A download that ends whole and verified, or not at all."""

import base64
import hashlib
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from modelpress.errors import ConnectionFailed, IntegrityError
from modelpress.multipart import Progress
from modelpress.requests import Call
from modelpress.session import Session

DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")
RANGE = re.compile(r"bytes (\d+)-")


async def download(
    session: Session, path: str, target: Path, *, sha256: str | None = None, progress: Progress | None = None
) -> Path:
    """Writes the content at `path` under `/v1` to the file `target`.

    The bytes go to a temporary name beside it; a broken connection is resumed with `Range`; the SHA-256 is
    compared with the answer's `Content-Digest` (RFC 9530) and with `sha256`; then the file is renamed at once.

    Raises:
        IntegrityError: the bytes differ from what the service announced; `target` is left as it was.
        ConnectionFailed: the connection broke without any progress more often than the retries allow.
    """
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    transfer = _Transfer(session, path, part, progress)
    try:
        await transfer.run()
        transfer.verify(sha256)
        part.replace(target)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    return target


class _Transfer:
    """One file on its way; holds what is needed to go on after a break."""

    def __init__(self, session: Session, path: str, part: Path, progress: Progress | None) -> None:
        self._session = session
        self._path = path
        self._part = part
        self._report: Callable[[int, int], None] = progress or (lambda done, total: None)
        self._hash = hashlib.sha256()
        self._done = 0
        self._total = 0
        self._etag: str | None = None
        self._announced: str | None = None

    async def run(self) -> None:
        """Fetches everything, over as many connections as it takes."""
        failures = furthest = 0
        self._part.touch(exist_ok=False)
        while True:
            try:
                await self._fetch()
                return
            except httpx.TransportError as error:
                # Only breaks in a row without any progress count.
                failures = 1 if self._done > furthest else failures + 1
                furthest = max(furthest, self._done)
                pause = self._session.retries.pause(failures)
                if pause is None:
                    told = f"download broke off after {self._done} of {self._total} bytes"
                    raise ConnectionFailed(f"{told}: {error or type(error).__name__}") from error
                await self._session.wire.sleep(pause)

    async def _fetch(self) -> None:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if self._done and self._etag:
            headers |= {"Range": f"bytes={self._done}-", "If-Range": self._etag}
        async with self._session.stream(Call("GET", self._path, headers=headers, stream=True)) as response:
            start = RANGE.match(response.headers.get("Content-Range", ""))
            if response.status_code != 206 or start is None or int(start[1]) != self._done:
                self._restart(response)
            with self._part.open("r+b") as file:
                file.seek(self._done)
                file.truncate()
                async for piece in self._session.wire.pieces(response):
                    file.write(piece)
                    self._hash.update(piece)
                    self._done += len(piece)
                    self._report(self._done, self._total)

    def _restart(self, response: httpx.Response) -> None:
        """The whole file comes, for the first time or because it changed or cannot be resumed."""
        self._hash, self._done = hashlib.sha256(), 0
        self._total = int(response.headers.get("Content-Length", "0"))
        self._etag = response.headers.get("ETag")
        # Of a whole answer only: on a 206 the field speaks of the part that was sent.
        found = DIGEST.search(response.headers.get("Content-Digest", ""))
        self._announced = base64.b64decode(found[1]).hex() if found else None

    def verify(self, sha256: str | None) -> None:
        """Compares what arrived with everything that was announced."""
        received = self._hash.hexdigest()
        for source, announced in (("Content-Digest", self._announced), ("its record", sha256)):
            if announced is not None and announced != received:
                raise IntegrityError(f"{self._path}: SHA-256 is {received}, {source} says {announced}")
