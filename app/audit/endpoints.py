"""``/v1/audit``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime

from app.accounts.caller import Admin
from app.accounts.routes import WorkspaceRoute
from app.audit import service
from app.audit.schemas import AuditEventView
from app.web.fields import Text
from app.web.pagination import Page, PageDep
from app.web.problems import responses
from app.web.services import SessionDep

router = APIRouter(prefix="/v1/audit", tags=["audit"], route_class=WorkspaceRoute)


async def _filters(
    workspace_id: Annotated[Text | None, Query(description="For operators: one workspace.")] = None,
    actor: Annotated[Text | None, Query(description="A key's id, or `oidc:` and a subject.")] = None,
    action: Annotated[Text | None, Query(description="Name of an operation, such as `create_job`.")] = None,
    object_id: Annotated[Text | None, Query(description="What it was done to, or what it made.")] = None,
    outcome: Annotated[Text | None, Query(description="`ok`, or an error's code.")] = None,
) -> service.Filters:
    return service.Filters(workspace_id, actor, action, object_id, outcome)


@router.get("", summary="Read the audit log", responses=responses())
async def list_audit_events(
    caller: Admin,
    session: SessionDep,
    page: PageDep,
    filters: Annotated[service.Filters, Depends(_filters)],
    since: Annotated[AwareDatetime | None, Query(description="Not before this time.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Before this time.")] = None,
) -> Page[AuditEventView]:
    """Who changed what in one's workspace, and what was refused; everywhere, for an operator. Newest first."""
    rows, next_cursor = await service.list_page(session, caller, filters, (since, until), page)
    return Page(items=[AuditEventView.of(row) for row in rows], next_cursor=next_cursor)
