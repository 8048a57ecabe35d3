"""``/``: what is running, what ended last, and what to do first."""

from fastapi import APIRouter, Request, Response

from app.accounts.routes import WorkspaceRoute
from app.datasets import service as datasets
from app.jobs import service as jobs
from app.models import service as models
from app.pages.view import ReaderView
from app.tables.jobs import TERMINAL
from app.web.pagination import PageRequest
from app.web.services import SessionDep

router = APIRouter(route_class=WorkspaceRoute, include_in_schema=False)
_LIVE = ("running", "canceling", "queued")


@router.get("/")
async def overview(request: Request, view: ReaderView, session: SessionDep) -> Response:
    """The first page."""
    caller = view.known
    live = await jobs.page(session, request, caller.workspace_id, jobs.Filters(states=_LIVE), PageRequest(20, None))
    over = await jobs.page(session, request, caller.workspace_id, jobs.Filters(states=TERMINAL), PageRequest(10, None))
    newest, _ = await models.list_page(session, caller, PageRequest(5, None), {})
    data, _ = await datasets.list_page(session, caller, PageRequest(5, None), {})
    return view.page("overview.html", live=live.items, over=over.items, models=newest, datasets=data)
