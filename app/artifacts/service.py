"""What can be done with artifacts."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.caller import Caller
from app.artifacts import bom, repository
from app.artifacts.untrusted import mapping, text
from app.errors import NotFound
from app.models import repository as models
from app.signing import Signer
from app.tables import Artifact


async def get(session: AsyncSession, caller: Caller, artifact_id: str) -> Artifact:
    """The caller's artifact. Raises `NotFound`."""
    artifact = await repository.find(session, caller.workspace_id, artifact_id)
    if artifact is None:
        raise NotFound(f"There is no artifact {artifact_id!r} in this workspace.", code="artifact_not_found")
    return artifact


async def signature(session: AsyncSession, caller: Caller, artifact_id: str, signer: Signer | None) -> dict[str, Any]:
    """The artifact's signature, made now, of the digest that was taken when its bytes were kept. Raises `NotFound`."""
    artifact = await get(session, caller, artifact_id)
    return enabled(signer).sign(artifact.filename, artifact.sha256)


def enabled(signer: Signer | None) -> Signer:
    """The deployment's signer. Raises `NotFound` where it has no key."""
    if signer is None:
        raise NotFound("This deployment signs no artifacts: it has no signing key.", code="signing_disabled")
    return signer


async def bill(session: AsyncSession, caller: Caller, artifact_id: str) -> dict[str, Any]:
    """The artifact's bill of materials. Raises `NotFound`."""
    artifact = await get(session, caller, artifact_id)
    model_id = text(mapping(mapping(artifact.manifest.get("inputs")).get("model")).get("id"))
    model = await models.find(session, caller.workspace_id, model_id)
    figures = await repository.figures_of(session, artifact)
    return bom.bill(artifact, mapping(figures), mapping(model.facts if model else None))
