"""The audit log's one writer: `app.accounts.routes.WorkspaceRoute` and `authenticate` call it, no endpoint does.

A change is recorded in its own transaction, so both are there or neither; a refusal in a further one, since that of
the request is rolled back. What a stranger can make it write is bounded by the limit of failed authentications.
"""

import json
from contextlib import suppress
from datetime import timedelta

from fastapi import Request, Response
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.credentials import Caller, Suspect
from app.clock import NOW
from app.db import delete_some
from app.tables import AuditEvent
from app.web.services import get_services

#: The outcome of what was done; that of a refusal is the error's code.
DONE = "ok"
#: Whose changes are made by `modelpress-server`, without the API.
COMMAND_LINE = "command line"
#: The audit table's trigger lets only a transaction with this setting delete; see the migration.
_RETENTION = "modelpress.audit_retention"
_LONGEST = 255


def record_change(session: AsyncSession, request: Request, action: str, response: Response) -> None:
    """Adds that `action` was done to what the path names, or made what the answer names."""
    object_id = _path_object(request) or _made_object(response)
    session.add(_event(request, action, DONE, object_id))


async def record_refusal(
    request: Request, action: str, code: str, *, suspect: Suspect | None = None, actor: str | None = None
) -> None:
    """Records that `action` was refused.

    `suspect`: the key that a caller failed to prove; `actor`: who is known, and yet no caller.
    """
    event = _event(request, action, code, _path_object(request))
    if actor is not None:
        event.actor = actor
    if suspect is not None:
        event.workspace_id, event.object_id = suspect
    async with get_services(request).database.transaction() as session:
        session.add(event)


def record_command(session: AsyncSession, action: str, workspace_id: str, object_id: str) -> None:
    """Adds what was done on the command line."""
    values = {"action": action, "outcome": DONE, "workspace_id": workspace_id, "object_id": object_id}
    session.add(AuditEvent(actor=COMMAND_LINE, **values))


async def forget_old(session: AsyncSession, days: int) -> None:
    """Removes events older than `days` (0: none), some at a time; for the maintenance loop."""
    if days == 0:
        return
    await session.execute(select(func.set_config(_RETENTION, "on", True)))
    old = AuditEvent.created_at < NOW - timedelta(days=days)
    await session.execute(delete_some(AuditEvent, old))


def address_of(request: Request) -> str | None:
    """The client's address, as the believed proxies tell it."""
    return request.client.host if request.client is not None else None


def _event(request: Request, action: str, outcome: str, object_id: str | None) -> AuditEvent:
    caller: Caller | None = getattr(request.state, "caller", None)
    return AuditEvent(
        workspace_id=caller.workspace_id if caller is not None else None,
        actor=caller.name if caller is not None else None,
        action=action,
        object_id=object_id,
        outcome=outcome,
        request_id=getattr(request.state, "request_id", None),
        address=address_of(request),
    )


def _path_object(request: Request) -> str | None:
    """What the path names, as Postgres can hold it."""
    named = next((str(value) for value in request.path_params.values()), None)
    return None if named is None else named[:_LONGEST].encode("ascii", "backslashreplace").decode().replace("\0", "\\0")


def _made_object(response: Response) -> str | None:
    """What the answer's Location or body names."""
    location = response.headers.get("location")
    if location is not None:
        return location.rpartition("/")[2]
    with suppress(ValueError, AttributeError, KeyError, TypeError):
        return str(json.loads(bytes(response.body))["id"])
    return None
