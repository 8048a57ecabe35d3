"""``/settings``: keys, webhooks, usage and the audit log, for administrators."""

from typing import Annotated

from fastapi import APIRouter, Response

from app.accounts import service as accounts
from app.accounts.routes import WorkspaceRoute
from app.accounts.schemas import KeyView
from app.audit import service as audit
from app.clock import clock
from app.pages.lists import EMPTY_IS_ANY
from app.pages.view import AdminView
from app.tables.accounts import ROLES
from app.usage import service as usage
from app.web.fields import Text
from app.web.pagination import PageDep, PageRequest
from app.web.services import ServicesDep, SessionDep
from app.webhooks import service as webhooks
from app.webhooks.schemas import DeliveryView, WebhookView

router = APIRouter(prefix="/settings", route_class=WorkspaceRoute, include_in_schema=False)
#: Workspaces that an operator can choose among.
_WORKSPACES = PageRequest(200, None)


@router.get("/keys")
async def keys_page(view: AdminView, session: SessionDep, page: PageDep) -> Response:
    """Keys, and a form that makes one."""
    caller = view.known
    rows, next_cursor = await accounts.list_keys(session, caller, page)
    workspaces, _ = await accounts.list_workspaces(session, caller, _WORKSPACES)
    return view.page(
        "settings/keys.html",
        keys=[KeyView.of(row) for row in rows],
        names={workspace.id: workspace.name for workspace in workspaces},
        next_cursor=next_cursor,
        now=await clock(session),
        roles=[role for role in ROLES if caller.may(role)],
    )


@router.get("/webhooks")
async def webhooks_page(view: AdminView, session: SessionDep, page: PageDep) -> Response:
    """Webhooks, and a form that makes one."""
    rows, next_cursor = await webhooks.page(session, view.known.workspace_id, page)
    return view.page("settings/webhooks.html", webhooks=rows, next_cursor=next_cursor)


@router.get("/webhooks/{webhook_id}")
async def webhook_page(view: AdminView, session: SessionDep, page: PageDep, webhook_id: str) -> Response:
    """A webhook, and what was sent to it."""
    workspace_id = view.known.workspace_id
    webhook = await webhooks.get(session, workspace_id, webhook_id)
    rows, next_cursor = await webhooks.deliveries(session, workspace_id, webhook_id, page)
    return view.page(
        "settings/webhook.html",
        webhook=WebhookView.of(webhook),
        deliveries=[DeliveryView.of(row) for row in rows],
        next_cursor=next_cursor,
    )


@router.get("/usage")
async def usage_page(view: AdminView, session: SessionDep, services: ServicesDep) -> Response:
    """What the workspace uses, how much it may, and for operators the workers."""
    now = await usage.usage(session, services.settings, view.known, None)
    return view.page("settings/usage.html", usage=now)


@router.get("/audit")
async def audit_page(
    view: AdminView,
    session: SessionDep,
    page: PageDep,
    actor: Annotated[Text | None, EMPTY_IS_ANY] = None,
    action: Annotated[Text | None, EMPTY_IS_ANY] = None,
    outcome: Annotated[Text | None, EMPTY_IS_ANY] = None,
) -> Response:
    """Who changed what, or was refused."""
    filters = audit.Filters(actor=actor, action=action, outcome=outcome)
    events, next_cursor = await audit.list_page(session, view.known, filters, (None, None), page)
    return view.page("settings/audit.html", events=events, filters=filters, next_cursor=next_cursor)
