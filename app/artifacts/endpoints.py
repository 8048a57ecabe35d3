"""``/v1/artifacts``, and the key that they are signed with."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from app.accounts.caller import Reader
from app.accounts.routes import WorkspaceRoute
from app.artifacts import bom, service
from app.artifacts.packages import Layout
from app.artifacts.schemas import ArtifactView, Named, Packages, PackageView, addresses
from app.signing import BUNDLE_TYPE
from app.web.archive import ARCHIVE_RESPONSES, send_archive
from app.web.content import CONTENT_RESPONSES, Content, send
from app.web.problems import responses
from app.web.services import ServicesDep, SessionDep

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"], route_class=WorkspaceRoute)
keys = APIRouter(prefix="/v1/signing-key", tags=["artifacts"], route_class=WorkspaceRoute)


class BundleResponse(JSONResponse):
    """A Sigstore bundle."""

    media_type = BUNDLE_TYPE


class BomResponse(JSONResponse):
    """A bill of materials."""

    media_type = bom.MEDIA_TYPE


class PemResponse(Response):
    """A key as text."""

    media_type = "application/x-pem-file"


@router.get("/{artifact_id}", summary="Show an artifact", responses=responses(404))
async def get_artifact(request: Request, artifact_id: str, caller: Reader, session: SessionDep) -> ArtifactView:
    """What a job made, and where to download it."""
    return ArtifactView.of(await service.get(session, caller, artifact_id), addresses(request))


@router.get("/{artifact_id}/manifest", summary="Show an artifact's provenance", responses=responses(404))
async def artifact_manifest(artifact_id: str, caller: Reader, session: SessionDep) -> dict[str, Any]:
    """Recipe, seeds, digests of model, data and artifact, versions of libraries, hardware."""
    return (await service.get(session, caller, artifact_id)).manifest


@router.get(
    "/{artifact_id}/signature",
    summary="Show an artifact's signature",
    response_class=BundleResponse,
    responses=responses(404),
)
async def artifact_signature(
    artifact_id: str, caller: Reader, session: SessionDep, services: ServicesDep
) -> dict[str, Any]:
    """A Sigstore bundle (OpenSSF Model Signing 1.0) over the file's SHA-256, for ``model_signing verify key``."""
    return await service.signature(session, caller, artifact_id, services.signer)


@router.get(
    "/{artifact_id}/bom",
    summary="Show an artifact's bill of materials",
    response_class=BomResponse,
    responses=responses(404),
)
async def artifact_bom(artifact_id: str, caller: Reader, session: SessionDep) -> dict[str, Any]:
    """CycloneDX 1.6 with a model card: the uploaded model, datasets, recipe, versions, what was measured."""
    return await service.bill(session, caller, artifact_id)


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


@router.get("/{artifact_id}/packages", summary="List an artifact's packages", responses=responses(404))
async def artifact_packages(request: Request, artifact_id: str, caller: Reader, session: SessionDep) -> Packages:
    """The layouts of inference servers, and why this artifact does not fit one."""
    faults = await service.packages(session, caller, artifact_id)
    return Packages(items=[PackageView.of(layout, fault, artifact_id, request) for layout, fault in faults.items()])


@router.head("/{artifact_id}/packages/{layout}", include_in_schema=False)
@router.get(
    "/{artifact_id}/packages/{layout}",
    summary="Download an artifact for an inference server",
    response_class=Response,
    responses=ARCHIVE_RESPONSES,
)
async def artifact_package(
    request: Request,
    artifact_id: str,
    layout: Layout,
    asked: Annotated[Named, Query()],
    caller: Reader,
    session: SessionDep,
    services: ServicesDep,
) -> Any:
    """A zip of the folder that the server reads, with manifest, bill of materials and signature."""
    archive = await service.package(session, services, caller, artifact_id, layout, asked)
    return await send_archive(request, services.store, archive)


@keys.get("", summary="Show the public key of signatures", response_class=PemResponse, responses=responses(404))
async def signing_key(_: Reader, services: ServicesDep) -> Any:
    """PEM of the EC P-256 key that verifies artifacts' signatures."""
    return PemResponse(service.enabled(services.signer).public_key)
