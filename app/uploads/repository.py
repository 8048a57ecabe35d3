"""SQL of blobs, of resumable uploads, and of the checks of uploads."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Update, delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import NOW
from app.db import among, delete_some
from app.storage import Stored
from app.tables import DATASETS, Blob, Job, ResumableUpload, UploadPart
from app.tables.jobs import TERMINAL


async def touch_blob(session: AsyncSession, workspace_id: str, file: Stored) -> None:
    """Makes sure that the blob is known, and fresh in the eyes of the collector."""
    statement = insert(Blob).values(workspace_id=workspace_id, sha256=file.sha256, size_bytes=file.size_bytes)
    fresh = {"touched_at": NOW}
    await session.execute(statement.on_conflict_do_update(index_elements=[Blob.workspace_id, Blob.sha256], set_=fresh))


def touch_blobs(workspace_id: str, digests: Sequence[str]) -> Update:
    """Makes these blobs fresh in the eyes of the collector; in one order, so that two who do so cannot lock up."""
    named = select(Blob.sha256).where(Blob.workspace_id == workspace_id, among(Blob.sha256, digests))
    named = named.order_by(Blob.sha256).with_for_update(key_share=True)
    touched = update(Blob).where(Blob.workspace_id == workspace_id, Blob.sha256.in_(named))
    return touched.values(touched_at=NOW).execution_options(synchronize_session=False)


async def insert_check(session: AsyncSession, check: Job) -> None:
    """Queues the check of an upload."""
    session.add(check)
    await session.flush()


def uses(input_id: str) -> ColumnElement[bool]:
    """The job reads this model or dataset."""
    named = Job.step_model_ids.contains([input_id])
    return or_(Job.model_id == input_id, named, *(column == input_id for column in DATASETS.values()))


async def jobs_in_work(session: AsyncSession, input_id: str) -> Sequence[str]:
    """Ids of the compression jobs that are not over and read this model or dataset."""
    statement = select(Job.id).where(Job.kind == "compress", Job.state.not_in(TERMINAL), uses(input_id))
    return (await session.scalars(statement.order_by(Job.id))).all()


async def cancel_checks(session: AsyncSession, input_id: str) -> None:
    """Ends the check of an upload that is being deleted: at once, or by its worker.

    The states are those of a cancel in the table of `app.jobs.states`, which lies above; there is nothing to be told.
    """
    checks = (
        Job.kind != "compress",
        (Job.model_id == input_id) | (Job.calibration_dataset_id == input_id),
    )
    await session.execute(update(Job).where(*checks, Job.state == "queued").values(state="canceled", finished_at=NOW))
    await session.execute(update(Job).where(*checks, Job.state == "running").values(state="canceling"))


async def insert_upload(session: AsyncSession, ttl: timedelta, **values: Any) -> ResumableUpload:
    """A new resumable upload that expires after `ttl`."""
    statement = insert(ResumableUpload).values(expires_at=NOW + ttl, **values)
    return (await session.scalars(statement.returning(ResumableUpload))).one()


async def find_upload(session: AsyncSession, workspace_id: str, upload_id: str) -> tuple[ResumableUpload, bool] | None:
    """The upload of this workspace, and whether its time is over."""
    statement = select(ResumableUpload, ResumableUpload.expires_at < NOW)
    statement = statement.where(ResumableUpload.id == upload_id, ResumableUpload.workspace_id == workspace_id)
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else (row[0], row[1])


async def advance_upload(session: AsyncSession, part: UploadPart, ttl: timedelta) -> bool:
    """Adds `part`, which begins where the upload is. False: it is elsewhere by now, or gone."""
    here = _mine(part.upload_id).where(ResumableUpload.received_bytes == part.start)
    values = {"received_bytes": part.start + part.size_bytes, "expires_at": NOW + ttl}
    moved = await session.scalar(here.values(values).returning(ResumableUpload.id))
    if moved is not None:
        session.add(part)
        await session.flush()
    return moved is not None


def prolong_upload(upload_id: str, ttl: timedelta) -> Update:
    """The upload expires `ttl` from now, unless it has expired: its room may be taken by others then."""
    return _mine(upload_id).where(ResumableUpload.expires_at > NOW).values(expires_at=NOW + ttl)


async def lock_upload(session: AsyncSession, upload_id: str) -> ResumableUpload | None:
    """The upload as it is now, which stays so until the transaction ends; None where it is gone."""
    return await session.get(ResumableUpload, upload_id, with_for_update=True)


async def part_digests(session: AsyncSession, upload_id: str) -> Sequence[str]:
    """Digests of the parts, in order."""
    statement = select(UploadPart.sha256).where(UploadPart.upload_id == upload_id).order_by(UploadPart.start)
    return (await session.scalars(statement)).all()


async def complete_upload(session: AsyncSession, upload_id: str, sha256: str) -> None:
    """The parts were put together: the upload is one blob now."""
    await session.execute(_mine(upload_id).values(sha256=sha256))
    await session.execute(delete(UploadPart).where(UploadPart.upload_id == upload_id))


async def delete_upload(session: AsyncSession, upload_id: str) -> None:
    """Forgets an upload and its parts."""
    await session.execute(delete(ResumableUpload).where(ResumableUpload.id == upload_id))


async def forget_expired_uploads(session: AsyncSession) -> None:
    """Removes uploads past their time, some at a time; for the maintenance loop."""
    await session.execute(delete_some(ResumableUpload, ResumableUpload.expires_at < NOW))


def _mine(upload_id: str) -> Update:
    return update(ResumableUpload).where(ResumableUpload.id == upload_id).execution_options(synchronize_session=False)
