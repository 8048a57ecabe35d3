"""SQL of artifacts."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.tables import Artifact, Metric
from app.web.fields import is_storable


async def find(session: AsyncSession, workspace_id: str, artifact_id: str) -> Artifact | None:
    """The artifact of this workspace."""
    if not is_storable(artifact_id):
        return None
    statement = select(Artifact).where(Artifact.id == artifact_id, Artifact.workspace_id == workspace_id)
    return (await session.scalars(statement)).one_or_none()


async def figures_of(session: AsyncSession, artifact: Artifact) -> Any:
    """What was measured of the artifact, as its job reported it; None where nothing was."""
    statement = select(Metric.value).where(
        Metric.job_id == artifact.job_id, Metric.name == "artifacts", Metric.target == artifact.target
    )
    return await session.scalar(statement)
