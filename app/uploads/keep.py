"""How a worker's own files get into the store, beside what is uploaded."""

from pathlib import Path

from app.db import Database
from app.storage import ObjectStore, Stored, send_file
from app.uploads import repository


async def keep_file(database: Database, store: ObjectStore, workspace_id: str, path: Path) -> Stored:
    """Stores the file at `path` under a fresh blob.

    The blob is committed before the bytes are published, as for uploads: the collector leaves fresh ones alone, and
    has let go of the same bytes, should it just be removing them, once the row is ours.

    Raises:
        StoreFull: there is no room.
        OSError: the store cannot be used now.
    """
    async with store.stage(workspace_id) as staged:
        stored = await send_file(path, staged)
        async with database.transaction() as session:
            await repository.touch_blob(session, workspace_id, stored)
        await staged.publish()
        return stored
