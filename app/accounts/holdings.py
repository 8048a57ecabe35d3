"""SQL of what a workspace holds now: bytes, jobs, uploads on their way."""

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import func, select, union
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import NOW
from app.db import delete_some
from app.storage import Stored
from app.tables import Artifact, Checkpoint, Dataset, Job, Model, ResumableUpload, UploadPart, UploadSlot
from app.tables.jobs import TERMINAL

#: What refers to bytes in the store.
HOLDERS = (Model, Dataset, Artifact, Checkpoint, ResumableUpload, UploadPart)


async def stored_bytes(session: AsyncSession, workspace_id: str, coming: Stored | None = None) -> int:
    """Bytes of all that refers to the store, the same bytes once; with what is `coming`."""
    held = [
        select(table.sha256, table.size_bytes).where(table.workspace_id == workspace_id, table.sha256.is_not(None))
        for table in HOLDERS
    ]
    each = union(*held).subquery()
    statement = select(func.coalesce(func.sum(each.c.size_bytes), 0))
    total = int(await session.scalar(statement) or 0)
    if coming is None or await session.scalar(select(each.c.sha256).where(each.c.sha256 == coming.sha256).limit(1)):
        return total
    return total + coming.size_bytes


async def announced_bytes(session: AsyncSession, workspace_id: str) -> int:
    """Bytes that resumable uploads were announced with and that have not arrived."""
    missing = func.sum(ResumableUpload.size_bytes - ResumableUpload.received_bytes)
    statement = select(func.coalesce(missing, 0)).where(
        ResumableUpload.workspace_id == workspace_id, ResumableUpload.expires_at > NOW
    )
    return int(await session.scalar(statement) or 0)


async def jobs_in_work(session: AsyncSession, workspace_id: str) -> Mapping[str, int]:
    """State -> number of the compression jobs that are not over."""
    statement = select(Job.state, func.count()).where(
        Job.workspace_id == workspace_id, Job.kind == "compress", Job.state.not_in(TERMINAL)
    )
    return {state: int(number) for state, number in await session.execute(statement.group_by(Job.state))}


async def uploads_on_their_way(session: AsyncSession, workspace_id: str) -> int:
    """Uploads that are being received."""
    statement = select(func.count()).where(UploadSlot.workspace_id == workspace_id, UploadSlot.expires_at > NOW)
    return int(await session.scalar(statement) or 0)


async def take_slot(session: AsyncSession, workspace_id: str, lease: timedelta) -> str:
    """Notes that an upload begins; the id of its slot."""
    slot = UploadSlot(workspace_id=workspace_id, expires_at=NOW + lease)
    session.add(slot)
    await session.flush()
    return slot.id


async def forget_lost_slots(session: AsyncSession) -> None:
    """Removes slots of processes that died, some at a time; for the maintenance loop."""
    await session.execute(delete_some(UploadSlot, UploadSlot.expires_at < NOW))
