"""What webhooks are told of a job that ended. It is stored in the transaction in which the job ends."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import repository
from app.tables import Artifact, Job
from app.tables.base import Json
from app.webhooks import outbox


async def tell_end(session: AsyncSession, job: Job, now: datetime) -> None:
    """Tells whoever listens in the job's workspace. `job` ended at the time `now`, with results and error recorded."""
    event = f"job.{job.state}"
    listening = await outbox.listening(session, job.workspace_id, event)
    if listening:
        artifacts = (await repository.artifacts_of(session, [job.id])).get(job.id, [])
        await outbox.put(session, listening, event, now, _data(job, artifacts))


def _data(job: Job, artifacts: list[Artifact]) -> Json:
    """Kept small: whoever wants metrics asks for the job."""
    return {
        "id": job.id,
        "state": job.state,
        "name": job.name,
        "tags": job.tags,
        "model_id": job.model_id,
        "attempt": job.attempt,
        "error": job.error,
        "gate": job.gate,
        "artifacts": [
            {"id": row.id, "target": row.target, "size_bytes": row.size_bytes, "sha256": row.sha256}
            for row in artifacts
        ],
    }
