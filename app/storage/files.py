"""Between the object store and local files, for workers."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from app.storage.base import CHUNK, Staged, Stored


async def copy_verified(chunks: AsyncIterator[bytes], sha256: str, path: Path) -> None:
    """Writes `chunks` to `path`. Raises OSError where they do not have the digest `sha256`."""
    digest = hashlib.sha256()
    with await asyncio.to_thread(path.open, "wb") as file:

        def consume(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        async for chunk in chunks:
            await asyncio.to_thread(consume, chunk)
    if digest.hexdigest() != sha256:
        await asyncio.to_thread(path.unlink)
        raise OSError(f"the store returned other bytes than {sha256}")


async def send_file(path: Path, staged: Staged) -> Stored:
    """Writes the file at `path` to `staged` and finishes it; publishing is left to the caller."""
    with await asyncio.to_thread(path.open, "rb") as file:
        while data := await asyncio.to_thread(file.read, CHUNK):
            await staged.write(data)
    return await staged.finish()
