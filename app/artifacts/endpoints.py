"""``/v1/artifacts``."""

from typing import Any

from fastapi import APIRouter, Request, Response

from app.accounts.caller import Reader
from app.accounts.routes import WorkspaceRoute
from app.artifacts import service
from app.artifacts.schemas import ArtifactView
from app.web.content import CONTENT_RESPONSES, Content, send
from app.web.problems import responses
from app.web.services import ServicesDep, SessionDep

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"], route_class=WorkspaceRoute)


@router.get("/{artifact_id}", summary="Show an artifact", responses=responses(404))
async def get_artifact(request: Request, artifact_id: str, caller: Reader, session: SessionDep) -> ArtifactView:
    """What a job made, and where to download it."""
    return ArtifactView.of(await service.get(session, caller, artifact_id), request)


@router.get("/{artifact_id}/manifest", summary="Show an artifact's provenance", responses=responses(404))
async def artifact_manifest(artifact_id: str, caller: Reader, session: SessionDep) -> dict[str, Any]:
    """Recipe, seeds, digests of model, data and artifact, versions of libraries, hardware."""
    return (await service.get(session, caller, artifact_id)).manifest


@router.head("/{artifact_id}/content", include_in_schema=False)
@router.get(
    "/{artifact_id}/content", summary="Download an artifact", response_class=Response, responses=CONTENT_RESPONSES
)
async def artifact_content(
    request: Request, artifact_id: str, caller: Reader, session: SessionDep, services: ServicesDep
) -> Any:
    """The file, whole or in ranges."""
    artifact = await service.get(session, caller, artifact_id)
    content = Content(artifact.workspace_id, artifact.sha256, artifact.size_bytes, artifact.filename)
    return await send(request, services.store, content)
