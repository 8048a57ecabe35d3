"""SQL of artifacts."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.tables import Artifact
from app.web.fields import is_storable


async def find(session: AsyncSession, workspace_id: str, artifact_id: str) -> Artifact | None:
    """The artifact of this workspace."""
    if not is_storable(artifact_id):
        return None
    statement = select(Artifact).where(Artifact.id == artifact_id, Artifact.workspace_id == workspace_id)
    return (await session.scalars(statement)).one_or_none()
