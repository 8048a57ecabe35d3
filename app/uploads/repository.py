"""SQL of blobs, and of the checks of uploads."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage import Stored
from app.tables import DATASETS, Blob, Job
from app.tables.jobs import TERMINAL


async def touch_blob(session: AsyncSession, workspace_id: str, file: Stored) -> None:
    """Makes sure that the blob is known, and fresh in the eyes of the collector."""
    statement = insert(Blob).values(workspace_id=workspace_id, sha256=file.sha256, size_bytes=file.size_bytes)
    fresh = {"touched_at": func.clock_timestamp()}
    await session.execute(statement.on_conflict_do_update(index_elements=[Blob.workspace_id, Blob.sha256], set_=fresh))


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
    """Ends the check of an upload that is being deleted: at once, or by its worker."""
    checks = (
        Job.kind != "compress",
        (Job.model_id == input_id) | (Job.calibration_dataset_id == input_id),
    )
    await session.execute(
        update(Job).where(*checks, Job.state == "queued").values(state="canceled", finished_at=func.clock_timestamp())
    )
    await session.execute(update(Job).where(*checks, Job.state == "running").values(state="canceling"))
