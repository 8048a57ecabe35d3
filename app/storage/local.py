"""The object store on a local disk: ``ROOT/WORKSPACE/ab/abcdef...``.

Written in `CHUNK` batches, one thread hop each for hash and write, the next batch being received meanwhile: the fastest
of what was tried. Published by an atomic rename after fsync, so a crash leaves whole objects or none.
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from errno import EDQUOT, ENOSPC
from pathlib import Path

from app.storage.base import CHUNK, ObjectMissing, Stored, StoreFull
from app.storage.files import copy_verified

#: How much of an upload is written before it is flushed.
_FLUSH = 8 * CHUNK
#: A staging file that nobody has written to for so long belongs to a process that is gone, in seconds.
_LEFT_S = 24 * 3600
#: Size of the file by which the store is tried, in bytes.
_PROBE = 4096


class LocalStore:
    """An `app.storage.base.ObjectStore`."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)
        self._staging = self._root / ".staging"

    @asynccontextmanager
    async def stage(self, workspace_id: str) -> AsyncIterator["LocalStaged"]:
        """Receives bytes into a private file."""
        staged = await asyncio.to_thread(LocalStaged, self._staging, self._root / workspace_id)
        try:
            yield staged
        finally:
            await staged.close()

    async def size(self, workspace_id: str, sha256: str) -> int:
        """Number of bytes."""
        try:
            return (await asyncio.to_thread(self._path(workspace_id, sha256).stat)).st_size
        except FileNotFoundError as error:
            raise ObjectMissing(sha256) from error

    async def read(
        self, workspace_id: str, sha256: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes of a range."""
        try:
            file = await asyncio.to_thread(self._path(workspace_id, sha256).open, "rb", buffering=0)
        except FileNotFoundError as error:
            raise ObjectMissing(sha256) from error
        with file:
            position = start
            while end is None or position < end:
                wanted = CHUNK if end is None else min(CHUNK, end - position)
                data = await asyncio.to_thread(os.pread, file.fileno(), wanted, position)
                if not data:
                    return
                position += len(data)
                yield data

    async def delete(self, workspace_id: str, sha256: str) -> None:
        """Removes an object."""
        await asyncio.to_thread(self._path(workspace_id, sha256).unlink, missing_ok=True)

    async def signed_url(self, workspace_id: str, sha256: str) -> str | None:
        """None: a local disk has no URLs."""
        return None

    async def free_bytes(self) -> int | None:
        """Room on the disk."""
        return await asyncio.to_thread(self._free)

    async def check(self) -> None:
        """Whether the folder is there, or can be made, and a file in it."""
        await asyncio.to_thread(self._check)

    async def remove_leftovers(self) -> None:
        """Empties the staging folder of what is old."""
        await asyncio.to_thread(self._remove_leftovers)

    async def get_file(self, workspace_id: str, sha256: str, path: Path) -> None:
        """Copies an object out."""
        await copy_verified(self.read(workspace_id, sha256), sha256, path)

    def _path(self, workspace_id: str, sha256: str) -> Path:
        return self._root / workspace_id / sha256[:2] / sha256

    def _free(self) -> int:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return shutil.disk_usage(self._root).free

    def _check(self) -> None:
        self._staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._staging) as file:
            os.posix_fallocate(file.fileno(), 0, _PROBE)  # what a full disk refuses; a write might be taken and lost

    def _remove_leftovers(self) -> None:
        before = time.time() - _LEFT_S
        for path in self._staging.glob("*"):
            with suppress(FileNotFoundError):  # published or removed meanwhile
                if path.stat().st_mtime < before:
                    path.unlink()


class LocalStaged:
    """An `app.storage.base.Staged`: a private file and the digest of what is in it."""

    def __init__(self, staging: Path, workspace: Path) -> None:
        staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=staging)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._path = Path(name)
        self._workspace = workspace
        self._digest = hashlib.sha256()
        self._size = 0
        self._batch: list[bytes] = []
        self._batched = 0
        self._writing: asyncio.Future[None] | None = None
        self._stored: Stored | None = None

    async def write(self, data: bytes) -> None:
        """Takes more bytes; waits only while an earlier batch is being written."""
        self._batch.append(data)
        self._batched += len(data)
        if self._batched >= CHUNK:
            await self._settle()
            batch, self._batch, self._batched = self._batch, [], 0
            self._writing = asyncio.get_running_loop().run_in_executor(None, self._consume, batch)

    async def finish(self) -> Stored:
        """Waits until everything is on the disk."""
        if self._stored is None:
            await self._settle()
            batch, self._batch = self._batch, []
            self._writing = asyncio.get_running_loop().run_in_executor(None, self._complete, batch)
            await self._settle()
            self._stored = Stored(self._digest.hexdigest(), self._size)
        return self._stored

    async def publish(self) -> None:
        """Renames the file to its place."""
        stored = await self.finish()
        await asyncio.to_thread(self._publish, stored.sha256)

    async def close(self) -> None:
        """Ends the writing and removes what was not published."""
        if self._writing is not None:
            # The thread cannot be stopped; let it end before its file is closed.
            await asyncio.wait([self._writing])
            if not self._writing.cancelled():
                self._writing.exception()
        self._file.close()
        self._path.unlink(missing_ok=True)

    async def _settle(self) -> None:
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            self._writing = writing
            raise
        except OSError as error:
            if error.errno in (ENOSPC, EDQUOT):
                raise StoreFull from error
            raise

    def _consume(self, batch: list[bytes]) -> None:
        flushed = self._size // _FLUSH
        view = memoryview(b"".join(batch))
        self._digest.update(view)
        self._size += len(view)
        while view:
            view = view[self._file.write(view) :]
        if self._size // _FLUSH != flushed:
            self._flush()

    def _flush(self) -> None:
        """Has what was written so far on the disk and out of the page cache.

        A large upload would fill the cache with pages that the kernel has to find first and to write back later, all
        at once: 1 GiB took 2.7 s so, and 3 to 5 s without.
        """
        descriptor = self._file.fileno()
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, self._size, os.POSIX_FADV_DONTNEED)

    def _complete(self, batch: list[bytes]) -> None:
        self._consume(batch)
        os.fsync(self._file.fileno())

    def _publish(self, sha256: str) -> None:
        folder = self._workspace / sha256[:2]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.replace(folder / sha256)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
