"""SQL of what a job leaves behind: artifacts, metrics, checkpoints, and the facts of a checked upload."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.clean import clean
from app.jobs.inputs import dataset_of_check
from app.jobs.outcomes import NewArtifact, NewCheckpoint
from app.storage import Stored
from app.tables import Artifact, Checkpoint, Dataset, Job, Metric, Model
from app.tables.base import Json
from app.uploads.repository import touch_blob

#: Metrics that are kept per target; the others belong to the whole job.
PER_TARGET = ("baseline", "artifacts")


async def replace_results(
    session: AsyncSession, job: Job, artifacts: Sequence[NewArtifact], metrics: Mapping[str, Any]
) -> None:
    """Records what this attempt made, in place of what an earlier one left."""
    await session.execute(delete(Artifact).where(Artifact.job_id == job.id))
    await session.execute(delete(Metric).where(Metric.job_id == job.id))
    for made in artifacts:
        await touch_blob(session, job.workspace_id, Stored(made.sha256, made.size_bytes))
        session.add(
            Artifact(
                workspace_id=job.workspace_id,
                job_id=job.id,
                target=made.target,
                format=made.format,
                filename=made.filename,
                size_bytes=made.size_bytes,
                sha256=made.sha256,
                manifest=clean(dict(made.manifest)),
            )
        )
    for name, value in metrics.items():
        parts = value.items() if name in PER_TARGET else [("", value)]
        for target, part in parts:
            session.add(Metric(job_id=job.id, name=clean(name), target=clean(target), value=clean(part)))
    await session.flush()


async def add_checkpoint(session: AsyncSession, job: Job, checkpoint: NewCheckpoint) -> None:
    """Records a checkpoint and drops the ones before it: a new attempt continues from the last one."""
    last = await session.scalar(select(func.max(Checkpoint.number)).where(Checkpoint.job_id == job.id))
    await drop_checkpoints(session, job.id)
    await touch_blob(session, job.workspace_id, Stored(checkpoint.sha256, checkpoint.size_bytes))
    session.add(
        Checkpoint(
            job_id=job.id,
            number=(last or 0) + 1,
            workspace_id=job.workspace_id,
            attempt=job.attempt,
            label=clean(checkpoint.label),
            size_bytes=checkpoint.size_bytes,
            sha256=checkpoint.sha256,
        )
    )
    await session.flush()


async def drop_checkpoints(session: AsyncSession, job_id: str) -> None:
    """Forgets every checkpoint of a job."""
    await session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id))


async def latest_checkpoint(session: AsyncSession, job_id: str) -> Checkpoint | None:
    """The checkpoint from which a new attempt continues."""
    statement = select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.number.desc()).limit(1)
    return (await session.scalars(statement)).one_or_none()


async def accept_upload(session: AsyncSession, job: Job, facts: Json) -> str:
    """Marks the file that `job` checked as ready, with what it is. Returns its id."""
    facts = clean(facts)
    if job.kind == "check_model":
        found = {"state": "ready", "facts": facts, "format": facts["format"], "error": None}
        await session.execute(update(Model).where(Model.id == job.model_id).values(**found))
        return str(job.model_id)
    dataset_id = dataset_of_check(job)
    found = {"state": "ready", "facts": facts, "error": None}
    await session.execute(update(Dataset).where(Dataset.id == dataset_id).values(**found))
    return dataset_id
