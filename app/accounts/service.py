"""What can be done with workspaces and keys; also what the command line and the embedded mode call."""

from datetime import UTC, datetime

from pydantic import SecretStr, TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import repository
from app.accounts.credentials import Caller
from app.accounts.keys import make_key
from app.accounts.schemas import KeyRotation, NewKeyRequest, WorkspaceChange
from app.config import RoleName
from app.errors import Conflict, Forbidden, Invalid, NotFound
from app.tables import Key, Workspace
from app.web.fields import is_storable
from app.web.pagination import PageRequest

RoleOf: TypeAdapter[RoleName] = TypeAdapter(RoleName)


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


async def change_workspace(session: AsyncSession, workspace_id: str, change: WorkspaceChange) -> Workspace:
    """Sets what is to change. Raises `NotFound`."""
    storable = is_storable(workspace_id)
    workspace = await repository.find_workspace(session, workspace_id, lock=True) if storable else None
    if workspace is None:
        raise NotFound(f"There is no workspace {workspace_id!r}.", code="workspace_not_found")
    for column, value in change.columns().items():
        setattr(workspace, column, value)
    await session.flush()
    return workspace


async def workspace_name(session: AsyncSession, workspace_id: str) -> str:
    """What people call the workspace; its id once it is gone."""
    workspace = await repository.find_workspace(session, workspace_id)
    return workspace.name if workspace is not None else workspace_id


async def sees(session: AsyncSession, caller: Caller, workspace_id: str) -> bool:
    """Whether the workspace is there for `caller`: its own, or any for an operator."""
    return workspace_id == caller.workspace_id or (
        caller.may("operator") and await repository.find_workspace(session, workspace_id) is not None
    )


async def create_key(
    session: AsyncSession, pepper: SecretStr, workspace_id: str, request: NewKeyRequest, *, replaces: str | None = None
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
        replaces=replaces,
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
    if not await sees(session, caller, workspace_id):
        raise NotFound(f"There is no workspace {workspace_id!r} that you can make keys in.", code="workspace_not_found")
    return await create_key(session, pepper, workspace_id, request)


async def list_keys(session: AsyncSession, caller: Caller, page: PageRequest) -> tuple[list[Key], str | None]:
    """All keys for an operator, else those of the caller's workspace."""
    return await repository.keys(session, None if caller.may("operator") else caller.workspace_id, page)


async def revoke_key(session: AsyncSession, caller: Caller, key_id: str) -> None:
    """Ends a key at once; repeating it changes nothing.

    Raises:
        NotFound, Forbidden: see `_manageable`.
        Conflict: ``last_operator_key``.
    """
    # All of them first, in order: two operators who revoke each other's keys must not wait for each other.
    operators = await repository.lock_operator_keys(session) if caller.may("operator") else set()
    key, live = await _manageable(session, caller, key_id)
    if live and operators == {key.id}:
        raise Conflict(
            "This is the last key of an operator; make or rotate one before you revoke it.", code="last_operator_key"
        )
    await repository.revoke(session, key_id)


async def rotate_key(
    session: AsyncSession, pepper: SecretStr, caller: Caller, key_id: str, rotation: KeyRotation
) -> tuple[Key, str]:
    """A new key of the same name and role, that lives as long as the old one was to; the old one ends soon.

    Raises:
        NotFound, Forbidden: see `_manageable`.
        Conflict: ``key_not_live``; ``key_replaced`` for one that was rotated before.
    """
    old, live = await _manageable(session, caller, key_id)
    if not live:
        raise Conflict("This key is expired or revoked; make a new one.", code="key_not_live")
    newer = await repository.successor(session, old.id)
    if newer is not None:  # its end is that of the overlap, and says nothing of how long it was to live
        raise Conflict(f"This key was replaced by {newer}; rotate that one, or make a new one.", code="key_replaced")
    life = None if old.expires_at is None else old.expires_at - old.created_at
    expires_at = None if life is None else datetime.now(UTC) + life
    request = NewKeyRequest(name=old.name, role=RoleOf.validate_python(old.role), expires_at=expires_at)
    key, text = await create_key(session, pepper, old.workspace_id, request, replaces=old.id)
    if rotation.overlap_s:
        await repository.expire_key(session, old.id, rotation.overlap_s)
    else:
        await repository.revoke(session, old.id)
    return key, text


async def _manageable(session: AsyncSession, caller: Caller, key_id: str) -> tuple[Key, bool]:
    """A key that `caller` may end, locked, and whether it is live.

    Raises:
        NotFound: there is none in the workspaces that the caller sees.
        Forbidden: it is stronger than the caller's.
    """
    key, live = await repository.lock_key(session, key_id) if is_storable(key_id) else (None, False)
    if key is None or not (caller.may("operator") or key.workspace_id == caller.workspace_id):
        raise NotFound(f"There is no key {key_id!r} in this workspace.", code="key_not_found")
    if not caller.may(key.role):
        detail = f"A caller with the role {caller.role} cannot end a key with {key.role}."
        raise Forbidden(detail, code="role_too_weak")
    return key, live
