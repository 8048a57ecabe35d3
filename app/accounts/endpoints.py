"""``/v1/workspaces`` and ``/v1/keys``."""

from fastapi import APIRouter

from app.accounts import service
from app.accounts.caller import Admin, Operator, Reader
from app.accounts.routes import WorkspaceRoute
from app.accounts.schemas import (
    KeyRotation,
    KeyView,
    MadeKey,
    NewKeyRequest,
    NewWorkspace,
    WorkspaceChange,
    WorkspaceView,
)
from app.db import after_commit
from app.web.pagination import Page, PageDep
from app.web.problems import responses
from app.web.services import ServicesDep, SessionDep

router = APIRouter(prefix="/v1", tags=["accounts"], route_class=WorkspaceRoute)


@router.post("/workspaces", status_code=201, summary="Make a workspace", responses=responses(409, 413))
async def create_workspace(body: NewWorkspace, caller: Operator, session: SessionDep) -> WorkspaceView:
    """Its objects are seen by its own keys alone."""
    return WorkspaceView.of(await service.create_workspace(session, body.name))


@router.get("/workspaces", summary="List workspaces", responses=responses())
async def list_workspaces(caller: Reader, session: SessionDep, page: PageDep) -> Page[WorkspaceView]:
    """All of them for an operator; else one's own."""
    rows, next_cursor = await service.list_workspaces(session, caller, page)
    return Page(items=[WorkspaceView.of(row) for row in rows], next_cursor=next_cursor)


@router.patch("/workspaces/{workspace_id}", summary="Change a workspace", responses=responses(404, 413))
async def change_workspace(
    workspace_id: str, body: WorkspaceChange, caller: Operator, session: SessionDep
) -> WorkspaceView:
    """Sets its quotas; what is absent stays."""
    return WorkspaceView.of(await service.change_workspace(session, workspace_id, body))


@router.post("/keys", status_code=201, summary="Make a key", responses=responses(404, 409, 413))
async def create_key(body: NewKeyRequest, caller: Admin, session: SessionDep, services: ServicesDep) -> MadeKey:
    """The key is shown this once; of it only a hash is stored."""
    key, text = await service.create_key_for(session, services.settings.key_pepper, caller, body)
    return MadeKey(**KeyView.of(key).model_dump(), key=text)


@router.get("/keys", summary="List keys", responses=responses())
async def list_keys(caller: Admin, session: SessionDep, page: PageDep) -> Page[KeyView]:
    """Of one's workspace; of all for an operator."""
    rows, next_cursor = await service.list_keys(session, caller, page)
    return Page(items=[KeyView.of(row) for row in rows], next_cursor=next_cursor)


@router.delete("/keys/{key_id}", status_code=204, summary="Revoke a key", responses=responses(404, 409))
async def revoke_key(key_id: str, caller: Admin, session: SessionDep, services: ServicesDep) -> None:
    """It works no more from now on; in other API processes, within seconds."""
    await service.revoke_key(session, caller, key_id)
    after_commit(session, services.proofs.forgetting(key_id))


@router.post("/keys/{key_id}:rotate", status_code=201, summary="Replace a key", responses=responses(404, 409, 413))
async def rotate_key(
    key_id: str, caller: Admin, session: SessionDep, services: ServicesDep, body: KeyRotation | None = None
) -> MadeKey:
    """A new key of the same name and role, shown this once; the old one works for `overlap_s` more."""
    rotation = body or KeyRotation()
    key, text = await service.rotate_key(session, services.settings.key_pepper, caller, key_id, rotation)
    after_commit(session, services.proofs.forgetting(key_id))
    return MadeKey(**KeyView.of(key).model_dump(), key=text)
