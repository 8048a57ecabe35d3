"""What can be done with artifacts."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.caller import Caller
from app.artifacts import repository
from app.errors import NotFound
from app.tables import Artifact


async def get(session: AsyncSession, caller: Caller, artifact_id: str) -> Artifact:
    """The caller's artifact. Raises `NotFound`."""
    artifact = await repository.find(session, caller.workspace_id, artifact_id)
    if artifact is None:
        raise NotFound(f"There is no artifact {artifact_id!r} in this workspace.", code="artifact_not_found")
    return artifact
