"""What a workspace may hold: the deployment's limits, or its own in their place.

Each check takes a lock on the workspace where there is a limit, and looks at what is there after the new row was added:
of two clients at the last place, one waits for the other's transaction and then sees what that made.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import holdings, repository
from app.accounts.renewal import renewed
from app.clock import NOW
from app.config import Settings
from app.errors import Forbidden, TooManyRequests
from app.storage import Stored
from app.tables import UploadSlot, Workspace
from app.web.services import Services

#: An upload's slot is free again so long after its process died.
SLOT_LEASE = timedelta(seconds=60)
#: When to ask again for a place that others hold, in seconds.
_RETRY_JOBS, _RETRY_UPLOADS = "15", "5"


@dataclass(frozen=True)
class Quotas:
    """Limits that hold for a workspace; 0: none."""

    stored_bytes: int
    jobs: int
    uploads: int

    @classmethod
    def of(cls, workspace: Workspace, settings: Settings) -> "Quotas":
        """The workspace's own limits, else the deployment's."""
        own = (workspace.quota_stored_bytes, workspace.quota_jobs, workspace.quota_uploads)
        common = (settings.quota_stored_bytes, settings.quota_jobs, settings.quota_uploads)
        return cls(*(ours if ours is not None else theirs for ours, theirs in zip(own, common, strict=True)))


async def quotas_of(session: AsyncSession, settings: Settings, workspace_id: str, *, lock: bool = False) -> Quotas:
    """The limits of a workspace; `lock`: until the transaction ends, nobody else who locks gets past here."""
    workspace = await repository.find_workspace(session, workspace_id, lock=lock)
    if workspace is None:
        raise RuntimeError(f"there is no workspace {workspace_id}")
    return Quotas.of(workspace, settings)


async def refuse_bytes(session: AsyncSession, settings: Settings, workspace_id: str, coming: Stored) -> None:
    """Before bytes are kept: raises `Forbidden` (``storage_quota_exceeded``) where there is no room for them."""
    limit = (await quotas_of(session, settings, workspace_id)).stored_bytes
    if limit and await holdings.stored_bytes(session, workspace_id, coming) > limit:
        raise _full(limit)


async def hold_announced(session: AsyncSession, settings: Settings, workspace_id: str, size: int = 0) -> None:
    """Before the first of `size` bytes, or after an upload was announced: raises `Forbidden` where they have no room.

    Beside what is kept counts what resumable uploads have announced and not brought. No digest is known yet, so bytes
    that the workspace has already are taken for new ones.
    """
    limit = await _locked_limit(session, settings, workspace_id)
    if not limit:
        return
    coming = size + await holdings.announced_bytes(session, workspace_id)
    if await holdings.stored_bytes(session, workspace_id) + coming > limit:
        raise _full(limit)


async def hold_bytes(session: AsyncSession, settings: Settings, workspace_id: str) -> None:
    """After what keeps bytes was added: raises `Forbidden` where the workspace has more than it may."""
    limit = await _locked_limit(session, settings, workspace_id)
    if limit and await holdings.stored_bytes(session, workspace_id) > limit:
        raise _full(limit)


async def hold_job(session: AsyncSession, settings: Settings, workspace_id: str) -> None:
    """After a job was queued: raises where the workspace has too many, or has no room for what it will make.

    Raises:
        TooManyRequests: ``quota_exceeded``; a place is free when a job is over.
        Forbidden: ``storage_quota_exceeded``.
    """
    quotas = await quotas_of(session, settings, workspace_id)
    # What the job makes is kept in any case: hours of work are not thrown away for a limit that was passed meanwhile.
    if quotas.stored_bytes and await holdings.stored_bytes(session, workspace_id) >= quotas.stored_bytes:
        raise _full(quotas.stored_bytes)
    if not quotas.jobs:
        return
    limit = (await quotas_of(session, settings, workspace_id, lock=True)).jobs
    if limit and sum((await holdings.jobs_in_work(session, workspace_id)).values()) > limit:
        raise TooManyRequests(
            f"This workspace may have {limit} jobs queued or running; wait for the end of one, or cancel it.",
            code="quota_exceeded",
            headers={"Retry-After": _RETRY_JOBS},
        )


@asynccontextmanager
async def upload_slot(services: Services, workspace_id: str) -> AsyncIterator[None]:
    """Counts an upload while the block runs. Raises `TooManyRequests` (``quota_exceeded``) where none may begin."""
    async with services.database.transaction() as session:
        slot_id = await holdings.take_slot(session, workspace_id, SLOT_LEASE)
        if (await quotas_of(session, services.settings, workspace_id)).uploads:
            limit = (await quotas_of(session, services.settings, workspace_id, lock=True)).uploads
            if limit and await holdings.uploads_on_their_way(session, workspace_id) > limit:
                raise TooManyRequests(
                    f"This workspace may send {limit} uploads at the same time; wait for the end of one.",
                    code="quota_exceeded",
                    headers={"Retry-After": _RETRY_UPLOADS},
                )
    mine = UploadSlot.id == slot_id
    longer = update(UploadSlot).where(mine).values(expires_at=NOW + SLOT_LEASE)
    async with renewed(services.database, longer, delete(UploadSlot).where(mine), SLOT_LEASE.total_seconds() / 3):
        yield


async def _locked_limit(session: AsyncSession, settings: Settings, workspace_id: str) -> int:
    """Bytes that the workspace may keep, which is locked then; 0: no limit, and no lock."""
    if not (await quotas_of(session, settings, workspace_id)).stored_bytes:
        return 0
    return (await quotas_of(session, settings, workspace_id, lock=True)).stored_bytes


def _full(limit: int) -> Forbidden:
    return Forbidden(
        f"This workspace may keep {limit} bytes; delete models, datasets or jobs with their artifacts, give up "
        "resumable uploads, or ask the operator for more.",
        code="storage_quota_exceeded",
    )
