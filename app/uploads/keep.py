"""How bytes that were received become blobs: those of uploads, and a worker's own files."""

from pathlib import Path

from app.db import Database
from app.storage import ObjectStore, Staged, Stored, send_file
from app.uploads import repository


async def publish(database: Database, staged: Staged, workspace_id: str) -> Stored:
    """Finishes `staged` and publishes it under a fresh blob.

    The blob is committed before the bytes are published: the collector leaves fresh ones alone, and has let go of the
    same bytes, should it just be removing them, once the row is ours. Should whatever is to refer to the blob never be
    stored, the collector finds and removes it.

    Raises:
        StoreFull: there is no room.
        OSError: the store cannot be used now.
    """
    stored = await staged.finish()
    async with database.transaction() as session:
        await repository.touch_blob(session, workspace_id, stored)
    await staged.publish()
    return stored


async def keep_file(database: Database, store: ObjectStore, workspace_id: str, path: Path) -> Stored:
    """Stores the file at `path`. Raises as `publish` does."""
    async with store.stage(workspace_id) as staged:
        await send_file(path, staged)
        return await publish(database, staged, workspace_id)
