"""What can be done with workspaces and keys; also what the command line and the embedded mode call."""

from datetime import UTC, datetime

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import repository
from app.accounts.caller import Caller
from app.accounts.keys import make_key
from app.accounts.schemas import NewKeyRequest
from app.errors import Conflict, Forbidden, Invalid, NotFound
from app.tables import Key, Workspace
from app.web.fields import is_storable
from app.web.pagination import PageRequest


async def create_workspace(session: AsyncSession, name: str) -> Workspace:
    """A new workspace. Raises `Conflict` where the name is taken."""
    workspace = await repository.insert_workspace(session, name)
    if workspace is None:
        raise Conflict(f"There is a workspace named {name!r} already.", code="workspace_exists")
    return workspace


async def list_workspaces(
    session: AsyncSession, caller: Caller, page: PageRequest
) -> tuple[list[Workspace], str | None]:
    """All workspaces for an operator, else the caller's own."""
    return await repository.workspaces(session, None if caller.may("operator") else caller.workspace_id, page)


async def create_key(
    session: AsyncSession, pepper: SecretStr, workspace_id: str, request: NewKeyRequest
) -> tuple[Key, str]:
    """A new key and its text, which is kept nowhere. Raises `Invalid`."""
    if request.expires_at is not None and request.expires_at <= datetime.now(UTC):
        detail = "must lie in the future"
        raise Invalid(f"expires_at {detail}", errors=[{"pointer": "/expires_at", "detail": detail}])
    made = make_key(pepper)
    key = Key(
        workspace_id=workspace_id,
        name=request.name,
        role=request.role,
        prefix=made.prefix,
        hash=made.hash,
        expires_at=request.expires_at,
    )
    await repository.insert_key(session, key)
    return key, made.text


async def create_key_for(
    session: AsyncSession, pepper: SecretStr, caller: Caller, request: NewKeyRequest
) -> tuple[Key, str]:
    """A key that `caller` may make. Raises `Forbidden` beyond its role, `NotFound` for an unknown workspace."""
    if not caller.may(request.role):
        raise Forbidden(f"A key with the role {caller.role} cannot make one with {request.role}.", code="role_too_weak")
    workspace_id = request.workspace_id or caller.workspace_id
    known = workspace_id == caller.workspace_id or (
        caller.may("operator") and await repository.workspace_exists(session, workspace_id)
    )
    if not known:
        raise NotFound(f"There is no workspace {workspace_id!r} that you can make keys in.", code="workspace_not_found")
    return await create_key(session, pepper, workspace_id, request)


async def list_keys(session: AsyncSession, caller: Caller, page: PageRequest) -> tuple[list[Key], str | None]:
    """All keys for an operator, else those of the caller's workspace."""
    return await repository.keys(session, None if caller.may("operator") else caller.workspace_id, page)


async def revoke_key(session: AsyncSession, caller: Caller, key_id: str) -> None:
    """Ends a key at once. Raises `NotFound`, and `Forbidden` for a key that is stronger than the caller's."""
    key = await repository.find_key(session, key_id) if is_storable(key_id) else None
    if key is None or not (caller.may("operator") or key.workspace_id == caller.workspace_id):
        raise NotFound(f"There is no key {key_id!r} in this workspace.", code="key_not_found")
    if not caller.may(key.role):
        raise Forbidden(f"A key with the role {caller.role} cannot revoke one with {key.role}.", code="role_too_weak")
    await repository.revoke(session, key_id)
