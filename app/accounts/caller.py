"""Who is asking: the key of a request, and what its role allows."""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from app import logs
from app.accounts import repository
from app.accounts.keys import hash_key, prefix_of
from app.errors import Forbidden, Unauthenticated
from app.tables.accounts import ROLES
from app.web.services import Services, get_services

#: Where everything lives when authentication is switched off, and the first key's workspace.
DEFAULT_WORKSPACE = "default"
_TOUCH = timedelta(minutes=1)
#: For OpenAPI alone; the header is read by `authenticate`.
_SCHEME = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="An API key: `mpk_...`.")


@dataclass(frozen=True)
class Caller:
    """Attributes:
    workspace_id: whose objects the caller sees.
    role: one of `app.tables.accounts.ROLES`.
    key_id: None where authentication is switched off.
    """

    workspace_id: str
    role: str
    key_id: str | None

    def may(self, role: str) -> bool:
        """Whether this caller's role includes `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


async def authenticate(request: Request) -> Caller:
    """The caller of `request`; found once per request. Raises `Unauthenticated`."""
    known: Caller | None = getattr(request.state, "caller", None)
    if known is None:
        services = get_services(request)
        header = request.headers.get("authorization")
        known = await (_by_key(services, header) if services.settings.auth_enabled else _anyone(services))
        request.state.caller = known
        logs.bind(workspace_id=known.workspace_id)
    return known


def require(role: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency that gives the caller, and answers 403 where its role is weaker than `role`."""

    async def dependency(request: Request, _: Annotated[object, Depends(_SCHEME)]) -> Caller:
        caller = await authenticate(request)
        if not caller.may(role):
            raise Forbidden(f"This needs a key with the role {role}; yours is {caller.role}.", code="role_too_weak")
        return caller

    return dependency


Reader = Annotated[Caller, Depends(require("reader"))]
Member = Annotated[Caller, Depends(require("member"))]
Admin = Annotated[Caller, Depends(require("admin"))]
Operator = Annotated[Caller, Depends(require("operator"))]


async def _by_key(services: Services, header: str | None) -> Caller:
    if header is None:
        raise _unauthenticated("Send an API key: `Authorization: Bearer mpk_...`.", "key_missing", "")
    scheme, _, text = header.partition(" ")
    prefix = prefix_of(text.strip()) if scheme.lower() == "bearer" else None
    if prefix is None:
        raise _unauthenticated("The Authorization header does not hold a key of this service: `Bearer mpk_...`.")
    async with services.database.transaction() as session:
        key = await repository.live_key(session, prefix)
        wanted = key.hash if key is not None else bytes(32)
        proved = hmac.compare_digest(wanted, hash_key(text.strip(), services.settings.key_pepper))
        if key is None or not proved:
            raise _unauthenticated("This key is unknown, expired or revoked.")
        if key.last_used_at is None or key.last_used_at < datetime.now(UTC) - _TOUCH:
            await repository.touch_key(session, key.id)
        return Caller(key.workspace_id, key.role, key.id)


async def _anyone(services: Services) -> Caller:
    async with services.database.transaction() as session:
        workspace = await repository.workspace_by_name(session, DEFAULT_WORKSPACE)
        if workspace is None:
            await repository.insert_workspace(session, DEFAULT_WORKSPACE)
            workspace = await repository.workspace_by_name(session, DEFAULT_WORKSPACE)
        if workspace is None:
            raise RuntimeError("the default workspace vanished while it was made")
        return Caller(workspace.id, "operator", None)


def _unauthenticated(detail: str, code: str = "key_invalid", error: str = ', error="invalid_token"') -> Unauthenticated:
    return Unauthenticated(detail, code=code, headers={"WWW-Authenticate": f'Bearer realm="modelpress"{error}'})
